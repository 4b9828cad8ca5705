"""``docs/quickstart.md`` followed to the letter: its commands and blocks, in an empty directory, with a worker.

Two things are not as they stand there. The packages are those of the tests, for nothing is installed here; and the port
of the broker is a free one, which the page itself tells readers to do.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import Process, Redis
from tests.test_docs_shell import commands

from .conftest import covered, need
from .test_deploy import wait_until

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/quickstart.md").read_text()
STEPS = {section.partition("\n")[0]: section for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)}
#: What makes a virtual environment, or starts processes, is done by the test itself.
BY_THE_TEST = ("mkdir ", "python3 -m venv", "pip install", "celery -A", "python manage.py shell")


def step(number: int) -> str:
    return next(text for title, text in STEPS.items() if title.startswith(f"{number}. "))


def code(text: str) -> list[str]:
    """The Python that a reader sees: comments hide what only the documentation's tests run."""
    seen = re.sub(r"<!--\n.*?-->", "", text, flags=re.DOTALL)
    return re.findall(r"^```python\n(.*?)^```$", seen, re.MULTILINE | re.DOTALL)


def files(text: str) -> dict[str, str]:
    block = r"""^<!-- docs-test: file=(\S+)(?: as="[^"]*")? -->\n```python\n(.*?)^```$"""
    return dict(re.findall(block, text, re.MULTILINE | re.DOTALL))


class Reader:
    """Somebody who does what the page says."""

    def __init__(self, home: Path, broker: Redis) -> None:
        self.home, self.broker = home, broker
        self.workers: list[Process] = []
        self.env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.env.pop("DJANGO_SETTINGS_MODULE", None)  # of the tests

    def types(self, command: str, standing_in: str = "") -> str:
        program, *rest = shlex.split(command)
        known = {"python": [sys.executable], "django-admin": [sys.executable, "-m", "django"]}
        argv = [*known[program], *rest]
        done = subprocess.run(
            argv,
            cwd=self.home,
            env=self.env,
            input=standing_in,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def follows(self, text: str) -> None:
        for command in commands(text):
            if not command.startswith(BY_THE_TEST):
                self.types(command)

    def saves(self, text: str) -> None:
        for name, content in files(text).items():
            (self.home / name).write_text(content)

    def edits_the_settings(self, text: str) -> None:
        path = self.home / "mysite/settings.py"
        settings = path.read_text()
        apps, databases, rest = code(text)
        for name, new in (("INSTALLED_APPS", apps), ("DATABASES", databases)):
            assert new.startswith(name)
            found = re.findall(rf"^{name} = .*?^[\]}}]\n", settings, flags=re.MULTILINE | re.DOTALL)
            assert len(found) == 1
            settings = settings.replace(found[0], new)
        assert "6379" in rest
        path.write_text(f"{settings}\n{rest.replace('6379', str(self.broker.port))}")

    def starts_a_worker(self) -> Process:
        [command] = [found for found in commands(step(5)) if found.startswith("celery")]
        argv = [sys.executable, "-m", *shlex.split(command)]
        # The process would inherit the settings of the tests otherwise.
        env = self.env | {"DJANGO_SETTINGS_MODULE": "mysite.settings"}
        self.workers.append(Process(argv, home=self.home, env=env))
        wait_until(lambda: b" ready." in self.workers[-1].logs(), "ready", self.workers[-1])
        return self.workers[-1]

    def in_the_shell(self, python: str) -> str:
        return self.types("python manage.py shell", standing_in=python)


@pytest.fixture
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reader]:
    need(request, Redis)
    broker = Redis(tmp_path).wait_ready()
    covered(request, Redis.title, broker.version)
    home = tmp_path / "hello"
    home.mkdir()
    reader = Reader(home, broker)
    yield reader
    for process in [*reader.workers, broker]:
        process.remove()


def test_the_quickstart_works_to_the_letter(reader: Reader):
    reader.follows(step(1))
    reader.saves(step(2))
    reader.edits_the_settings(step(3))
    reader.saves(step(4))
    reader.follows(step(4))

    worker = reader.starts_a_worker()
    sign_up, ghost = code(step(5))
    reader.in_the_shell(sign_up)
    wait_until(lambda: b"Hello ada!" in worker.logs(), "an e-mail", worker)
    wait_until(lambda: b"succeeded in" in worker.logs(), "Celery's line", worker)
    assert re.search(rb"Task members\.receivers\.send_welcome_email\[[0-9a-f-]{36}\] received", worker.logs())

    reader.in_the_shell(f"{sign_up.splitlines()[0]}\n{ghost}")
    worker.stop()
    reader.in_the_shell(sign_up.replace("ada", "bob"))
    worker = reader.starts_a_worker()
    wait_until(lambda: b"Hello bob!" in worker.logs(), "what has waited", worker)
    assert not any(b"ghost" in process.logs() for process in reader.workers)
    worker.stop()

    [flaky] = files(step(6)).values()
    (reader.home / "members/receivers.py").write_text(flaky)
    worker = reader.starts_a_worker()
    reader.in_the_shell(sign_up.replace("ada", "grace"))
    wait_until(lambda: b"Welcome grace" in worker.logs(), "the second attempt", worker)
    assert b"attempt 1, will be retried in" in worker.logs()

    reader.broker.kill()
    said = reader.in_the_shell(sign_up.replace("ada", "eve"))
    assert "lost" in said
    assert "eve" in reader.in_the_shell("from django.contrib.auth.models import User; print(User.objects.last())\n")
