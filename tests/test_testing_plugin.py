"""The testing kit as pytest's plugin, and in projects of their own: in parallel, in random order, without Django."""

import importlib
import importlib.metadata
import os
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import deferred_signals
from deferred_signals import Signal, pytest_plugin
from tests import receivers

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = "deferred_signals.pytest_plugin"

ordered = Signal()


def python(*arguments: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    environment |= {"PYTHONPATH": os.pathsep.join([str(cwd), str(ROOT)]), **env}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_fixture_captures(link, calls, deliveries):
    link(ordered, receivers.first)
    ordered.send(None)
    deliveries.assert_deferred(receivers.first, count=1)
    assert calls == []
    deliveries.deliver()
    assert len(calls) == 1


def test_the_fixture_runs_at_once(link, calls, immediate_deliveries):
    link(ordered, receivers.first)
    ordered.send(None)
    assert len(calls) == 1
    immediate_deliveries.assert_deferred(receivers.first, count=1)


@pytest.fixture
def celery_worker() -> str:
    """In the place of celery.contrib.pytest's: nothing is published here."""
    return "a worker"


def test_the_fixture_publishes_through_celery(celery_deliveries):
    assert celery_deliveries.published == []


def test_it_has_these_fixtures():
    """Run anew: where the plugin is installed, it was imported before its coverage could be measured."""
    found = runpy.run_path(pytest_plugin.__file__, run_name=PLUGIN)
    fixtures = {name for name, one in found.items() if type(one).__name__ == "FixtureFunctionDefinition"}
    assert fixtures == {"deliveries", "immediate_deliveries", "celery_deliveries"}


def test_names_of_the_package_are_found_when_they_are_asked_for():
    found = runpy.run_path(deferred_signals.__file__, run_name="deferred_signals")
    named = {name for names in found["_HOMES"].values() for name in names}
    assert named == {*found["__all__"]} == {*deferred_signals.__all__}
    assert {*found["__all__"]} <= {*found["__dir__"]()}
    assert {*deferred_signals.__all__} <= {*dir(deferred_signals)}
    for name in named:
        assert found["__getattr__"](name) is getattr(deferred_signals, name)
    with pytest.raises(AttributeError, match="module 'deferred_signals' has no attribute 'nonsense'"):
        deferred_signals.nonsense  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nonsense'"):
        from deferred_signals import nonsense  # type: ignore[attr-defined]  # noqa: F401


def test_modules_of_the_package_are_found_when_they_are_asked_for(monkeypatch):
    asked = "deferred_signals.exceptions.Retry, deferred_signals.signals, deferred_signals.testing"
    done = python("-c", f"import deferred_signals; print({asked})")
    assert done.returncode == 0, done.stderr
    found = runpy.run_path(deferred_signals.__file__, run_name="deferred_signals")["__getattr__"]
    for path in (ROOT / "deferred_signals").glob("*.py"):
        if path.stem != "__init__":
            assert found(path.stem) is importlib.import_module(f"deferred_signals.{path.stem}")
    for name in ("__nonsense__", "_nonsense", "signals.nonsense"):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
            found(name)
    monkeypatch.setitem(sys.modules, "sentry_sdk", None)
    monkeypatch.delitem(sys.modules, "deferred_signals.sentry")
    with pytest.raises(ModuleNotFoundError, match="sentry_sdk"):
        found("sentry")


def test_loading_the_plugin_imports_neither_django_nor_celery():
    script = f"import sys, {PLUGIN}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = python("-c", script)
    assert done.returncode == 0, done.stderr
    assert not {"django", "celery", "kombu", "asgiref"} & {*done.stdout.split()}


@pytest.fixture
def installed(tmp_path: Path) -> str:
    """A folder to be put on the path in which the package is installed, with what pyproject.toml says of plugins."""
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    info = tmp_path / "site" / "deferred_signals_here-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: deferred-signals-here\nVersion: 0\n")
    lines = [f"{name} = {module}" for name, module in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines, ""]))
    return str(info.parent)


def test_pytest_finds_it_and_a_project_without_django_notices_nothing(tmp_path, installed):
    project = tmp_path / "project"
    project.mkdir()
    (project / "test_it.py").write_text(
        "import sys\n\ndef test_it(pytestconfig):\n"
        f"    assert pytestconfig.pluginmanager.has_plugin({PLUGIN!r})\n"
        "    assert 'django' not in sys.modules and 'celery' not in sys.modules\n"
    )
    others = [
        f"-pno:{entry.name}" for entry in importlib.metadata.entry_points(group="pytest11") if entry.name != PLUGIN
    ]
    done = python(
        "-W", "error", "-m", "pytest", "-q", "-p", PLUGIN, *others, "-p", "no:cacheprovider",
        cwd=project, PYTHONPATH=os.pathsep.join([installed, str(ROOT)]),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


SETTINGS = """
SECRET_KEY = "only for the tests"
INSTALLED_APPS = [
    "django.contrib.auth", "django.contrib.contenttypes", "deferred_signals", "deferred_signals.outbox", "cafe"
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "cafe.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
# Django 6.1 asks for it, and before nobody does.
MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
"""

RECEIVERS = """
from django.contrib.auth.models import User
from django.core.mail import send_mail
from django.db.models.signals import post_save

from deferred_signals import receiver


@receiver(post_save, sender=User, deferred=True)
def welcome(sender, instance, created, **kwargs):
    if created:
        send_mail("Welcome", "Good to have you here.", None, [instance.email])


@receiver(post_save, sender=User, deferred=True, durable=True)
def note(sender, instance, **kwargs):
    pass
"""

APP = """
from importlib import import_module

from django.apps import AppConfig


class Cafe(AppConfig):
    name = "cafe"

    def ready(self):
        import_module("cafe.receivers")
"""

UNITTEST = """
from django.contrib.auth.models import User
from django.core import mail
from django.db import transaction
from django.test import TestCase, TransactionTestCase

from cafe.receivers import note, welcome
from deferred_signals.testing import DeferredSignalsTestCase, immediate_deliveries


class SignUps:
    def test_one(self):
        with transaction.atomic():
            ada = User.objects.create_user("ada", "ada@example.com")
        self.assertDeferred(welcome, instance=ada, count=1)
        self.assertDeferred(note, instance=ada, count=1)
        self.assertEqual(len(self.deliver()), 2)
        self.assertEqual(mail.outbox[0].to, ["ada@example.com"])

    @immediate_deliveries()
    def test_two(self):
        with transaction.atomic():
            User.objects.create_user("ada", "ada@example.com")
        self.assertEqual(mail.outbox[0].to, ["ada@example.com"])


class One(SignUps, DeferredSignalsTestCase, TestCase):
    pass


class Two(SignUps, DeferredSignalsTestCase, TransactionTestCase):
    pass


class Three(One):
    pass


class Four(Two):
    pass
"""

PYTEST_INI = """
[pytest]
DJANGO_SETTINGS_MODULE = settings
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
"""

PYTEST = """
import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.db import transaction

from cafe.receivers import welcome
from deferred_signals.testing import capture_deliveries


@pytest.mark.django_db
@pytest.mark.parametrize("number", range(3))
def test_captured(deliveries, number):
    with transaction.atomic():
        ada = User.objects.create_user("ada", "ada@example.com")
    deliveries.assert_deferred(welcome, instance=ada, count=1)
    deliveries.deliver()
    assert len(mail.outbox) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("number", range(3))
def test_at_once(immediate_deliveries, number):
    with transaction.atomic():
        User.objects.create_user("ada", "ada@example.com")
        assert len(mail.outbox) == 0
    assert len(mail.outbox) == 1


def test_the_database_comes_after(deliveries, db):
    User.objects.create_user("ada", "ada@example.com")
    deliveries.assert_deferred(welcome, count=1)


@pytest.mark.django_db(transaction=True)
async def test_in_a_coroutine(deliveries):
    await User.objects.acreate(username="ada", email="ada@example.com")
    await deliveries.adeliver()
    assert len(mail.outbox) == 1


@pytest.fixture
def prepared(django_user_model, db):
    return django_user_model.objects.create_user("grace")


def test_what_fixtures_prepare(prepared, deliveries):
    deliveries.refute_deferred()
    with capture_deliveries() as captured:
        prepared.save()
    assert len(captured) == len(deliveries) == 2


@pytest.mark.django_db
@pytest.mark.xfail(raises=LookupError, strict=True)
def test_what_dies(deliveries, monkeypatch):
    monkeypatch.setattr("cafe.receivers.send_mail", lambda *args: {}["gone"])
    User.objects.create_user("ada", "ada@example.com")
    deliveries.deliver()
"""


@pytest.fixture
def cafe(tmp_path: Path) -> Path:
    """A small project of its own."""
    files = {
        "settings.py": SETTINGS,
        "manage.py": "from django.core.management import execute_from_command_line as run\nimport sys\nrun(sys.argv)\n",
        "cafe/__init__.py": "",
        "cafe/apps.py": APP,
        "cafe/receivers.py": RECEIVERS,
        "cafe/tests.py": UNITTEST,
        "pytest.ini": PYTEST_INI,
        "test_cafe.py": PYTEST,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_with_djangos_own_runner_in_parallel(cafe):
    done = python(
        "-W", "error", "manage.py", "test", "--parallel=2", "--shuffle", cwd=cafe, DJANGO_SETTINGS_MODULE="settings"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ran 8 tests" in done.stderr


def test_with_pytest_in_random_order_and_in_parallel(cafe):
    parallel = ["-p", PLUGIN, "-n", "2", "-W", "error", "-p", "no:cacheprovider"]
    done = python("-m", "pytest", "-q", *parallel, "test_cafe.py", "cafe/tests.py", cwd=cafe)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "17 passed, 1 xfailed" in done.stdout


def test_modules_are_imported_only_where_they_are_used():
    """The kit's own part for the outbox needs models, which a project without it does not have."""
    script = (
        "import django; from django.conf import settings; settings.configure(SECRET_KEY='x', INSTALLED_APPS=["
        "'django.contrib.contenttypes', 'django.contrib.auth', 'deferred_signals'], USE_TZ=True); django.setup(); "
        "import deferred_signals.testing, sys; print(*sys.modules)"
    )
    done = python("-c", script)
    assert done.returncode == 0, done.stderr
    assert "deferred_signals.outbox.models" not in done.stdout.split()
