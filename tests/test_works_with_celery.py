"""Celery as projects set it up: settings, apps, task classes, eager mode. Each with a worker of Celery's own.

The worker is a thread of this process; workers that are processes are in integration/test_works_with.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, ClassVar

import pytest
from celery import Celery, Task, _state, shared_task
from celery.app import app_or_default
from celery.contrib.django.task import DjangoTask
from celery.contrib.testing.worker import start_worker
from celery.signals import (
    before_task_publish,
    setup_logging,
    task_failure,
    task_postrun,
    task_prerun,
    task_received,
    task_retry,
    task_success,
)
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models.signals import post_save
from django.test import TestCase
from kombu import Exchange, Queue
from kombu.transport.memory import Transport

from deferred_signals import Retry, Signal
from deferred_signals.signals import delivery_finished
from deferred_signals.tasks import deliver
from tests import receivers
from tests.receivers import asynchronous, curious, first, on_instance, second, troubled

bell: Any = Signal()  # Django's stubs say that every response is a string

SECRET = "hunter2"


class Project:
    """A project's Celery app with a worker; ``ring`` sends and returns the outcomes of what was sent."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.ended: list[tuple[Any, Any]] = []

    def note(self, delivery: Any, outcome: Any, **kwargs: Any) -> None:
        if outcome.state != "retry":
            self.ended.append((delivery, outcome))

    def ring(self, signal: Any = bell, sender: Any = None, **kwargs: Any) -> list[str]:
        sent = [delivery.id for _, delivery in signal.send(sender=sender, **kwargs)]
        return self.ended_of(sent)

    def ended_of(self, sent: list[str]) -> list[str]:
        deadline = time.monotonic() + 20
        while not set(sent) <= {delivery.id for delivery, _ in self.ended}:
            assert time.monotonic() < deadline, f"not delivered: {sent}, but {self.ended}"
            threading.Event().wait(0.005)
        return [outcome.state for delivery, outcome in self.ended if delivery.id in sent]


Start = Callable[..., Project]


@pytest.fixture
def start(request: pytest.FixtureRequest, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Make a Celery app with these settings the current one and start a worker of it."""
    settings.DEFERRED_SIGNALS = {"BACKEND": "celery"}
    # Celery's worker would run Django's system checks, some of which ask the database.
    monkeypatch.setenv("CELERY_SKIP_CHECKS", "1")
    # So that it looks often whether it shall end.
    drain = Transport.drain_events
    monkeypatch.setattr(Transport, "drain_events", lambda self, connection, timeout=None: drain(self, connection, 0.02))
    before = app_or_default()

    def leave_alone(**kwargs: Any) -> None: ...

    setup_logging.connect(leave_alone)
    with ExitStack() as stack:
        stack.callback(setup_logging.disconnect, leave_alone)
        stack.callback(before.set_current)

        def start(*, app: Celery | None = None, queues: str | None = None, **changes: Any) -> Project:
            app = app or Celery("project", set_as_current=False)
            app.conf.update({"broker_url": "memory://", "task_default_queue": request.node.name, **changes})
            app.conf.broker_transport_options = {"polling_interval": 0.01}
            app.set_current()
            project = Project(app)
            delivery_finished.connect(project.note)
            stack.callback(delivery_finished.disconnect, project.note)
            stack.enter_context(start_worker(app, pool="solo", perform_ping_check=False, queues=queues))
            return project

        yield start


@pytest.fixture
def heard() -> Iterator[list[tuple[str, Any]]]:
    """What Celery's own signals say of our task."""
    said: list[tuple[str, Any]] = []
    of_celery = {
        "before_task_publish": before_task_publish,
        "task_received": task_received,
        "task_prerun": task_prerun,
        "task_success": task_success,
        "task_retry": task_retry,
        "task_failure": task_failure,
        "task_postrun": task_postrun,
    }

    def listen(name: str) -> Any:
        def listener(sender: Any = None, **kwargs: Any) -> None:
            said.append((name, getattr(sender, "name", sender)))

        return listener

    listeners = {name: listen(name) for name in of_celery}
    for name, listener in listeners.items():
        of_celery[name].connect(listener, weak=False)
    yield said
    for name, listener in listeners.items():
        of_celery[name].disconnect(listener)


@pytest.mark.parametrize(
    "changes",
    [
        {"accept_content": ["json"], "task_serializer": "json", "result_serializer": "json"},
        {"task_serializer": "pickle", "accept_content": ["json", "pickle"], "result_serializer": "pickle"},
        {"task_serializer": "yaml", "accept_content": ["application/json", "yaml"]},
        {"task_serializer": "msgpack", "accept_content": ["json", "msgpack"], "event_serializer": "msgpack"},
        {"task_compression": "gzip"},
        {"task_protocol": 1},
        {"task_acks_late": True, "worker_prefetch_multiplier": 1, "task_acks_on_failure_or_timeout": False},
        {"task_acks_late": False, "worker_prefetch_multiplier": 8, "task_reject_on_worker_lost": False},
        {"task_ignore_result": True, "task_store_errors_even_if_ignored": True, "result_backend": "cache+memory://"},
        {"task_track_started": True, "result_extended": True, "result_backend": "cache+memory://"},
        {"worker_send_task_events": True, "task_send_sent_event": True},
        {"task_always_eager": False, "task_eager_propagates": True},
        {"task_publish_retry": False, "broker_pool_limit": 0},
        {"task_default_rate_limit": "1000/s", "task_annotations": {"*": {"rate_limit": "1000/s"}}},
        {"worker_disable_rate_limits": True, "enable_utc": False, "timezone": "Asia/Tokyo"},
        {"task_default_priority": 3, "task_inherit_parent_priority": True, "task_queue_max_priority": 9},
    ],
    ids=lambda changes: " ".join(f"{name}={value}" for name, value in changes.items()),
)  # fmt: skip
def test_deliveries_run_whatever_the_projects_settings_say(start: Start, link, calls, changes):
    link(bell, first)
    link(bell, asynchronous)
    project = start(**changes)
    assert project.ring(tones={1, 2}) == ["succeeded", "succeeded"]
    assert [kwargs["tones"] for _, _, kwargs in calls] == [{1, 2}, {1, 2}]


@pytest.mark.parametrize("name", ["pickle", "yaml", "msgpack"])
def test_the_message_is_json_whatever_the_projects_serializer_is(start: Start, link, name):
    link(bell, first)
    seen: list[Any] = []

    class Noting(Task[..., Any]):
        def apply_async(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(self.serializer)
            return super().apply_async(*args, **kwargs)

    project = start(
        app=Celery("p", set_as_current=False, task_cls=Noting), task_serializer=name, accept_content=["json"]
    )
    assert project.ring() == ["succeeded"]
    assert "json" in seen


class TestRoutes:
    def test_our_task_can_be_routed_by_its_name(self, start: Start, link):
        link(bell, first)
        project = start(task_routes={"deferred_signals.*": {"queue": "signals"}}, queues="signals")
        assert project.ring() == ["succeeded"]

    def test_a_router_function_is_asked_with_the_name_of_the_task(self, start: Start, link):
        link(bell, first)
        asked: list[Any] = []

        def router(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **more: Any) -> Any:
            asked.append((name, kwargs))
            return {"queue": "by function"}

        project = start(task_routes=(router,), queues="by function")
        assert project.ring() == ["succeeded"]
        assert asked == [("deferred_signals.deliver", {})]

    def test_the_option_queue_goes_before_the_projects_routes(self, start: Start, link):
        link(bell, first, queue="own")
        project = start(task_routes={"deferred_signals.deliver": {"queue": "elsewhere"}}, queues="own")
        assert project.ring() == ["succeeded"]

    def test_with_queues_of_a_fixed_list_the_listed_ones_work_and_others_are_refused_and_said(
        self, start: Start, link, caplog
    ):
        link(bell, first, queue="listed")
        link(bell, second, queue="unlisted")
        names = ["listed", "usual"]
        queues = [Queue(name, Exchange(name), routing_key=name) for name in names]
        project = start(task_queues=queues, task_create_missing_queues=False, task_default_queue="usual")
        listed, _ = (delivery.id for _, delivery in bell.send(sender=None))
        assert project.ended_of([listed]) == ["succeeded"]
        assert "deliveries to tests.receivers.second (1). The last error: QueueNotFound" in caplog.text


class TestTaskClasses:
    def test_a_projects_own_task_class_is_called_as_for_its_own_tasks(self, start: Start, link, calls):
        did: list[str] = []

        class Noted(Task[..., Any]):
            abstract = True

            def apply_async(self, *args: Any, **kwargs: Any) -> Any:
                did.append("apply_async")
                return super().apply_async(*args, **kwargs)

            def before_start(self, *args: Any) -> None:
                did.append("before_start")

            def __call__(self, *args: Any, **kwargs: Any) -> Any:
                did.append("__call__")
                return super().__call__(*args, **kwargs)

            def on_success(self, *args: Any) -> None:
                did.append("on_success")

            def on_failure(self, *args: Any) -> None:
                did.append("on_failure")

            def after_return(self, *args: Any) -> None:
                did.append("after_return")

        link(bell, troubled, max_retries=0)
        project = start(app=Celery("noted", set_as_current=False, task_cls=Noted))
        assert project.ring() == ["succeeded"]
        eventually(lambda: "after_return" in did)
        assert did == ["apply_async", "before_start", "__call__", "on_success", "after_return"]
        did.clear()
        receivers.troubles.append(ValueError("for good"))
        assert project.ring() == ["dead"]
        eventually(lambda: "after_return" in did)
        assert did == ["apply_async", "before_start", "__call__", "on_failure", "after_return"]

    def test_a_task_class_that_is_set_on_the_app_is_used(self, start: Start, link):
        did: list[str] = []

        class Noted(Task[..., Any]):
            def before_start(self, *args: Any) -> None:
                did.append(self.name)

        app: Any = Celery("noted", set_as_current=False)
        app.Task = Noted
        link(bell, first)
        assert start(app=app).ring() == ["succeeded"]
        assert did == ["deferred_signals.deliver"]

    def test_celerys_task_class_for_django_is_ours_too(self, start: Start, link):
        link(bell, first)
        project = start(app=Celery("django", set_as_current=False, task_cls=DjangoTask))
        assert isinstance(project.app.tasks[deliver.name], DjangoTask)
        assert project.ring() == ["succeeded"]

    def test_a_task_class_with_defaults_of_its_own_does_not_change_how_deliveries_are_kept(
        self, start: Start, link, heard
    ):
        class Careless(Task[..., Any]):
            acks_late = False
            reject_on_worker_lost = False
            max_retries = 0
            autoretry_for = (Exception,)
            retry_kwargs: ClassVar = {"max_retries": 5, "countdown": 0}
            serializer = "pickle"

        link(bell, troubled, max_retries=1, retry_backoff=1, retry_jitter=False)
        project = start(app=Celery("careless", set_as_current=False, task_cls=Careless))
        task = project.app.tasks[deliver.name]
        assert (task.acks_late, task.reject_on_worker_lost, task.serializer) == (True, True, "json")
        receivers.troubles.append(Retry(countdown=0))
        assert project.ring() == ["succeeded"]
        assert len(receivers.calls) == 2
        receivers.troubles.extend(ValueError("always") for _ in range(10))
        receivers.calls.clear()
        assert project.ring() == ["dead"]
        eventually(lambda: [name for name, _ in heard].count("task_postrun") >= 4)
        names = [name for name, _ in heard]
        assert (names.count("task_retry"), names.count("task_failure")) == (2, 1), "only the receiver's options retry"


class TestApps:
    def test_the_app_that_is_current_publishes_where_there_are_several(self, start: Start, link, request):
        link(bell, first)
        other = Celery("other", broker="memory://", set_as_current=False)
        project = start()
        assert other.tasks[deliver.name] is not project.app.tasks[deliver.name]
        assert project.ring() == ["succeeded"]

    def test_another_thread_publishes_through_the_default_app(self, start: Start, link, monkeypatch):
        link(bell, first)
        project = start()
        monkeypatch.setattr(_state, "default_app", project.app)
        Celery("other", broker="memory://", set_as_current=False).set_current()
        states: list[str] = []
        thread = threading.Thread(target=lambda: states.extend(project.ring()))
        thread.start()
        thread.join()
        assert states == ["succeeded"]

    def test_lower_case_settings_and_those_of_django_under_a_namespace_are_read(self, start: Start, link, settings):
        settings.CELERY_TASK_ROUTES = {"deferred_signals.deliver": {"queue": "from django"}}
        app = Celery("namespace", set_as_current=False)
        app.config_from_object("django.conf:settings", namespace="CELERY")
        link(bell, first)
        project = start(app=app, queues="from django")
        assert project.ring() == ["succeeded"]

    def test_a_receiver_that_calls_shared_tasks_and_a_task_that_sends_work_side_by_side(self, start: Start, link):
        link(bell, curious)
        project = start()
        receivers.inquiries.append(lambda **kwargs: remember.delay("from the receiver"))
        announce.delay()
        eventually(lambda: "from the receiver" in remembered)
        assert [outcome.state for _, outcome in project.ended] == ["succeeded"]


remembered: list[str] = []


@shared_task
def remember(word: str) -> None:
    remembered.append(word)


@shared_task
def announce() -> None:
    bell.send(sender=None)


def eventually(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        threading.Event().wait(0.005)


class TestWhatWatches:
    def test_celerys_own_signals_tell_of_our_task(self, start: Start, link, heard):
        link(bell, troubled, max_retries=1, retry_backoff=1, retry_jitter=False)
        project = start()
        receivers.troubles.append(Retry(countdown=0))
        assert project.ring() == ["succeeded"]
        eventually(lambda: [name for name, _ in heard].count("task_postrun") == 2)
        names = [name for name, _ in heard if name != "task_received"]
        once = ["before_task_publish", "task_prerun"]
        assert names == [
            *once,
            "before_task_publish",
            "task_retry",
            "task_postrun",
            "task_prerun",
            "task_success",
            "task_postrun",
        ]
        assert {sender for name, sender in heard if name != "task_received"} == {"deferred_signals.deliver"}

    def test_a_tool_that_patches_apply_async_sees_the_publishing(self, start: Start, link, monkeypatch):
        link(bell, first)
        project = start()
        seen: list[Any] = []
        plain = Task.apply_async

        def patched(self: Any, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
            seen.append(self.name)
            headers = {**(options.pop("headers", None) or {}), "trace": "abc"}
            return plain(self, args, kwargs, headers=headers, **options)

        monkeypatch.setattr(Task, "apply_async", patched)
        assert project.ring() == ["succeeded"]
        assert seen == ["deferred_signals.deliver"]


class TestResults:
    @pytest.mark.parametrize("extended", [False, True])
    def test_a_result_that_was_asked_for_is_kept_without_the_arguments(self, start: Start, link, extended):
        link(bell, first, ignore_result=False)
        project = start(result_backend="cache+memory://", result_extended=extended, task_track_started=True)
        [(_, delivery)] = bell.send(sender=None, secret=SECRET)
        assert project.app.AsyncResult(delivery.id).get(timeout=20) is None
        backend: Any = project.app.backend
        kept = backend.get(backend.get_key_for_task(delivery.id))
        assert "SUCCESS" in str(kept)
        assert SECRET not in str(kept)

    def test_by_default_nothing_is_kept(self, start: Start, link):
        link(bell, first)
        project = start(result_backend="cache+memory://", result_extended=True, task_ignore_result=False)
        [(_, delivery)] = bell.send(sender=None)
        assert project.ended_of([delivery.id]) == ["succeeded"]
        assert project.app.AsyncResult(delivery.id).state == "PENDING"


class TestEager:
    @pytest.fixture(autouse=True)
    def _eager(self, settings: Any) -> Iterator[None]:
        settings.DEFERRED_SIGNALS = {"BACKEND": "celery"}
        before = app_or_default()
        app = Celery("eager", broker="memory://", set_as_current=True)
        app.conf.task_always_eager = True
        yield
        before.set_current()

    def test_arguments_are_encoded_and_decoded_all_the_same(self, link, calls):
        link(bell, first)
        tones = [1, {2}]
        bell.send(sender=None, tones=tones)
        [(_, _, kwargs)] = calls
        assert kwargs["tones"] == tones
        assert kwargs["tones"] is not tones

    @pytest.mark.django_db
    def test_under_a_test_case_they_run_with_the_captured_callbacks(self, link, calls):
        link(post_save, on_instance, User)
        with TestCase.captureOnCommitCallbacks(execute=True):
            user = User.objects.create_user("ada")
            User.objects.update(first_name="Ada")
            assert calls == []
        [(_, _, kwargs)] = calls
        assert kwargs["instance"] is not user
        assert kwargs["instance"].first_name == "Ada"

    @pytest.mark.django_db(transaction=True)
    def test_they_run_at_the_commit_and_not_before(self, link, calls):
        link(post_save, on_instance, User)
        with transaction.atomic():
            User.objects.create_user("ada")
            assert calls == []
        assert len(calls) == 1

    def test_retries_run_at_once(self, link, calls):
        link(bell, troubled, max_retries=2, retry_backoff=60)
        receivers.troubles.extend([ValueError("once"), ValueError("twice")])
        bell.send(sender=None)
        assert [kwargs["attempt"] for _, _, kwargs in calls] == [1, 2, 3]

    def test_with_eager_propagates_the_error_is_raised_to_the_sender(self, link):
        app_or_default().conf.task_eager_propagates = True
        link(bell, troubled, max_retries=0)
        receivers.troubles.append(LookupError("at once"))
        with pytest.raises(LookupError, match="at once"):
            bell.send(sender=None)
