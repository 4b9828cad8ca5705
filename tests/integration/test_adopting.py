"""A team with a Celery project adopts the library by one app and one word, and leaves again: nothing is left behind.

The steps are those of ``docs/adopting-and-leaving.md``. The project is made of files, as a team has it, and its
processes are real: a broker, a worker, senders.
"""

import difflib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.servers import Process, Redis

from .conftest import covered, need
from .test_deploy import wait_until

ROOT = Path(__file__).parents[2]

#: What the team has: a receiver that is slow, and tasks of its own.
FILES = {
    "cafe/__init__.py": "from .celery import app\n",
    "cafe/celery.py": """
import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "cafe.settings")
app = Celery("cafe")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
""",
    "cafe/settings.py": """
import os

SECRET_KEY = "of the cafe, long enough to be no example's"
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "members",
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["CAFE_DATABASE"],
        "OPTIONS": {"init_command": "PRAGMA journal_mode=WAL", "transaction_mode": "IMMEDIATE", "timeout": 20},
    }
}
CELERY_BROKER_URL = os.environ["CAFE_BROKER"]
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
""",
    "members/__init__.py": "",
    "members/apps.py": """
from django.apps import AppConfig


class MembersConfig(AppConfig):
    name = "members"

    def ready(self):
        from . import receivers  # noqa: F401
""",
    "members/letters.py": """
import json
import os


def write(**letter):
    with open(os.environ["CAFE_LETTERS"], "a") as letters:
        letters.write(json.dumps({"pid": os.getppid() if "CAFE_WORKER" in os.environ else 0, **letter}) + "\\n")
""",
    "members/tasks.py": """
from celery import shared_task

from .letters import write


@shared_task
def bill(name):
    write(what="bill", name=name)
""",
    "members/receivers.py": """
from django.contrib.auth.models import User
from django.db.models.signals import post_save
from django.dispatch import receiver

from .letters import write


@receiver(post_save, sender=User)
def welcome(sender, instance, created, **kwargs):
    if created:
        write(what="welcome", name=instance.username)
""",
}

#: One app, and one word with the import that knows it.
ADOPT = [
    ("cafe/settings.py", '    "members",\n', '    "deferred_signals",\n    "members",\n'),
    ("members/receivers.py", "from django.dispatch import receiver\n", "from deferred_signals import receiver\n"),
    ("members/receivers.py", "sender=User)", "sender=User, deferred=True)"),
]
DURABLE = [
    ("cafe/settings.py", '    "deferred_signals",\n', '    "deferred_signals",\n    "deferred_signals.outbox",\n'),
    ("members/receivers.py", "deferred=True)", "deferred=True, durable=True)"),
]


class Cafe:
    """The project in a directory, and what a team does with it."""

    def __init__(self, home: Path, broker: Redis) -> None:
        self.home, self.broker = home, broker
        self.release = home / "release"
        self.letters_path = home / "letters"
        self.letters_path.touch()
        for name, text in FILES.items():
            path = self.release / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.lstrip("\n"))
        self.env = {
            "DJANGO_SETTINGS_MODULE": "cafe.settings",
            "CAFE_DATABASE": str(home / "cafe.sqlite3"),
            "CAFE_BROKER": f"redis://127.0.0.1:{broker.port}/0",
            "CAFE_LETTERS": str(self.letters_path),
        }
        self.workers: list[Process] = []

    def environment(self, release: Path) -> dict[str, str]:
        return {**os.environ, **self.env, "PYTHONPATH": os.pathsep.join([str(release), str(ROOT)])}

    def files(self) -> dict[str, str]:
        return {name: (self.release / name).read_text() for name in FILES}

    def edit(self, changes: list[tuple[str, str, str]]) -> int:
        """Change the files; return how many lines a reviewer sees as new."""
        before = self.files()
        for name, old, new in changes:
            path = self.release / name
            assert path.read_text().count(old) == 1, (name, old)
            path.write_text(path.read_text().replace(old, new))
        differences = [
            line
            for name, text in self.files().items()
            for line in difflib.ndiff(before[name].splitlines(), text.splitlines())
        ]
        return sum(line.startswith("+ ") for line in differences)

    def manage(self, *words: str, release: Path | None = None, fails: bool = False) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "django", *words],
            env=self.environment(release or self.release),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert bool(done.returncode) is fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    def sign_up(self, name: str, release: Path | None = None) -> None:
        code = (
            "from django.contrib.auth.models import User\nfrom django.db import transaction\n"
            f"with transaction.atomic():\n    User.objects.create_user({name!r})\n"
            f"from members.tasks import bill\nbill.delay({name!r})\n"
        )
        self.manage("shell", "-c", code, release=release)

    def worker(self, release: Path | None = None) -> Process:
        process = Process(
            [sys.executable, "-m", "celery", "-A", "cafe", "worker", "--loglevel=INFO", "--concurrency=1"],
            home=self.home,
            env=self.environment(release or self.release) | {"CAFE_WORKER": "1"},
        )
        self.workers.append(process)
        wait_until(lambda: b" ready." in process.logs(), "ready", process)
        return process

    def letters(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.letters_path.read_text().splitlines()]

    def welcomed_by(self, name: str) -> list[int]:
        return [letter["pid"] for letter in self.letters() if (letter["what"], letter["name"]) == ("welcome", name)]

    def rows(self) -> dict[str, Any]:
        """All that the database has but for the users: its tables and indexes, and what Django keeps about apps."""
        database = sqlite3.connect(self.env["CAFE_DATABASE"])
        try:
            queries = {
                "schema": "SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2",
                "migrations": "SELECT app, name FROM django_migrations ORDER BY 1, 2",
                "content types": "SELECT app_label, model FROM django_content_type ORDER BY 1, 2",
                "permissions": "SELECT codename FROM auth_permission ORDER BY 1",
            }
            return {what: database.execute(query).fetchall() for what, query in queries.items()}
        finally:
            database.close()

    def waiting(self, release: Path) -> int:
        code = (
            "from deferred_signals.outbox.models import OutboxDelivery as D\n"
            "print('waiting:', D.objects.filter(state__in=['pending', 'running']).count())"
        )
        return int(self.manage("shell", "-c", code, release=release).partition("waiting: ")[2])

    def on_the_broker(self) -> list[str]:
        client: Any = redis.Redis.from_url(self.env["CAFE_BROKER"])  # whose types allow for its asynchronous twin
        with client:
            return sorted(key.decode() for key in client.keys("*"))


@pytest.fixture
def cafe(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cafe]:
    need(request, Redis)
    broker = Redis(tmp_path).wait_ready()
    covered(request, Redis.title, broker.version)
    cafe = Cafe(tmp_path, broker)
    cafe.manage("migrate", "--verbosity=0")
    yield cafe
    for process in [*cafe.workers, broker]:
        process.remove()


def test_one_app_and_one_word_and_the_receiver_runs_on_the_worker_that_is_there(cafe: Cafe):
    before = cafe.rows()
    cafe.sign_up("ada")
    assert cafe.welcomed_by("ada") == [0], "inline, as it was"
    assert cafe.edit(ADOPT) == 3, "the app, the import, the word"
    cafe.manage("check")
    cafe.manage("migrate", "--check")
    worker = cafe.worker()
    cafe.sign_up("grace")
    wait_until(lambda: cafe.welcomed_by("grace"), "a welcome", worker)
    assert cafe.welcomed_by("grace") == [worker._process.pid]
    wait_until(lambda: len(cafe.letters()) == 4, "bills, by a task of the team's own", worker)
    assert cafe.rows() == before, "no table, no row"


def test_a_team_that_leaves_leaves_nothing_behind_and_loses_nothing(cafe: Cafe):
    at_first, files = cafe.rows(), cafe.files()
    cafe.edit(ADOPT)
    cafe.edit(DURABLE)
    cafe.manage("migrate", "--verbosity=0")
    assert cafe.rows() != at_first
    cafe.sign_up("ada")  # no worker runs: it waits

    # 1. Senders first. The workers of the release before stay.
    old = cafe.home / "old"
    shutil.copytree(cafe.release, old)
    for name, text in files.items():
        (cafe.release / name).write_text(text)
    cafe.sign_up("grace")
    assert cafe.welcomed_by("grace") == [0]

    # 2. They run what waits.
    assert cafe.waiting(old) == 1
    worker = cafe.worker(old)
    wait_until(lambda: cafe.welcomed_by("ada"), "the one that waited", worker)
    wait_until(lambda: cafe.waiting(old) == 0, "that nothing waits", worker)

    # 3. Then they go.
    worker.kill("SIGTERM")
    wait_until(lambda: worker.status == "exited", "the worker's end", worker)

    # 4. The table, with the release that has the app; what Django has noted of it, without.
    cafe.manage("migrate", "deferred_signals_outbox", "zero", "--verbosity=0", release=old)
    assert cafe.rows()["content types"] != at_first["content types"], "Django itself leaves these"
    cafe.manage("remove_stale_contenttypes", "--include-stale-apps", "--no-input")
    assert cafe.rows() == at_first

    worker = cafe.worker()
    cafe.sign_up("heidi")
    wait_until(lambda: {"what": "bill", "name": "heidi"}.items() <= cafe.letters()[-1].items(), "a bill", worker)
    assert "deferred_signals" not in worker.logs().decode()
    assert [key for key in cafe.on_the_broker() if "deferred" in key] == []
    assert len(cafe.welcomed_by("ada")) == 1


def test_a_word_without_the_app_says_what_is_missing_in_send(cafe: Cafe):
    cafe.edit(ADOPT[1:])
    said = cafe.manage(
        "shell", "-c", "from django.contrib.auth.models import User; User.objects.create_user('ada')", fails=True
    )
    assert "ConfigurationError" in said
    assert "INSTALLED_APPS" in said
