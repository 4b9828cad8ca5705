"""The backends: what all of them do, and what Celery's does when the broker does not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.app import app_or_default
from celery.contrib.testing.worker import start_worker
from celery.exceptions import Reject, SoftTimeLimitExceeded
from celery.exceptions import Retry as CelerysRetry
from celery.signals import before_task_publish, setup_logging, task_failure
from django.apps import apps
from django.db import connections, transaction
from kombu import Queue

from deferred_signals import Delivery, Retry, Signal, backends, current_delivery, successors
from deferred_signals.backends.celery import CeleryBackend
from deferred_signals.backends.flush import Flush
from deferred_signals.backends.immediate import ImmediateBackend
from deferred_signals.backends.lanes import Lane
from deferred_signals.backends.memory import MemoryBackend
from deferred_signals.envelope import unseal
from deferred_signals.exceptions import ConfigurationError, OpenError, PublishError
from deferred_signals.outcome import Outcome
from deferred_signals.signals import delivery_finished, delivery_published, delivery_unpublished
from deferred_signals.tasks import UNCONFIGURED_PAUSE, deliver
from tests import receivers
from tests.receivers import asynchronous, curious, discards, first, second, troubled
from tests.servers import Redis

bell: Any = Signal()  # Django's stubs say that every response is a string

evil_calls: list[tuple[Any, ...]] = []


def evil(*args: Any) -> None:
    evil_calls.append(args)


def ring(**kwargs: Any) -> Delivery:
    delivery = bell.send(sender=None, **kwargs)[0][1]
    assert isinstance(delivery, Delivery)
    return delivery


def eventually(condition: Callable[[], Any], timeout: float = 20) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        threading.Event().wait(0.01)


def use(settings: Any, name: str, **more: Any) -> backends.Backend:
    settings.DEFERRED_SIGNALS = {"BACKEND": name, **more}
    return backends.current()


def project_app(queue: str) -> Celery:
    """A project's Celery app whose broker is kombu's own, inside this process."""
    app = Celery("project", broker="memory://", set_as_current=False)
    app.conf.update(broker_transport_options={"polling_interval": 0.01}, task_default_queue=queue)
    app.task(name="evil", shared=False)(evil)
    return app


@pytest.fixture
def celery_app(request: pytest.FixtureRequest) -> Iterator[Celery]:
    """The current app of this process, without a worker."""
    before = app_or_default()
    app = project_app(request.node.name)
    app.set_current()
    yield app
    before.set_current()


@pytest.fixture(scope="module")
def working_app() -> Iterator[Celery]:
    """An app with Celery's worker in a thread of this process; it leaves the logging alone, which caplog listens to."""

    def leave_alone(**kwargs: Any) -> None: ...

    setup_logging.connect(leave_alone)
    app = project_app("worked")
    with pytest.MonkeyPatch.context() as patch:
        # Celery's worker would run Django's system checks, some of which ask the database.
        patch.setenv("CELERY_SKIP_CHECKS", "1")
        with start_worker(app, pool="solo", perform_ping_check=False):
            yield app
    setup_logging.disconnect(leave_alone)


@pytest.fixture
def worker(working_app: Celery) -> Iterator[Celery]:
    """The current app of this process, with a worker."""
    before = app_or_default()
    working_app.set_current()
    evil_calls.clear()
    yield working_app
    before.set_current()


@pytest.fixture(params=["memory", "immediate", "celery"])
def any_backend(request: pytest.FixtureRequest, settings: Any) -> Iterator[Callable[[], None]]:
    """Each backend in turn; call it to have delivered what waits."""
    if request.param == "celery":
        request.getfixturevalue("worker")
    backend = use(settings, request.param)
    ended: list[str] = []

    def on_finish(delivery: Any, outcome: Outcome, **kwargs: Any) -> None:
        if outcome.state != "retry":
            ended.append(delivery.id)

    sent: list[str] = []

    def on_publish(delivery: Delivery, **kwargs: Any) -> None:
        sent.append(delivery.id)

    delivery_finished.connect(on_finish, weak=False)
    delivery_published.connect(on_publish, weak=False)

    def drain() -> None:
        if isinstance(backend, MemoryBackend):
            while backend.payloads:
                backend.deliver()
        # The worker may still be at work for another test.
        eventually(lambda: set(sent) <= set(ended))

    yield drain
    delivery_finished.disconnect(on_finish)
    delivery_published.disconnect(on_publish)


class TestConformance:
    def test_a_delivery_runs_with_its_arguments_and_its_id(self, any_backend, link, calls):
        link(bell, curious)
        ids = []
        receivers.inquiries.append(lambda **kwargs: ids.append(current_delivery().id))  # type: ignore[union-attr]
        delivery = ring(tones={1, 2})
        any_backend()
        assert calls == [("curious", None, {"signal": bell, "tones": {1, 2}})]
        assert ids == [delivery.id]

    def test_arguments_are_copies_that_have_travelled(self, any_backend, link, calls):
        link(bell, first)
        tones = [1, 2]
        ring(tones=tones)
        any_backend()
        assert calls[0][2]["tones"] == tones
        assert calls[0][2]["tones"] is not tones

    def test_deliveries_run_in_the_order_of_their_sends(self, any_backend, link, calls):
        link(bell, first)
        link(bell, second)
        ring(number=1)
        ring(number=2)
        any_backend()
        assert [(name, kwargs["number"]) for name, _, kwargs in calls] == [
            ("first", 1), ("second", 1), ("first", 2), ("second", 2)
        ]  # fmt: skip

    def test_an_async_receiver_is_awaited(self, any_backend, link, calls):
        link(bell, asynchronous)
        ring()
        any_backend()
        assert [name for name, _, _ in calls] == ["asynchronous"]

    def test_what_fails_once_is_run_again(self, any_backend, link, calls):
        link(bell, troubled, retry_backoff=1, retry_jitter=False)
        receivers.troubles.append(Retry(countdown=0))
        ring()
        any_backend()
        assert [kwargs["attempt"] for _, _, kwargs in calls] == [1, 2]

    def test_what_fails_for_good_and_what_is_discarded_do_not_stop_the_others(self, any_backend, link, calls):
        link(bell, troubled, max_retries=0)
        link(bell, discards)
        link(bell, first)
        receivers.troubles.append(ValueError("for good"))
        ring()
        any_backend()
        assert [name for name, _, _ in calls] == ["troubled", "first"]


class TestImmediate:
    def test_what_would_have_to_wait_is_given_up_and_logged(self, settings, link, monkeypatch, caplog):
        assert isinstance(use(settings, "immediate"), ImmediateBackend)
        link(bell, first)
        monkeypatch.setattr("deferred_signals.registry._by_name", {})
        ring()
        assert "is given up" in caplog.text


class TestImmediateInACoroutine:
    async def test_an_async_receiver_runs_where_a_loop_is_running(self, settings, link, calls):
        use(settings, "immediate")
        link(bell, asynchronous)
        ring()
        assert [name for name, _, _ in calls] == ["asynchronous"]


class TestWhichBackend:
    @pytest.mark.parametrize(
        ("name", "complaint"), [("nowhere.Backend", "cannot be imported"), ("celery.Celery", "not a subclass")]
    )
    def test_a_wrong_name_is_an_error_that_says_so(self, name, complaint, settings):
        with pytest.raises(ConfigurationError, match=complaint):
            use(settings, name)

    def test_a_dotted_path_is_taken(self, settings):
        assert type(use(settings, "deferred_signals.backends.memory.MemoryBackend")) is MemoryBackend


class TestAProcessThatCannotPublish:
    @pytest.mark.parametrize(
        ("more", "complaint", "remedy"),
        [
            ("", "This process has no Celery app", "import it in your project's __init__.py"),
            (
                "from celery import Celery; app = Celery('project', broker='memory://')",
                "not in INSTALLED_APPS",
                "Add it.",
            ),
        ],
        ids=["no Celery app", "not installed"],
    )
    def test_the_send_says_what_to_do_and_inline_receivers_go_on(self, more, complaint, remedy):
        code = (
            "from django.conf import settings\n"
            "settings.configure(SECRET_KEY='x', USE_TZ=True)\n"
            "import django; django.setup()\n"
            f"{more}\n"
            "from deferred_signals import Signal\n"
            "from tests.receivers import first, second\n"
            "signal = Signal(name='bell')\n"
            "signal.connect(first)\n"
            "print(len(signal.send(sender=None)))\n"
            "signal.connect(second, deferred=True)\n"
            "try: signal.send(sender=None)\n"
            "except Exception as error: print(type(error).__name__, error)\n"
        )
        environment = {name: value for name, value in os.environ.items() if "CELERY" not in name}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
        )
        assert done.stdout.startswith("1\nConfigurationError "), done.stderr
        assert complaint in done.stdout
        assert remedy in done.stdout


@pytest.fixture
def backend(celery_app: Celery, settings: Any) -> Iterator[CeleryBackend]:
    made = use(settings, "celery", PUBLISH_TIMEOUT=0.3)
    assert isinstance(made, CeleryBackend)
    made._ready = False
    made._brokers.clear()
    yield made
    for broker in made._brokers.values():
        broker.breaker.close()


def messages(app: Celery) -> list[Any]:
    """What stands in the app's default queue, taken out."""
    with app.connection_for_read() as connection:
        queue = Queue(app.conf.task_default_queue, channel=connection.default_channel)
        return list(iter(lambda: queue.get(no_ack=True), None))


def publishing_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "deferred_signals-publish"}


def is_away(backend: CeleryBackend) -> bool:
    return any(broker.breaker.is_open for broker in backend._brokers.values())


def free_lanes(backend: CeleryBackend) -> list[Lane]:
    return [lane for broker in backend._brokers.values() for lane in broker.free]


class TestTheMessage:
    def test_it_is_one_signed_string_under_the_receivers_name(self, backend, celery_app, link):
        link(bell, first)
        delivery = ring(secret="hunter2")
        (message,) = messages(celery_app)
        (payload,), kwargs, embedded = message.payload
        assert unseal(payload).kwargs == {"secret": "hunter2"}
        assert kwargs == {}
        assert not any(embedded.values())
        headers = message.headers
        assert (headers["task"], headers["shadow"]) == ("deferred_signals.deliver", "tests.receivers.first")
        assert headers["id"] == message.properties["correlation_id"] == delivery.id
        assert headers["ignore_result"] is True
        assert "hunter2" not in str(headers)

    def test_the_options_of_the_message_are_celerys(self, backend, celery_app, link):
        celery_app.conf.task_queues = [Queue(celery_app.conf.task_default_queue), Queue("bulk")]
        link(bell, first, queue=celery_app.conf.task_default_queue, priority=3, countdown=60, expires=600, time_limit=9)
        link(bell, second, soft_time_limit=5, headers={"tenant": "acme"}, ignore_result=False)
        ring()
        one, two = messages(celery_app)
        assert one.properties["priority"] == 3
        assert one.headers["timelimit"] == [9, None]
        assert one.headers["eta"]
        assert one.headers["expires"] is None  # we judge it
        assert two.headers["timelimit"] == [None, 5]
        assert two.headers["tenant"] == "acme"
        assert two.headers["ignore_result"] is False

    def test_publishing_inside_a_task_keeps_its_ancestry(self, backend, celery_app, link):
        link(bell, first)

        def parent() -> None: ...

        task = celery_app.task(parent, shared=False)
        task.push_request(id="parent-id", root_id=None)
        stack: Any = import_module("celery._state")._task_stack  # what a running worker fills

        stack.push(task)
        try:
            ring()
        finally:
            stack.pop()
            task.pop_request()
        (message,) = messages(celery_app)
        assert (message.headers["root_id"], message.headers["parent_id"]) == ("parent-id", "parent-id")


@pytest.mark.django_db(transaction=True)
class TestTheLanes:
    def test_a_lane_is_used_again_and_left_when_the_broker_is_another(self, backend, celery_app, link):
        link(bell, first)
        ring()
        (lane,) = free_lanes(backend)
        ring()
        assert free_lanes(backend) == [lane]
        celery_app.conf.broker_write_url = "memory://other"
        ring()
        assert free_lanes(backend) != [lane]
        eventually(lambda: not lane.thread.is_alive())

    def test_a_lane_whose_broker_is_another_by_now_is_not_used_again(self, backend, celery_app, link):
        link(bell, first)

        @before_task_publish.connect
        def changes(**kwargs: Any) -> None:
            backend._brokers.clear()

        try:
            ring()
        finally:
            before_task_publish.disconnect(changes)
        assert not free_lanes(backend)

    def test_two_apps_do_not_mix_their_brokers(self, backend, celery_app, link):
        link(bell, first)
        other = project_app("another queue")
        other.conf.update(task_default_queue="another queue")
        counts = {}
        for app in (celery_app, other, celery_app):
            app.set_current()
            ring()
        for app in (celery_app, other):
            counts[app.conf.task_default_queue] = len(messages(app))
        celery_app.set_current()
        assert sorted(counts.values()) == [1, 2]

    def test_a_time_limit_of_the_task_that_sends_is_the_tasks(self, backend, celery_app, link, monkeypatch):
        link(bell, first)

        def interrupted(self: Flush, patience: float) -> bool:
            raise SoftTimeLimitExceeded

        monkeypatch.setattr(Flush, "wait", interrupted)
        threads = set(threading.enumerate())
        with pytest.raises(SoftTimeLimitExceeded):
            ring()
        eventually(lambda: not set(threading.enumerate()) - threads)
        assert len(messages(celery_app)) == 1

    def test_the_lanes_of_a_parent_process_are_kept_but_not_used(self, backend, link, monkeypatch):
        link(bell, first)
        ring()
        (lane,) = free_lanes(backend)
        monkeypatch.setattr(os, "getpid", lambda: -1)
        ring()
        assert lane not in [free for (pid, *_), broker in backend._brokers.items() if pid == -1 for free in broker.free]
        assert lane in backend._all
        assert lane.thread.is_alive()

    def test_a_publishing_that_goes_on_is_waited_for_however_long_it_takes(self, backend, celery_app, link):
        for receiver in (first, second, troubled, curious, asynchronous, discards):
            link(bell, receiver)

        @before_task_publish.connect
        def slow(**kwargs: Any) -> None:
            threading.Event().wait(0.15)

        started = time.monotonic()
        try:
            with transaction.atomic():
                deliveries = [response for _, response in bell.send(sender=None)]
        finally:
            before_task_publish.disconnect(slow)
        assert time.monotonic() - started > 0.6
        assert [message.headers["id"] for message in messages(celery_app)] == [one.id for one in deliveries]

    def test_a_lane_that_was_left_publishes_no_more(self, backend, celery_app, link, caplog):
        link(bell, first)
        link(bell, second)
        threads = publishing_threads()
        let_go = threading.Event()

        @before_task_publish.connect
        def hangs(**kwargs: Any) -> None:
            let_go.wait(20)

        try:
            with transaction.atomic():
                bell.send(sender=None)
            assert "tests.receivers.first (1), tests.receivers.second (1)" in caplog.text
            (left,) = publishing_threads() - threads
            let_go.set()
            eventually(lambda: not left.is_alive())
        finally:
            before_task_publish.disconnect(hangs)
        assert [message.headers["shadow"] for message in messages(celery_app)] == ["tests.receivers.first"]

    def test_a_database_connection_that_a_receiver_of_celerys_signals_opened_is_closed(self, backend, link):
        link(bell, first)
        opened = []

        @before_task_publish.connect
        def looks(**kwargs: Any) -> None:
            opened.append(connections["default"])

        try:
            ring()
        finally:
            before_task_publish.disconnect(looks)
        assert opened[0].connection is None

    def test_a_delivery_whose_publishing_fails_by_itself_stops_no_other(self, backend, celery_app, link):
        link(bell, first, queue="no such queue")
        link(bell, second)
        celery_app.conf.task_create_missing_queues = False
        lost: list[tuple[str, str]] = []

        def observer(delivery: Delivery, error: Exception, **kwargs: Any) -> None:
            lost.append((delivery.receiver, type(error).__name__))

        delivery_unpublished.connect(observer)
        ring()
        assert lost == [("tests.receivers.first", "QueueNotFound")]
        assert [message.headers["shadow"] for message in messages(celery_app)] == ["tests.receivers.second"]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """A private Redis, or Valkey from its wheel, which every machine has that runs these tests."""
    server = Redis(tmp_path)
    server.wait_ready()
    yield server
    server.remove()


@pytest.mark.django_db(transaction=True)
class TestOnRedis:
    @pytest.fixture(autouse=True)
    def _use_redis(self, redis: Redis, celery_app: Celery) -> None:
        celery_app.conf.update(broker_url=f"redis://127.0.0.1:{redis.port}/0")

    def test_one_client_serves_all_messages_of_a_connection(self, backend, celery_app, link):
        link(bell, first)
        for _ in range(3):
            ring()
        (lane,) = free_lanes(backend)
        channel: Any = lane.messenger.producer.channel
        with channel.conn_or_acquire() as one, channel.conn_or_acquire() as two:
            assert one is two
            with channel.conn_or_acquire(client := object()) as given:
                assert given is client
        assert len(messages(celery_app)) == 3

    def test_a_connection_that_has_died_since_is_made_anew(self, backend, celery_app, link, redis):
        link(bell, first)
        ring()
        redis.restart()
        redis.wait_ready()
        delivery = ring()
        assert [message.headers["id"] for message in messages(celery_app)] == [delivery.id]

    def test_a_broker_that_was_away_is_used_again_when_it_is_back(self, backend, celery_app, link, redis, caplog):
        link(bell, first)
        ring()
        redis.kill()
        lost = ring()
        assert "Could not be published" in caplog.text
        redis.restart()
        redis.wait_ready()
        eventually(lambda: not is_away(backend))
        delivery = ring()
        # On a slow machine the lane was left before it gave up; then the one called lost may have arrived as well.
        assert {message.headers["id"] for message in messages(celery_app)} - {lost.id} == {delivery.id}

    def test_routes_that_functions_of_the_project_choose_are_asked_for_every_message(self, backend, celery_app, link):
        asked: list[str] = []

        def route(name: str, *args: Any, **kwargs: Any) -> None:
            asked.append(name)

        celery_app.conf.task_routes = [route]
        link(bell, first)
        ring()
        ring()
        assert asked == ["deferred_signals.deliver"] * 2
        assert not free_lanes(backend)[0].messenger._declared


class TestCelerysSettings:
    def test_an_app_that_is_not_installed_is_an_error_at_the_send(self, backend, link, monkeypatch):
        link(bell, first)
        monkeypatch.setattr(apps, "is_installed", lambda name: False)
        with pytest.raises(ConfigurationError, match="INSTALLED_APPS"):
            ring()

    def test_a_change_of_them_is_noticed(self, backend, celery_app, settings):
        assert not backend.inline
        celery_app.conf.task_always_eager = True
        assert backend.inline

    def test_a_change_of_djangos_is_noticed(self, backend, celery_app, settings):
        celery_app.config_from_object("django.conf:settings", namespace="CELERY")
        assert not backend.inline
        settings.CELERY_TASK_ALWAYS_EAGER = True
        assert backend.inline


@pytest.fixture
def silent_broker() -> Iterator[socket.socket]:
    """A port that takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening


@pytest.mark.django_db(transaction=True)
class TestABrokerThatIsAway:
    def test_a_silent_broker_is_left_after_the_allowed_time(self, backend, celery_app, link, silent_broker):
        celery_app.conf.broker_write_url = f"redis://127.0.0.1:{silent_broker.getsockname()[1]}/0"
        link(bell, first, on_commit=False)
        threads = publishing_threads()
        started = time.monotonic()
        with pytest.raises(PublishError) as caught:
            bell.send(sender=None)
        assert "did not answer for 0.3 s" in str(caught.value.__cause__)
        assert time.monotonic() - started < 5
        assert not free_lanes(backend)
        (left,) = publishing_threads() - threads
        silent_broker.accept()[0].close()
        silent_broker.close()
        eventually(lambda: not left.is_alive())

    def test_a_refused_connection_fails_all_at_once(self, backend, celery_app, link, caplog):
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            celery_app.conf.broker_write_url = f"redis://127.0.0.1:{closed.getsockname()[1]}/0"
            for receiver in (first, second, curious):
                link(bell, receiver)
            started = time.monotonic()
            with transaction.atomic():
                bell.send(sender=None)
        assert time.monotonic() - started < 5
        (line,) = (record.getMessage() for record in caplog.records if "Could not be published" in record.getMessage())
        assert all(f"tests.receivers.{name} (1)" in line for name in ("first", "second", "curious"))
        assert not backend.inline


class TestEager:
    @pytest.fixture(autouse=True)
    def _eager(self, celery_app: Celery) -> None:
        celery_app.conf.task_always_eager = True

    def test_deliveries_run_here_through_the_real_wire_form(self, backend, link, calls):
        link(bell, first)
        tones = [1]
        ring(tones=tones)
        assert calls[0][2]["tones"] == tones
        assert calls[0][2]["tones"] is not tones
        assert backend.inline

    def test_a_retry_runs_here_too(self, backend, link, calls):
        link(bell, troubled)
        receivers.troubles.append(ValueError("once"))
        ring()
        assert [kwargs["attempt"] for _, _, kwargs in calls] == [1, 2]

    def test_errors_propagate_where_the_project_asks_for_it(self, backend, celery_app, link, calls):
        celery_app.conf.task_eager_propagates = True
        link(bell, troubled, max_retries=0)
        link(bell, first)
        receivers.troubles.append(ValueError("for good"))
        with pytest.raises(ValueError, match="for good"):
            ring()


class TestTheTask:
    def test_it_is_late_to_acknowledge_and_survives_a_lost_worker(self):
        assert (deliver.acks_late, deliver.reject_on_worker_lost, deliver.max_retries) == (True, True, None)

    def test_a_forged_message_fails_without_a_call(self, worker, calls):
        failures: list[BaseException] = []

        def observer(exception: BaseException, **kwargs: Any) -> None:
            failures.append(exception)

        task_failure.connect(observer)
        for payload in ("os.system:forged", "", ":", "{}"):
            deliver.apply_async((payload,))
        eventually(lambda: len(failures) == 4)
        assert {type(failure) for failure in failures} == {OpenError}
        assert calls == []

    def test_what_a_message_asks_to_be_called_next_is_not_called(self, worker, memory, link, calls):
        link(bell, first)
        ring()
        linked = worker.tasks["evil"]
        more: dict[str, Any] = {"link": linked.s(), "chain": [linked.s()]}
        deliver.apply_async((memory.payloads.pop()[1],), **more)
        eventually(lambda: calls)
        linked.delay()
        eventually(lambda: evil_calls)  # what was sent after it has run: what it had asked for would have, too
        assert evil_calls == [()]

    @pytest.mark.parametrize("limit", [None, SoftTimeLimitExceeded()])
    def test_a_retry_that_cannot_be_published_puts_the_original_back_after_a_pause(
        self, limit, celery_app, link, settings, memory, monkeypatch
    ):
        pauses = []

        def sleep(seconds: float) -> None:
            pauses.append(seconds)
            if limit is not None:
                raise limit

        link(bell, troubled)
        receivers.troubles.append(ValueError())
        ring()
        (_, payload) = memory.payloads.pop()
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            celery_app.conf.update(
                broker_write_url=f"redis://127.0.0.1:{closed.getsockname()[1]}/0",
                task_publish_retry_policy={"max_retries": 0},
            )
            deliver.push_request(
                id="x", args=(payload,), kwargs={}, called_directly=False, retries=0, delivery_info={"routing_key": "q"}
            )
            monkeypatch.setattr(successors, "time", SimpleNamespace(sleep=sleep))
            try:
                with pytest.raises(Reject) as caught:
                    deliver.run(payload)
            finally:
                deliver.pop_request()
        assert vars(caught.value)["requeue"] is True
        assert pauses == [0] if limit else [0, 1, 2, 4, 8]

    def test_a_retry_is_confirmed_by_rabbitmq_before_the_original_is_acknowledged(self):
        def producer(eager: bool = False, **options: Any) -> Any:
            app = Celery("project", broker="amqp://127.0.0.1:1", set_as_current=False)
            app.conf.broker_transport_options = options
            task: Any = SimpleNamespace(app=app, request=SimpleNamespace(is_eager=eager))
            with successors.confirmed(task) as how:
                return how.get("producer")

        assert producer(read_timeout=5).connection.transport_options == {"read_timeout": 5, "confirm_publish": True}
        # Celery's own confirms then, or does not, as the project wants.
        assert producer(confirm_publish=True) is None
        assert producer(confirm_publish=False) is None
        assert producer(eager=True) is None

    @pytest.mark.parametrize(("asked", "given"), [(0, 0), (0.3, 0), (0.7, 1), (1, 1), (1.5, 1.5)])
    def test_a_pause_of_less_than_a_second_is_none_or_one(self, asked, given):
        """Celery's delayed delivery, with quorum queues, takes no others."""

        def retry(**how: Any) -> CelerysRetry:
            return CelerysRetry(when=how["countdown"])

        task: Any = SimpleNamespace(app=app_or_default(), request=SimpleNamespace(is_eager=True), retry=retry)
        with pytest.raises(CelerysRetry) as caught:
            successors.again(task, "payload", asked, None)
        assert vars(caught.value)["when"] == given

    def test_a_soft_time_limit_while_a_retry_is_published_loses_nothing(self):
        def retry(**how: Any) -> CelerysRetry:
            raise SoftTimeLimitExceeded

        task: Any = SimpleNamespace(app=app_or_default(), request=SimpleNamespace(is_eager=True), retry=retry)
        with pytest.raises(Reject) as caught:
            successors.again(task, "payload", 1, None)
        assert vars(caught.value)["requeue"] is True

    def test_a_retry_that_the_broker_takes_a_little_later_is_one(self, monkeypatch):
        refusals = [Reject("out of memory", requeue=False), Reject("out of memory", requeue=False)]
        pauses: list[float] = []

        def retry(**how: Any) -> CelerysRetry:
            if refusals:
                raise refusals.pop()
            return CelerysRetry(when=how["countdown"])

        monkeypatch.setattr(successors, "time", SimpleNamespace(sleep=pauses.append))
        task: Any = SimpleNamespace(app=app_or_default(), request=SimpleNamespace(is_eager=True), retry=retry)
        with pytest.raises(CelerysRetry):
            successors.again(task, "payload", 1, None)
        assert pauses == [0, 1, 2]

    def test_a_worker_whose_settings_are_wrong_loses_nothing(self, celery_app, link, settings, memory, caplog, calls):
        link(bell, first)
        ring()
        (_, payload) = memory.payloads.pop()
        settings.DEFERRED_SIGNALS = {"MAX_AGE": "never"}
        name = celery_app.conf.task_default_queue
        deliver.push_request(
            id="x", args=(payload,), kwargs={}, called_directly=False, retries=0, delivery_info={"routing_key": name}
        )
        try:
            with pytest.raises(CelerysRetry) as caught:
                deliver.run(payload)
        finally:
            deliver.pop_request()
        assert vars(caught.value)["when"] == UNCONFIGURED_PAUSE
        assert not calls
        assert "DEFERRED_SIGNALS['MAX_AGE'] must be" in caplog.text
        with celery_app.connection_for_write() as connection, connection.SimpleQueue(name) as queue:
            message = queue.get(timeout=10)
            message.ack()
        assert message.payload[0] == [payload]

    def test_an_eager_process_whose_settings_are_wrong_says_so(self, celery_app, link, settings, memory):
        link(bell, first)
        ring()
        (_, payload) = memory.payloads.pop()
        settings.DEFERRED_SIGNALS = {"MAX_AGE": "never"}
        with pytest.raises(ConfigurationError, match="MAX_AGE"):
            deliver.apply((payload,), throw=True)
