"""The commands of ``example_project/deploy``, run as they stand there: they start, work together, and end when told."""

import os
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deploy_files import EXAMPLE, commands
from tests.servers import Process, Redis, free_port

from .conftest import covered, need

HOST = "shop.example.com"
DEADLINE = 30


def distinct(program: str, word: str = "") -> list[object]:
    """The command lines of a program that are not the same, each under the name of the first file that has it."""
    found: dict[tuple[str, ...], str] = {}
    for name, words in commands().items():
        if words[0] == program and word in (*words, ""):
            found.setdefault(tuple(words), name)
    return [pytest.param(list(words), id=name) for words, name in found.items()]


def wait_until(condition: Callable[[], object], what: str, process: Process) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"not in {DEADLINE} s: {what}\n{process.logs().decode(errors='replace')}"
        time.sleep(0.05)


class Deployment:
    def __init__(self, home: Path, broker: Redis) -> None:
        self.home, self.broker = home, broker
        self.port = free_port()
        self.pulse = home / "pulse"
        self.env = {
            "DJANGO_SETTINGS_MODULE": "config.settings",  # pytest-django has set another one
            "DEBUG": "0",
            "SECRET_KEY": "of the deployment that is tested",
            "ALLOWED_HOSTS": HOST,
            "DATA_DIR": str(home / "data"),
            "BROKER_URL": f"redis://127.0.0.1:{broker.port}/0",
            "REMAP_SIGTERM": "SIGQUIT",
            "WORKER_PULSE": str(self.pulse),
            "PYTHONPATH": os.pathsep.join([str(EXAMPLE), str(EXAMPLE.parent)]),
            "PYTHONUNBUFFERED": "1",
        }
        self.processes: list[Process] = []

    def run(self, words: list[str]) -> Process:
        program, *rest = (word.replace(":8000", f":{self.port}") for word in words)
        argv = [str(Path(sys.executable).with_name(program)), *rest]
        if program == "celery":
            argv[:1] = [sys.executable, "-m", "celery"]
        if program == "gunicorn":
            argv[:1] = [sys.executable, "-m", "gunicorn"]
        if "manage.py" in argv:
            argv[argv.index("manage.py")] = str(EXAMPLE / "manage.py")
        self.processes.append(Process(argv, home=self.home, env=self.env))
        return self.processes[-1]

    def manage(self, *words: str) -> None:
        process = self.run(["python", "manage.py", *words])
        wait_until(lambda: process.status == "exited", f"manage.py {words[0]}", process)
        assert process._process.returncode == 0, process.logs().decode()

    def end(self, process: Process) -> int:
        process.kill("SIGTERM")
        wait_until(lambda: process.status == "exited", "the end", process)
        code: int = process._process.returncode
        return code


@pytest.fixture
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    need(request, Redis)
    broker = Redis(tmp_path).wait_ready()
    covered(request, Redis.title, broker.version)
    deployment = Deployment(tmp_path, broker)
    deployment.manage("migrate", "--no-input", "--verbosity=0")
    yield deployment
    for process in [*deployment.processes, broker]:
        process.remove()


@pytest.mark.parametrize("words", distinct("celery"))
def test_a_worker_has_a_pulse_delivers_and_ends_when_told(deployment: Deployment, words: list[str]):
    deployment.pulse.touch()
    os.utime(deployment.pulse, (0, 0))  # of a container before
    worker = deployment.run(words)
    wait_until(lambda: b" ready." in worker.logs(), "ready", worker)
    began = deployment.pulse.stat().st_mtime
    assert began > 0
    wait_until(lambda: deployment.pulse.stat().st_mtime > began, "a heartbeat", worker)
    sign_up = "from shop.models import User; User.objects.create_user('ada', 'ada@example.com')"
    deployment.manage("shell", "-c", sign_up)
    emails = deployment.home / "data/emails"
    wait_until(lambda: any("ada" in path.read_text() for path in emails.glob("*")), "an e-mail", worker)
    # With something still running it would first wait for a minute, whether that ends or not.
    wait_until(lambda: b"] succeeded in " in worker.logs(), "the end of the task", worker)
    deployment.end(worker)
    assert b"Traceback" not in worker.logs()


def test_a_worker_that_waits_for_its_broker_has_no_pulse(deployment: Deployment):
    deployment.pulse.touch()
    deployment.broker.kill()
    worker = deployment.run(commands()["compose: worker"])
    wait_until(lambda: b"Cannot connect to" in worker.logs(), "that the broker is away", worker)
    assert not deployment.pulse.exists()


@pytest.mark.parametrize("words", distinct("gunicorn"))
def test_a_web_process_answers_the_probe_and_ends_when_told(deployment: Deployment, words: list[str]):
    web = deployment.run(words)
    wait_until(lambda: b"Listening at" in web.logs(), "listening", web)
    request = urllib.request.Request(f"http://127.0.0.1:{deployment.port}/", headers={"Host": HOST})
    with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
        assert answer.status == 200
    assert deployment.end(web) == 0


@pytest.mark.parametrize("words", distinct("python", "relay_outbox"))
def test_a_relay_of_its_own_starts_and_ends_when_told(deployment: Deployment, words: list[str]):
    relay = deployment.run(words)
    wait_until(lambda: b"Relay of default" in relay.logs(), "the relay", relay)
    assert deployment.end(relay) == 0


@pytest.mark.parametrize("words", distinct("python", "migrate"))
def test_migrations_run_without_questions(deployment: Deployment, words: list[str]):
    deployment.manage(*words[2:])
