"""The files of ``example_project/deploy`` are valid, say the same, and leave workers the time that they need to end.

Each is checked by the program or the schema that is there for it. Nothing here builds an image or asks a cluster.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest

from .deploy_files import DEPLOY, EXAMPLE, MANIFESTS, UNITS, commands, compose, documents, unit, workloads

#: The newest that the schemas of ``kubernetes-validate`` know; what a release takes the next ones take too.
KUBERNETES = kubernetes_validate.latest_version()


def verifier() -> str:
    found = shutil.which("systemd-analyze")
    if not found:
        required = os.environ.get("DEFERRED_SIGNALS_TEST_REQUIRE_SERVICES")
        (pytest.fail if required else pytest.skip)("systemd-analyze: not installed (package systemd)")
    return found


def seconds(value: str) -> int:
    return int(value.removesuffix("s"))


def soft_timeout() -> int:
    found = re.search(
        r"^CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = (\d+)$", (EXAMPLE / "config/settings.py").read_text(), re.MULTILINE
    )
    assert found
    return int(found[1])


def test_there_is_something_to_check():
    assert len(UNITS) == 3
    assert {name for name, _ in workloads()} == {"web", "worker", "relay", "migrate"}


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_finds_nothing_wrong_in_a_unit(path: Path, tmp_path: Path):
    # It looks whether the programs are there, so they are put there, below another directory.
    text = path.read_text().replace("/srv/shop", str(tmp_path))
    program = Path(re.findall(r"^ExecStart=(\S+)", text, re.MULTILINE)[0])
    program.parent.mkdir(parents=True)
    program.symlink_to("/bin/true")
    placed = tmp_path / path.name.replace("@.", "@book_shop.")
    placed.write_text(text)
    done = subprocess.run([verifier(), "verify", "--man=no", placed], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_check_of_units_can_fail(tmp_path: Path):
    wrong = tmp_path / "wrong.service"
    wrong.write_text("[Service]\nType=exec\nExecStart=/bin/true\nKillMod=mixed\n")
    done = subprocess.run([verifier(), "verify", "--man=no", wrong], capture_output=True, text=True, check=False)
    assert "KillMod" in done.stderr


def test_hadolint_finds_nothing_wrong_in_the_dockerfile():
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([program, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_what_the_dockerfile_copies_is_there_and_is_not_ignored():
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (.*) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE):
        for name in line.split():
            assert (EXAMPLE.parent / name).exists(), name
            assert f"!{name}" in ignored


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_are_what_the_schemas_of_kubernetes_ask_for(path: Path):
    for found in documents(path):
        kubernetes_validate.validate(found, KUBERNETES, strict=True)


def test_the_check_of_manifests_can_fail():
    [wrong, *_] = documents(DEPLOY / "kubernetes/worker.yaml")
    wrong["spec"]["replica"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_the_kustomization_names_manifests_that_are_there_and_what_it_leaves_out_names_the_namespace():
    [kustomization] = documents(DEPLOY / "kubernetes/kustomization.yaml")
    named = set(kustomization["resources"])
    assert named < {path.name for path in MANIFESTS}
    for path in MANIFESTS:
        if path.name not in named:
            assert [found["metadata"]["namespace"] for found in documents(path)] == [kustomization["namespace"]]


def test_selectors_select_the_pods_of_their_deployment():
    for path in MANIFESTS:
        specs = [found["spec"] for found in documents(path) if "spec" in found]
        labels = [spec["template"]["metadata"]["labels"] for spec in specs if "template" in spec]
        for found in documents(path):
            selector = found.get("spec", {}).get("selector", {})
            assert not selector or selector.get("matchLabels", selector) == labels[0], path.name


def test_a_service_of_compose_depends_on_services_and_uses_volumes_that_are_there():
    file = compose()
    for name, service in file["services"].items():
        for other, how in service.get("depends_on", {}).items():
            needed = file["services"][other]
            if how["condition"] == "service_healthy":
                assert "healthcheck" in needed, f"{name} waits for the health of {other}"
            if how["condition"] == "service_completed_successfully":
                assert needed["restart"] == "no"
        for volume in service.get("volumes", ()):
            assert volume.partition(":")[0] in file["volumes"]


def test_a_worker_is_killed_only_after_the_soft_shutdown_is_over():
    worker = unit(DEPLOY / "systemd/shop-worker@.service")["Service"]
    pod = dict(workloads())["worker"]
    service = compose()["services"]["worker"]
    graces = [
        seconds(worker["TimeoutStopSec"]),
        pod["terminationGracePeriodSeconds"],
        seconds(service["stop_grace_period"]),
    ]
    assert min(graces) >= soft_timeout() + 20
    environments = [
        dict([worker["Environment"].split("=")]),
        {one["name"]: one["value"] for one in pod["containers"][0]["env"]},
        service["environment"],
    ]
    assert [one["REMAP_SIGTERM"] for one in environments] == ["SIGQUIT"] * 3
    assert worker["KillMode"] == "mixed"


def test_the_same_command_runs_a_worker_and_a_web_process_everywhere():
    found = commands()
    units = {"systemd: shop-worker@", "systemd: shop-web"}
    workers = {tuple(words) for name, words in found.items() if "worker" in words and name not in units}
    webs = {tuple(words) for name, words in found.items() if words[0] == "gunicorn" and name not in units}
    assert len(workers) == len(webs) == 1
    # On a host there may be several workers, which need names, and the web process is behind a server of its own.
    assert set(found["systemd: shop-worker@"]) - set(*workers) == {"--hostname", "book_shop@%h"}
    assert set(found["systemd: shop-web"]) - set(*webs) == {"127.0.0.1:8000"}


def test_web_processes_and_workers_get_the_same_variables():
    names = {
        line.partition("=")[0] for line in (DEPLOY / "systemd/shop.env").read_text().splitlines() if line[0] != "#"
    }
    [config] = documents(DEPLOY / "kubernetes/configuration.yaml")
    in_docker = {"DATA_DIR"}  # the image says it
    assert names - in_docker == {*config["data"], "SECRET_KEY", "BROKER_URL", "PGPASSWORD"}
    file = compose()["services"]
    for service in ("web", "worker", "migrate"):
        assert names - in_docker <= set(file[service]["environment"])
    for _, pod in workloads():
        assert pod["containers"][0]["envFrom"] == [{"configMapRef": {"name": "shop"}}, {"secretRef": {"name": "shop"}}]
    for path in UNITS:
        assert unit(path)["Service"]["EnvironmentFile"] == "/etc/shop/shop.env"
