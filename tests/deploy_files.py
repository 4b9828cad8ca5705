"""What stands in ``example_project/deploy``, as tests read it."""

import configparser
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

EXAMPLE = Path(__file__).resolve().parents[1] / "example_project"
DEPLOY = EXAMPLE / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
MANIFESTS = sorted(path for path in (DEPLOY / "kubernetes").glob("*.yaml") if path.stem != "kustomization")


class _Unit(configparser.ConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr  # upper and lower case as they stand there


def unit(path: Path) -> configparser.ConfigParser:
    """A unit file; none of ours says a key twice."""
    parser = _Unit(interpolation=None)
    parser.read(path)
    return parser


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def workloads() -> Iterator[tuple[str, dict[str, Any]]]:
    """The pods of the manifests, by the name of what starts them."""
    for path in MANIFESTS:
        for found in documents(path):
            if found["kind"] in {"Deployment", "Job"}:
                yield found["metadata"]["name"], found["spec"]["template"]["spec"]


def commands() -> dict[str, list[str]]:
    """Every command that a file has a process of the shop run, by ``file: name``; programs without their directory."""
    found = {}
    for path in UNITS:
        line = unit(path)["Service"]["ExecStart"].replace("%i", "book_shop").replace("%%", "%")
        found[f"systemd: {path.stem}"] = shlex.split(line)
    said = (DEPLOY / "Dockerfile").read_text().rpartition("\nCMD ")[2]
    found["Dockerfile: web"] = json.loads(said)
    for name, service in compose()["services"].items():
        if service["image"] == "shop" and "command" in service:
            found[f"compose: {name}"] = service["command"]
    for name, pod in workloads():
        found[f"kubernetes: {name}"] = pod["containers"][0]["command"]
    return {name: [Path(program).name, *words] for name, (program, *words) in found.items()}
