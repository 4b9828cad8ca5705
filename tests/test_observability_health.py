"""The health check: 200 or 503, by thresholds, with numbers and no secrets."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.app import app_or_default
from django.db import DatabaseError, OperationalError, connections
from django.test import Client, RequestFactory
from django.urls import path
from django.views.decorators.cache import never_cache

from deferred_signals import health as health_module
from deferred_signals import keeping
from deferred_signals.doctor.patience import NoAnswer
from deferred_signals.health import health, view
from deferred_signals.outbox import figures
from deferred_signals.outbox.backend import DatabaseOutbox
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.leader import Leadership
from deferred_signals.outbox.models import State
from tests.outbox.test_examination import put

ROOT = Path(__file__).resolve().parent.parent

#: What the broker is said to do by a child that was forked while a thread of its parent's asked, and by the parent.
FORKS = """
import os, threading
import django
from celery import Celery
from django.test import override_settings

django.setup()
app, thaw, is_asked = Celery(broker="memory://", set_as_current=True), threading.Event(), threading.Event()
connect = app.connection_for_write

def connection():
    made = connect()
    made.ensure_connection = lambda **kwargs: (is_asked.set(), thaw.wait())
    return made

app.connection_for_write = connection
from deferred_signals.health import health

with override_settings(DEFERRED_SIGNALS={"BACKEND": "celery"}):
    assert health(broker=0.01).report["broker"] == "does not answer"
    assert is_asked.wait(60)
    child = os.fork()
    if not child:
        thaw.set()
    said = health(broker=60 if not child else 0.01).report["broker"]
    if child:
        assert os.waitpid(child, 0)[1] == 0
    print(said, flush=True)
"""


urlpatterns = [path("plain/", view), path("wrapped/", never_cache(view))]


class TestTheOutbox:
    pytestmark = pytest.mark.django_db(databases=["default", "other"], transaction=True)

    @pytest.fixture(autouse=True)
    def outbox(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(keeping, "_outbox", DatabaseOutbox())

    @pytest.fixture
    def relay(self) -> None:
        for alias in ("default", "other"):
            assert Leadership(alias).is_mine()

    def test_that_gets_on_is_healthy(self, relay):
        put()
        status, report = health(dead=0)
        waits = report["databases"]["default"].pop("oldest_pending_seconds")
        assert 0 <= waits < 60
        assert (status, report) == (
            200,
            {
                "healthy": True,
                "problems": [],
                "databases": {
                    "default": {"dead": 0, "relay": True},
                    "other": {"oldest_pending_seconds": 0, "dead": 0, "relay": True},
                },
            },
        )

    def test_with_a_delivery_that_has_waited_for_too_long_is_not(self, relay):
        put(due=DatabaseNow(-400))
        status, report = health()
        assert (status, report["healthy"]) == (503, False)
        [problem] = report["problems"]
        assert problem.startswith("default: a delivery has been due for 4")
        assert problem.endswith("(more than 300).")
        assert health(oldest=500).status == 200
        assert "oldest_pending_seconds" not in health(oldest=None).report["databases"]["default"]

    def test_with_too_many_dead_ones_is_not_and_by_default_nobody_counts_them(self, relay):
        for _ in range(5):
            put(State.DEAD)
        assert health().status == 200
        assert health(dead=5).status == 200
        status, report = health(dead=2)
        assert (status, report["problems"]) == (503, ["default: more than 2 dead deliveries are kept."])
        assert report["databases"]["default"]["dead"] == 3, "counted no further than it takes"

    def test_without_a_relay_is_not(self):
        status, report = health()
        assert (status, report["problems"]) == (
            503,
            ["default: no relay is at work.", "other: no relay is at work."],
        )
        assert health(relay=False).status == 200

    def test_whose_database_does_not_answer_is_not_and_why_is_not_said(self, relay, monkeypatch):
        def fail(alias: str) -> Any:
            raise DatabaseError("password=hunter2")

        monkeypatch.setattr(figures, "oldest", fail)
        status, report = health()
        assert status == 503
        assert report["databases"] == {"default": None, "other": None}
        assert "hunter2" not in str(report)

    def test_without_tables_anywhere_is_not(self, monkeypatch):
        monkeypatch.setattr("deferred_signals.outbox.backend.has_table", lambda alias: False)
        assert health().report["problems"] == ["No database has the tables of the outbox."]

    def test_asks_the_broker_only_if_it_is_told_to(self, relay, monkeypatch):
        monkeypatch.setattr(health_module, "current_app", Celery)
        assert "broker" not in health().report
        monkeypatch.setattr(health_module, "current_app", lambda: None)
        assert health(broker=1).report["broker"] == "is not used"


class TestTheBroker:
    """Without the outbox it is all there is to ask."""

    @pytest.fixture
    def app(self, settings: Any) -> Any:
        settings.DEFERRED_SIGNALS = {"BACKEND": "celery"}
        before = app_or_default()
        app = Celery("project", broker="memory://", set_as_current=True)
        yield app
        before.set_current()

    def test_that_answers_is_healthy(self, app):
        assert health() == (200, {"healthy": True, "problems": [], "broker": "answers"})

    def test_that_cannot_be_reached_is_not_and_its_address_is_not_said(self, app):
        app.conf.broker_url = "amqp://user:hunter2@127.0.0.1:1//"
        status, report = health(broker=60)
        assert (status, report["problems"]) == (503, ["The broker cannot be reached."])
        assert "hunter2" not in str(report)

    @pytest.fixture
    def frozen(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Until it is thawed, who connects as this app does waits; other threads' connections are not its business."""
        broker, connect = SimpleNamespace(begun=[], thaw=threading.Event()), app.connection_for_write

        def connection() -> Any:
            made = connect()

            def freeze(**kwargs: Any) -> None:
                broker.begun.append(threading.current_thread())
                assert broker.thaw.wait(60)

            made.ensure_connection = freeze
            return made

        monkeypatch.setattr(app, "connection_for_write", connection)
        yield broker
        broker.thaw.set()
        for thread in broker.begun:
            thread.join(60)

    def test_that_is_frozen_is_asked_by_one_at_a_time(self, frozen):
        for _ in range(3):
            assert health(broker=0.05).report["problems"] == ["The broker does not answer."]
        frozen.thaw.set()
        # Who has waited for it gets an answer when it is there.
        assert health(broker=60).status == 200
        assert len(frozen.begun) == 2

    def test_that_is_frozen_is_waited_for_no_longer_than_it_may_be(self, frozen, monkeypatch):
        """Neither by who waits for another one's question to end, and then asks."""
        clock, given = [100.0], []

        class Slow:
            def acquire(self, timeout: float) -> bool:
                given.append(timeout)
                clock[0] += 3
                return True

            def release(self) -> None:
                """For who comes next."""

        def no_answer(seconds: float, question: Any) -> None:
            given.append(seconds)
            raise NoAnswer

        monkeypatch.setitem(health_module._asked, os.getpid(), Slow())
        monkeypatch.setattr(health_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
        monkeypatch.setattr(health_module, "within", no_answer)
        for patience in (5, 2, -1):
            assert health(broker=patience).report["problems"] == ["The broker does not answer."]
        assert given == [5, 2, 2, 0, 0, 0]

    def test_is_asked_again_after_a_thread_could_not_be_started(self, app, monkeypatch):
        def refuse(self: Any) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            assert health(broker=60).report["problems"] == ["The broker cannot be reached."]
        assert health(broker=60).status == 200

    def test_is_asked_in_a_child_that_was_forked_while_it_was_asked(self):
        """In a process of its own, which has no other threads."""
        environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "CELERY_SKIP_CHECKS": "1"}
        command = [sys.executable, "-W", "ignore", "-c", FORKS]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250, check=False
        )
        assert (done.returncode, done.stdout) == (0, "answers\ndoes not answer\n"), done.stderr

    def test_is_not_used_by_other_backends_nor_in_eager_mode(self, app, settings):
        app.conf.task_always_eager = True
        assert health().report["broker"] == "is not used"
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory"}
        assert health() == (200, {"healthy": True, "problems": [], "broker": "is not used"})

    def test_of_settings_that_cannot_be_read_is_a_problem(self, app, monkeypatch):
        monkeypatch.setattr(health_module, "unreadable", lambda app: ImportError("hunter2"))
        status, report = health()
        assert status == 503
        assert report["problems"] == ["The broker cannot be told, for Celery's settings cannot be read."]


class TestTheView:
    def test_answers_in_json_with_the_status_and_is_not_cached(self):
        response = view(RequestFactory().get("/"))
        assert (response.status_code, response["Content-Type"]) == (200, "application/json")
        assert "no-store" in response["Cache-Control"]
        assert b'"healthy": true' in response.content

    @pytest.mark.django_db(databases=["default", "other"], transaction=True)
    def test_takes_its_thresholds_from_the_route(self, monkeypatch):
        monkeypatch.setattr(keeping, "_outbox", DatabaseOutbox())
        assert view(RequestFactory().get("/")).status_code == 503
        assert view(RequestFactory().get("/"), relay=False).status_code == 200

    @pytest.mark.parametrize("path", ["/plain/", "/wrapped/"])
    @pytest.mark.parametrize("alias", ["default", "other"])
    @pytest.mark.django_db(databases=["default", "other"], transaction=True)
    def test_answers_with_atomic_requests_when_a_database_is_away(self, alias, path, settings, monkeypatch):
        """Django would begin the request's transaction, and fail, before the view is called."""

        def away() -> None:
            raise OperationalError("password=hunter2")

        settings.ROOT_URLCONF, settings.MIDDLEWARE = __name__, []
        monkeypatch.setattr(keeping, "_outbox", DatabaseOutbox())
        client = Client(raise_request_exception=False)
        monkeypatch.setitem(connections[alias].settings_dict, "ATOMIC_REQUESTS", True)
        monkeypatch.setattr(connections[alias], "ensure_connection", away)
        response = client.get(path)
        assert (response.status_code, response["Content-Type"]) == (503, "application/json")
        report = response.json()
        assert (report["databases"][alias], "hunter2" in str(report)) == (None, False)
        assert f"{alias}: the database does not answer." in report["problems"]

    def test_answers_questions_only(self):
        assert view(RequestFactory().post("/")).status_code == 405
