"""System checks of the project's Celery: known traps are found, with the line that cures them, and only they."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import Celery
from celery.app import app_or_default
from django.apps import apps
from django.core import checks
from django.db import connection, connections, models
from django.db.models.signals import post_delete, post_save
from django.test.utils import isolate_apps
from kombu import Exchange, Queue

from deferred_signals import Signal
from deferred_signals.celery_project import Routing, broker_url, deliver_task, transport
from deferred_signals.checks.celery import longest_pause
from deferred_signals.options import Options
from deferred_signals.tasks import OURS, RELIED_ON
from tests.receivers import first, second
from tests.shop.models import Customer

ROOT = Path(__file__).resolve().parent.parent
LONG_KEY = "a key of the tests that is long enough to be nobody's guess"

knock = Signal()

Project = Callable[..., Celery]


@pytest.fixture
def project(settings: Any) -> Iterator[Project]:
    """Make a project's Celery app with these settings the current one, and deliveries go through it."""
    before = app_or_default()
    settings.DEFERRED_SIGNALS = {"BACKEND": "celery"}
    settings.SECRET_KEY = LONG_KEY

    def make(broker: str | None = "redis://localhost:1/0", *, reuse: int | None = 1000, **conf: Any) -> Celery:
        app = Celery("project", broker=broker, set_as_current=False, fixups=[])
        # Else there is something to say wherever the tests' own database is not SQLite.
        app.conf.update(({"CELERY_DB_REUSE_MAX": reuse} if reuse else {}) | conf)
        app.set_current()
        return app

    yield make
    before.set_current()


def found(*, deploy: bool = False) -> dict[str, checks.CheckMessage]:
    """The messages, by their ids without the name of the app."""
    messages = checks.run_checks(tags=["deferred_signals"], include_deployment_checks=deploy)
    by_id = {str(message.id).removeprefix("deferred_signals."): message for message in messages}
    assert len(by_id) == len(messages)
    assert all(message.hint for message in messages)
    return by_id


class TestWhereThereIsNothingToSay:
    @pytest.mark.parametrize("broker", ["redis://localhost:1/0", "amqp://localhost:1//", "memory://", None])
    def test_a_project_with_celerys_defaults_is_quiet(self, broker, project, link):
        project(broker)
        link(knock, first)
        link(post_save, second, Customer)
        assert found() == {}

    @pytest.mark.parametrize("broker", ["redis://localhost:1/0", "amqp://localhost:1//"])
    def test_so_is_one_in_production_that_has_thought_of_all(self, broker, project, link, monkeypatch):
        project(broker, CELERY_DB_REUSE_MAX=1000)
        link(knock, first)
        monkeypatch.setattr(connection, "vendor", "postgresql")
        assert found(deploy=True) == {}

    def test_without_a_celery_app_celery_is_not_asked(self, settings, project):
        Celery("default", set_as_current=True)
        assert set(found(deploy=True)) == {"W001"}

    def test_where_deliveries_do_not_go_through_celery_it_is_not_asked(self, settings, project, link):
        project(accept_content=["pickle"], task_always_eager=True)
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory"}
        link(knock, first, countdown=10**6)
        assert found(deploy=True) == {}

    def test_a_check_can_be_silenced_by_its_id(self, settings, project):
        project(accept_content=["pickle"])
        settings.SILENCED_SYSTEM_CHECKS = ["deferred_signals.E101"]
        assert found()["E101"].is_silenced()

    def test_no_check_asks_the_broker(self, project, link, monkeypatch):
        def refuse(*args: Any, **kwargs: Any) -> None:
            raise AssertionError("a check has opened a socket")

        monkeypatch.setattr("socket.socket.connect", refuse)
        for broker in ("redis://localhost:1/0", "amqp://localhost:1//"):
            project(broker, task_routes={"deferred_signals.*": "elsewhere"})
            link(knock, first, dispatch_uid=broker, time_limit=90)
            assert set(found(deploy=True)) == {"I201"}

    def test_the_checks_leave_the_queues_of_a_worker_as_they_are(self, project, link):
        """A worker runs them when it starts, and consumes from all queues that its app knows by then."""
        app = project("amqp://localhost:1//")
        link(knock, first, queue="elsewhere", countdown=60)
        found(deploy=True)
        assert set(app.amqp.queues.consume_from) == {"celery"}


def test_settings_that_cannot_be_read_are_an_error(project):
    project()
    app = Celery("unreadable", set_as_current=False, fixups=[])
    app.config_from_object("tests.nowhere.settings")
    app.set_current()
    message = found(deploy=True)["E106"]
    assert "ModuleNotFoundError: No module named 'tests.nowhere'" in message.msg


class TestAcceptContent:
    def test_without_json_is_an_error(self, project):
        project(accept_content=["pickle"])
        message = found()["E101"]
        assert message.level == checks.ERROR
        assert message.hint == 'CELERY_ACCEPT_CONTENT = ["json", "pickle"]'

    @pytest.mark.parametrize("accepted", [["pickle", "json"], ["application/json"], {"json"}])
    def test_with_json_is_none(self, accepted, project):
        project(accept_content=accepted)
        assert found() == {}


class TestAnnotations:
    @pytest.mark.parametrize("name", ["*", "deferred_signals.deliver"])
    @pytest.mark.parametrize(
        ("attribute", "value"),
        [
            ("acks_late", False),
            ("reject_on_worker_lost", False),
            ("autoretry_for", (Exception,)),
            ("max_retries", 3),
            ("Request", "celery.worker.request:Request"),
            ("Strategy", "celery.worker.strategy:default"),
            ("retry_on_worker_lost", True),
            ("compression", "gzip"),
            ("expires", 60),
        ],
    )
    def test_those_that_change_how_a_delivery_is_acknowledged_or_retried_are_an_error(
        self, name, attribute, value, project
    ):
        project(task_annotations={name: {attribute: value}})
        message = found()["E102"]
        assert message.msg.startswith(f"Celery's task_annotations change {attribute} of deferred_signals.deliver")
        assert "CELERY_TASK_ANNOTATIONS" in str(message.hint)

    @pytest.mark.parametrize(
        "annotations",
        [
            {"shop.tasks.add": {"acks_late": False}},
            {"*": {"acks_late": True, "time_limit": 60, "on_failure": print}},
            None,
        ],
    )
    def test_others_are_none(self, annotations, project):
        project(task_annotations=annotations)
        assert found() == {}

    @pytest.mark.parametrize(
        "conf", [{"task_acks_late": False}, {"task_reject_on_worker_lost": False}, {"task_track_started": True}]
    )
    def test_settings_that_have_no_effect_on_our_task_are_none(self, conf, project):
        project(**conf)
        assert found() == {}

    def test_what_is_relied_on_is_what_our_task_says(self, project):
        task = deliver_task(project())
        assert {name: getattr(task, name) for name in RELIED_ON} == RELIED_ON
        assert all(getattr(task, name).startswith("deferred_signals.") for name in OURS)


def lines(*needles: str, message: checks.CheckMessage) -> bool:
    return all(needle in message.msg for needle in needles)


class TestRedisVisibilityTimeout:
    @pytest.mark.parametrize(
        ("options", "why"),
        [
            ({"countdown": 3600}, "a countdown of 3600 s"),
            ({"time_limit": 7200, "max_retries": 0}, "a time limit of 7200 s"),
            ({"soft_time_limit": 3601}, "retries after up to 4 s and a time limit of 3601 s"),
            ({"countdown": 3000, "time_limit": 600}, "a countdown of 3000 s and a time limit of 600 s"),
            ({"max_retries": 20, "retry_backoff_max": 7200}, "retries after up to 7200 s"),
            ({"max_retries": None, "retry_backoff_max": 7200}, "retries after up to 7200 s"),
        ],
    )
    def test_that_is_not_longer_than_a_receiver_may_take_is_a_warning(self, options, why, project, link):
        project()
        link(knock, first, **options)
        message = found()["W101"]
        assert f"'tests.receivers.first' has {why}, and Redis" in message.msg
        assert message.obj == "tests.receivers.first"

    def test_the_hint_is_the_line_that_cures_it(self, project, link):
        project(broker_transport_options={"visibility_timeout": 60, "sentinel_kwargs": {"password": "hunter2"}})
        link(knock, first, countdown=7200)
        hint = found()["W101"].hint
        assert hint == 'CELERY_BROKER_TRANSPORT_OPTIONS = {..., "visibility_timeout": 10800}'
        project(broker_transport_options={"visibility_timeout": 10800})
        assert found() == {}

    @pytest.mark.parametrize(
        ("broker", "conf", "options"),
        [
            ("redis://localhost:1/0", {}, {"countdown": 3599}),
            ("rediss://localhost:1/0", {"broker_transport_options": {"visibility_timeout": 7201}}, {"countdown": 7200}),
            ("redis://localhost:1/0", {}, {"max_retries": 3, "retry_backoff_max": 7200}),
            ("redis://localhost:1/0", {}, {"max_retries": 0, "retry_backoff_max": 7200, "retry_backoff": 7200}),
            ("redis://localhost:1/0", {}, {"retry_backoff": False, "max_retries": None}),
            (
                "redis://localhost:1/0",
                {"broker_transport_options": {"visibility_timeout": "long"}},
                {"countdown": 9999},
            ),
            ("sqs://", {}, {"countdown": 7200}),
        ],
    )
    def test_that_is_longer_is_none(self, broker, conf, options, project, link):
        project(broker, **conf)
        link(knock, first, **options)
        assert found() == {}

    def test_a_time_limit_of_the_project_counts(self, project, link):
        project("sentinel://localhost:1;sentinel://localhost:2", task_time_limit=4000)
        link(knock, first)
        assert "a time limit of 4000 s" in found()["W101"].msg

    def test_the_longest_pause_is_what_the_backoff_comes_to(self):
        assert longest_pause(Options(max_retries=3)) == 4
        assert longest_pause(Options(max_retries=None)) == 600
        assert longest_pause(Options(retry_backoff=False)) == 180
        assert longest_pause(Options(max_retries=0)) == 0


class TestRabbitMQConsumerTimeout:
    def test_a_longer_countdown_is_a_warning(self, project, link):
        project("amqp://localhost:1//")
        link(knock, first, countdown=1800)
        message = found()["W102"]
        assert "a countdown of 1800 s" in message.msg
        assert "consumer_timeout = 3600000" in str(message.hint)

    @pytest.mark.parametrize(
        ("options", "arguments"),
        [
            ({"countdown": 1799}, {}),
            ({"countdown": 7200}, {"x-consumer-timeout": 7_300_000}),
            # RabbitMQ itself holds the countdowns of these.
            ({"countdown": 7200}, {"x-queue-type": "quorum"}),
        ],
    )
    def test_a_shorter_one_or_a_queue_that_allows_it_is_none(self, options, arguments, project, link):
        project("pyamqp://localhost:1//", task_queues=[Queue("celery", queue_arguments=arguments)])
        link(knock, first, **options)
        assert found() == {}

    def test_a_router_of_the_project_that_fails_does_not_fail_the_check(self, project, link):
        def router(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **more: Any) -> None:
            raise LookupError(args[0]["tenant"])

        project("amqp://localhost:1//", task_routes=[router])
        link(knock, first, time_limit=1800)
        assert set(found()) == {"W102"}


class TestWhatIsNeverRun:
    @pytest.mark.parametrize(
        ("ours", "options", "limit"),
        [
            ({}, {"countdown": 60, "expires": 60}, "its expires of 60 s"),
            ({"MAX_AGE": 30}, {"countdown": 60}, "DEFERRED_SIGNALS['MAX_AGE'] of 30 s"),
        ],
    )
    def test_is_an_error(self, ours, options, limit, project, settings, link):
        project()
        settings.DEFERRED_SIGNALS = {"BACKEND": "celery", **ours}
        link(knock, first, **options)
        message = found()["E105"]
        assert lines("is never run: its countdown of 60 s", limit, message=message)

    def test_is_not_what_has_time_enough(self, project, settings, link):
        project()
        settings.DEFERRED_SIGNALS = {"BACKEND": "celery", "MAX_AGE": 61}
        link(knock, first, countdown=60, expires=61)
        link(knock, second, expires=1)
        assert found() == {}


class TestQueuesThatMayNotBeCreated:
    def test_are_an_error(self, project, link):
        project(task_create_missing_queues=False, task_queues=[Queue("celery")])
        link(knock, first, queue="bulk")
        assert lines("The queue 'bulk' of the deferred receiver 'tests.receivers.first'", message=found()["E104"])

    def test_are_an_error_when_routes_lead_to_them(self, project, link):
        routes = {"deferred_signals.deliver": {"queue": "bulk"}}
        project(task_create_missing_queues=False, task_queues=[Queue("celery")], task_routes=routes)
        link(knock, first)
        assert lines("The queue to which task_routes leads", message=found()["E104"])

    def test_are_none_when_they_are_there(self, project, link):
        project(task_create_missing_queues=False, task_queues=[Queue("celery"), Queue("bulk")])
        link(knock, first, queue="bulk")
        assert found() == {}

    def test_are_none_when_a_router_of_the_project_cannot_be_asked(self, project, link):
        def router(*args: Any, **kwargs: Any) -> None:
            raise LookupError

        project(task_create_missing_queues=False, task_routes=[router])
        link(knock, first, queue="celery")
        assert found() == {}


class TestResultsThatSendTheNextDelivery:
    @pytest.mark.parametrize("backend", ["django-db", "django_celery_results.backends.database:DatabaseBackend"])
    def test_are_an_error(self, backend, project, link):
        project(result_backend=backend)
        link(post_save, first, ignore_result=False)
        message = found()["E103"]
        assert "for ever" in message.msg

    @isolate_apps()
    def test_are_an_error_also_when_the_sender_is_the_table_of_results(self, project, link):
        class TaskResult(models.Model):
            class Meta:
                app_label = "django_celery_results"

        project(result_backend="django-db")
        link(post_save, first, TaskResult, ignore_result=False)
        assert set(found()) == {"E103"}

    @pytest.mark.parametrize(
        ("backend", "signal", "sender", "options"),
        [
            ("redis://localhost:1/1", post_save, None, {"ignore_result": False}),
            ("django-db", post_save, None, {}),
            ("django-db", post_save, Customer, {"ignore_result": False}),
            ("django-db", post_save, "shop.Customer", {"ignore_result": False}),
            ("django-db", post_delete, None, {"ignore_result": False}),
            ("django-db", knock, None, {"ignore_result": False}),
            ("django-db", post_save, None, {"ignore_result": False, "when": lambda **kwargs: False}),
        ],
    )
    def test_are_none_where_it_cannot_be(self, backend, signal, sender, options, project, link):
        project(result_backend=backend)
        link(signal, first, sender, **options)
        assert found() == {}


class TestInProduction:
    """What is right on a laptop: only ``check --deploy`` and the doctor say so."""

    def test_eager_tasks(self, project):
        project(task_always_eager=True)
        assert found() == {}
        message = found(deploy=True)["W201"]
        assert (message.level, message.hint) == (checks.WARNING, "CELERY_TASK_ALWAYS_EAGER = False")

    def test_a_connection_to_the_database_for_each_task(self, project, monkeypatch, settings):
        app = project(reuse=None)
        monkeypatch.setattr(connection, "vendor", "postgresql")
        assert found() == {}
        assert found(deploy=True)["W202"].hint == "CELERY_DB_REUSE_MAX = 1000"
        # As the quickstart has it; and Celery itself sees it there.
        app.config_from_object("django.conf:settings", namespace="CELERY")
        settings.CELERY_BROKER_URL = "redis://localhost:1/0"
        settings.CELERY_DB_REUSE_MAX = 1000
        assert found(deploy=True) == {}
        assert import_module("celery.fixups.django").DjangoWorkerFixup(app).db_reuse_max == 1000

    def test_a_connection_to_sqlite_costs_nothing(self, project, monkeypatch):
        project(reuse=None)
        for alias in connections:
            monkeypatch.setattr(connections[alias], "vendor", "sqlite")
            monkeypatch.setitem(connections[alias].settings_dict, "NAME", ":memory:")
        assert found(deploy=True) == {}

    @pytest.mark.parametrize(
        ("options", "journal", "quiet"),
        [
            ({}, "delete", False),
            ({"transaction_mode": "IMMEDIATE"}, "delete", False),
            ({"init_command": "PRAGMA journal_mode=WAL;"}, "delete", False),
            ({"transaction_mode": "immediate", "init_command": "PRAGMA journal_mode=WAL"}, "delete", True),
            # Once it is in WAL mode, a file stays in it.
            ({"transaction_mode": "IMMEDIATE"}, "wal", True),
            ({}, "wal", False),
            ({"transaction_mode": "IMMEDIATE"}, None, False),
        ],
    )
    def test_sqlite_shared_by_web_and_workers(self, options, journal, quiet, project, monkeypatch, tmp_path):
        project()
        path = tmp_path / "db.sqlite3"
        if journal:
            with closing(sqlite3.connect(path)) as database:
                database.execute(f"PRAGMA journal_mode={journal}")
                database.execute("CREATE TABLE t (x)")
        for alias in connections:
            monkeypatch.setattr(connections[alias], "vendor", "sqlite")
            monkeypatch.setitem(connections[alias].settings_dict, "NAME", ":memory:")
        monkeypatch.setitem(connection.settings_dict, "NAME", path)
        monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
        assert found() == {}
        messages = found(deploy=True)
        assert set(messages) == (set() if quiet else {"W204"})
        assert quiet or '"transaction_mode": "IMMEDIATE"' in str(messages["W204"].hint)

    @pytest.mark.parametrize("broker", ["memory://", "filesystem://", "sqla+sqlite:///x.sqlite3"])
    def test_a_broker_that_is_for_play(self, broker, project):
        project(broker)
        assert found() == {}
        assert found(deploy=True)["W205"].hint == 'CELERY_BROKER_URL = "redis://..." or "amqp://..."'

    def test_messages_that_are_not_confirmed(self, project):
        project("amqp://localhost:1//", broker_transport_options={"confirm_publish": False})
        assert found() == {}
        assert found(deploy=True)["W206"].hint == 'CELERY_BROKER_TRANSPORT_OPTIONS = {"confirm_publish": True}'
        project("redis://localhost:1/0", broker_transport_options={"confirm_publish": False})
        assert found(deploy=True) == {}

    def test_the_broker_that_celery_makes_up(self, project, settings):
        project(None)
        assert found() == {}
        assert "RabbitMQ on localhost as guest" in found(deploy=True)["W207"].msg
        settings.DEBUG = True
        assert found(deploy=True) == {}

    @pytest.mark.parametrize(
        "key", ["django-insecure-" + LONG_KEY, "short", "ab" * 40, b"django-insecure-" + LONG_KEY.encode()]
    )
    def test_a_key_that_can_be_guessed(self, key, project, settings):
        project()
        settings.SECRET_KEY = key
        assert found() == {}
        assert found(deploy=True)["W208"].msg.startswith("SECRET_KEY, which signs deliveries, can be guessed")
        settings.DEFERRED_SIGNALS = {"BACKEND": "celery", "SIGNING_KEYS": [LONG_KEY, key]}
        assert found(deploy=True) == {}
        settings.DEFERRED_SIGNALS = {"BACKEND": "celery", "SIGNING_KEYS": [key, LONG_KEY]}
        message = found(deploy=True)["W208"]
        assert message.msg.startswith("DEFERRED_SIGNALS['SIGNING_KEYS'][0], ")
        assert str(key) not in f"{message.msg} {message.hint}"
        settings.DEBUG = True
        assert found(deploy=True) == {}

    def test_a_rate_limit_that_all_receivers_share(self, project):
        project(task_annotations={"*": {"rate_limit": "10/s"}})
        assert found() == {}
        message = found(deploy=True)["W209"]
        assert "a rate limit of 10/s" in message.msg
        assert 'instead of "*"' in str(message.hint)
        project(task_default_rate_limit="10/s")
        line = found(deploy=True)["W209"].hint
        assert line == 'CELERY_TASK_ANNOTATIONS = {"deferred_signals.deliver": {"rate_limit": 0}}'
        project(task_default_rate_limit="10/s", task_annotations={"deferred_signals.deliver": {"rate_limit": 0}})
        assert found(deploy=True) == {}

    def test_compression(self, project):
        project(task_compression="gzip")
        assert found() == {}
        assert "CELERY_TASK_COMPRESSION = None" in str(found(deploy=True)["W210"].hint)

    def test_workers_that_end_with_the_broker(self, project):
        project(broker_connection_retry=False)
        assert found() == {}
        assert found(deploy=True)["W211"].hint == "CELERY_BROKER_CONNECTION_RETRY = True"

    @pytest.mark.parametrize(
        ("broker", "conf", "priority", "quiet"),
        [
            ("amqp://localhost:1//", {}, 5, False),
            ("amqp://localhost:1//", {}, None, True),
            ("amqp://localhost:1//", {"task_queue_max_priority": 9}, 5, True),
            ("amqp://localhost:1//", {"task_queues": [Queue("celery", max_priority=9)]}, 5, True),
            ("amqp://localhost:1//", {"task_default_queue_type": "quorum"}, 5, True),
            ("redis://localhost:1/0", {}, 5, True),
        ],
    )
    def test_priorities_that_rabbitmq_does_not_heed(self, broker, conf, priority, quiet, project, link):
        project(broker, **conf)
        link(knock, first, priority=priority)
        assert found() == {}
        messages = found(deploy=True)
        assert set(messages) == (set() if quiet else {"W212"})
        assert quiet or str(messages["W212"].hint).startswith("CELERY_TASK_QUEUE_MAX_PRIORITY = 9")

    @pytest.mark.parametrize("options", [{"time_limit": 60}, {"soft_time_limit": 600}])
    def test_short_deliveries_behind_long_ones_are_a_hint(self, options, project, link):
        project()
        link(knock, first, **options)
        assert found() == {}
        message = found(deploy=True)["I201"]
        assert message.level == checks.INFO
        assert "CELERY_WORKER_PREFETCH_MULTIPLIER = 1" in str(message.hint)
        project(worker_prefetch_multiplier=1)
        assert found(deploy=True) == {}


class TestResultsThatFillUp:
    def test_when_they_never_expire(self, project, link):
        project(result_backend="redis://localhost:1/1", result_expires=None)
        link(knock, first, ignore_result=False)
        assert found() == {}
        message = found(deploy=True)["W203"]
        assert message.msg.startswith("The results of tests.receivers.first are kept (ignore_result=False), and never")
        assert message.hint == "CELERY_RESULT_EXPIRES = 86400"

    @pytest.mark.parametrize("backend", ["django-db", "db+sqlite:///results.sqlite3", "file:///var/results"])
    def test_when_beat_would_have_to_delete_them_and_does_not_run(self, backend, project, link):
        app = project(result_backend=backend)
        link(knock, first, ignore_result=False)
        assert "celery.backend_cleanup" in found(deploy=True)["W203"].msg
        app.conf.beat_schedule = {"nightly": {"task": "shop.tasks.report", "schedule": 86400}}
        assert found(deploy=True) == {}

    def test_not_when_the_applications_schedule_is_installed(self, project, link, monkeypatch):
        project(result_backend="django-db")
        link(knock, first, ignore_result=False)
        installed = apps.is_installed
        monkeypatch.setattr(apps, "is_installed", lambda name: name == "django_celery_beat" or installed(name))
        assert found(deploy=True) == {}

    @pytest.mark.parametrize(
        ("conf", "options"),
        [
            ({"result_backend": "redis://localhost:1/1"}, {"ignore_result": False}),
            ({"result_backend": "redis://localhost:1/1", "result_expires": None}, {}),
            ({"result_backend": "django-db"}, {}),
            ({"result_expires": None}, {"ignore_result": False}),
            ({"result_backend": "disabled://", "result_expires": None}, {"ignore_result": False}),
        ],
    )
    def test_not_when_they_expire_or_are_not_kept(self, conf, options, project, link):
        project(**conf)
        link(knock, first, **options)
        assert found(deploy=True) == {}


class TestUWSGI:
    """Inside uWSGI a module ``uwsgi`` tells how it was started; there is no other way to know."""

    @pytest.fixture
    def started_with(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        def start(**options: Any) -> None:
            module: Any = ModuleType("uwsgi")
            module.opt = {name.replace("_", "-"): value for name, value in options.items()}
            monkeypatch.setitem(sys.modules, "uwsgi", module)

        return start

    def test_without_threads_is_a_warning_and_the_app_logs_it_where_nobody_runs_checks(
        self, started_with, caplog, monkeypatch
    ):
        started_with(http=b":8000", master=True)
        message = found()["W103"]
        assert message.hint == "enable-threads = true in uWSGI's configuration"
        monkeypatch.setattr(checks, "register", lambda *args, **kwargs: None)
        with caplog.at_level(logging.WARNING, "deferred_signals"):
            apps.get_app_config("deferred_signals").ready()
        assert "no delivery would leave it. enable-threads = true" in caplog.text

    @pytest.mark.parametrize("options", [{"enable_threads": True}, {"threads": b"2"}, {"gevent": b"100"}])
    def test_with_threads_is_none(self, options, started_with):
        started_with(**options)
        assert found() == {}

    def test_its_options_may_be_bytes(self, monkeypatch):
        module: Any = ModuleType("uwsgi")
        module.opt = {b"enable-threads": True}
        monkeypatch.setitem(sys.modules, "uwsgi", module)
        assert found() == {}


class TestWhereMessagesGo:
    @pytest.mark.parametrize(
        ("conf", "options", "queue", "way"),
        [
            ({}, {}, "celery", ("", "celery")),
            ({}, {"queue": "bulk"}, "bulk", ("", "bulk")),
            ({"task_default_queue": "shop"}, {}, "shop", ("", "shop")),
            ({"task_routes": {"deferred_signals.*": "routed"}}, {}, "routed", ("", "routed")),
            ({"task_routes": {"deferred_signals.*": "routed"}}, {"queue": "bulk"}, "bulk", ("", "bulk")),
            ({"task_annotations": {"*": {"queue": "annotated"}}}, {}, "annotated", ("", "annotated")),
            ({}, {"exchange": "mails", "routing_key": "welcome"}, None, ("mails", "welcome")),
            (
                {"task_queues": [Queue("celery"), Queue("mail", Exchange("mails"), routing_key="welcome")]},
                {"exchange": "mails", "routing_key": "welcome"},
                "mail",
                ("mails", "welcome"),
            ),
            (
                {"task_queues": [Queue("celery", Exchange("all", type="topic"), routing_key="shop.#")]},
                {"routing_key": "shop.mail"},
                None,
                ("all", "shop.mail"),
            ),
        ],
    )
    def test_is_what_celery_does_with_them(self, conf, options, queue, way, project):
        app = project("memory://", **conf)
        there = Routing(app).destination(Options(**options))
        assert (there.queue and there.queue.name, there.exchange, there.routing_key) == (queue, *way)
        assert (there.arguments, there.is_quorum) == ({}, False)
        with app.connection_for_write() as connected, app.amqp.Producer(connected, auto_declare=False) as producer:
            sent: list[tuple[str, str]] = []

            def publish(body: Any, **how: Any) -> None:
                sent.append((str(how["exchange"]), how["routing_key"]))

            producer.publish = publish
            deliver_task(app).apply_async(("",), producer=producer, **Options(**options).message)
        assert sent == [way]

    @pytest.mark.parametrize(
        ("broker", "scheme", "first_url"),
        [
            ("redis://localhost:1/0", "redis", "redis://localhost:1/0"),
            ("redis+socket:///tmp/redis.sock", "redis", "redis+socket:///tmp/redis.sock"),
            ("AMQP://a//;amqp://b//", "amqp", "AMQP://a//"),
            (["sentinel://a:1", "sentinel://b:1"], "sentinel", "sentinel://a:1"),
            ("localhost", "amqp", "localhost"),
            ([], "amqp", ""),
            (None, "amqp", ""),
        ],
    )
    def test_the_transport_is_the_scheme_of_the_first_url(self, broker, scheme, first_url, project):
        app = project(broker)
        assert (transport(app), broker_url(app)) == (scheme, first_url)


def test_manage_py_check_runs_the_advice_only_where_it_is_asked_for():
    code = (
        "import os, sys; os.environ['DJANGO_SETTINGS_MODULE'] = 'tests.settings'\n"
        "from tests import settings\n"
        "settings.DEFERRED_SIGNALS = {'BACKEND': 'celery'}; settings.CELERY_TASK_ALWAYS_EAGER = True\n"
        "from celery import Celery\n"
        "app = Celery('project', broker='redis://localhost:1/0')\n"
        "app.config_from_object('django.conf:settings', namespace='CELERY')\n"
        "from django.core.management import execute_from_command_line\n"
        "execute_from_command_line(['manage.py', 'check', '--tag', 'deferred_signals', *sys.argv[1:]])\n"
    )
    environment = {name: value for name, value in os.environ.items() if "CELERY" not in name}
    said = [
        subprocess.run(
            [sys.executable, "-c", code, *options],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        for options in ([], ["--deploy"])
    ]
    assert "no issues" in said[0].stdout
    assert "(deferred_signals.W201)" in said[1].stderr
