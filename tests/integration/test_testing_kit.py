"""The testing kit as a project uses it, with a Celery worker in a thread and a real broker between them."""

from pathlib import Path

import pytest

from tests.servers import Redis
from tests.test_testing_plugin import PLUGIN, cafe, python

from .conftest import covered, need

__all__ = ["cafe"]

TESTS = """
import threading

import pytest
from celery.contrib.pytest import *
from celery.contrib.testing import tasks
from django.contrib.auth.models import User
from django.core import mail
from django.db import transaction

from cafe import receivers
from deferred_signals import current_delivery

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="session")
def celery_config():
    return {"broker_url": BROKER, "result_backend": BROKER, "task_default_queue": "cafe"}


def test_a_user_is_welcomed_by_the_worker(celery_deliveries, monkeypatch):
    threads = []
    send_mail = receivers.send_mail
    monkeypatch.setattr(receivers, "send_mail", lambda *args: threads.append(threading.get_ident()) or send_mail(*args))
    with transaction.atomic():
        User.objects.create_user("ada", "ada@example.com")
        assert celery_deliveries.published == []
    celery_deliveries.wait()
    assert mail.outbox[0].to == ["ada@example.com"]
    assert threads != [threading.get_ident()]
    assert sorted(end.state for end in celery_deliveries.outcomes.values()) == ["succeeded"] * 2


@pytest.mark.xfail(raises=LookupError, strict=True)
def test_what_dies_there_fails_here(celery_deliveries, monkeypatch):
    monkeypatch.setattr(receivers, "send_mail", lambda *args: {}["gone"])
    registration = __import__("deferred_signals.registry", fromlist=["get"]).get("cafe.receivers.welcome")
    monkeypatch.setattr(registration, "options", __import__("dataclasses").replace(registration.options, max_retries=0))
    User.objects.create_user("ada", "ada@example.com")
    celery_deliveries.wait()
"""


@pytest.fixture
def redis(request: pytest.FixtureRequest, tmp_path: Path):
    need(request, Redis)
    (tmp_path / "redis").mkdir()
    server = Redis(tmp_path / "redis").wait_ready()
    covered(request, Redis.title, server.version)
    yield server
    server.remove()


def test_a_worker_of_celerys_own_fixture_delivers_over_redis(redis: Redis, cafe: Path):
    (cafe / "test_worker.py").write_text(TESTS.replace("BROKER", repr(f"redis://127.0.0.1:{redis.port}/0")))
    settings = cafe / "settings.py"
    settings.write_text(
        settings.read_text().replace('"NAME": "cafe.sqlite3"', '"NAME": "x", "TEST": {"NAME": "t.sqlite3"}')
    )
    options = ["-p", PLUGIN, "-p", "no:cacheprovider", "-p", "no:randomly"]
    done = python("-m", "pytest", "-q", *options, "test_worker.py", cwd=cafe, CELERY_SKIP_CHECKS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 1 xfailed" in done.stdout
