"""What came back from a worker that was lost, and what a receiver may raise without ending the worker."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import Terminated
from celery import Celery, signals
from celery.app import app_or_default
from celery.contrib.testing.worker import start_worker
from celery.exceptions import (
    Ignore,
    Reject,
    SoftTimeLimitExceeded,
    TimeLimitExceeded,
    WorkerLostError,
    WorkerShutdown,
    WorkerTerminate,
)
from celery.exceptions import Retry as CelerysRetry
from celery.utils.imports import symbol_by_name
from celery.worker import request as celery_request
from celery.worker import state
from django.db import transaction
from kombu.transport.memory import Transport

from deferred_signals import Discard, Retry, Signal, calling, worker_request
from deferred_signals.attempt import run
from deferred_signals.backends.memory import MemoryBackend
from deferred_signals.calling import call
from deferred_signals.envelope import Envelope, seal
from deferred_signals.exceptions import NewerWire, OpenError, ReceiverInterrupted, WorkerLost
from deferred_signals.outcome import LONGEST_COUNTDOWN, LONGEST_WAIT, Outcome, crashed
from deferred_signals.signals import delivery_finished
from deferred_signals.tasks import deliver
from deferred_signals.worker_request import DeliveryRequest
from tests import receivers
from tests.receivers import troubled
from tests.shop.models import Customer

# Any: Django's stubs say that every response is a string.
rang: Any = Signal()


def changed(payload: str, **changes: Any) -> str:
    """The same payload with other values, signed again."""
    return seal(json.dumps({**read(payload), **changes}))


def read(text: str) -> dict[str, Any]:
    """The envelope in a payload, or in the text of an outcome."""
    data: dict[str, Any] = json.JSONDecoder().raw_decode(text)[0]
    return data


@pytest.fixture
def payload(link, memory: MemoryBackend) -> str:
    """Of a delivery to ``troubled``."""
    link(rang, troubled)
    rang.send(sender=None)
    return memory.payloads.pop()[1]


class TestWhatCameBack:
    def test_it_is_not_run_but_leaves_as_a_copy_with_the_count_after_a_short_pause(self, payload, calls):
        delivery, outcome = run(payload, redelivered=True)
        assert calls == []
        assert (outcome.state, type(outcome.error)) == ("retry", WorkerLost)
        assert read(outcome.text) == {**read(payload), "crashes": 1}
        assert 0 <= outcome.countdown <= 1
        assert delivery
        assert (delivery.attempt, delivery.crashes) == (1, 1)

    def test_the_copy_is_run_as_the_same_attempt_and_knows_the_count(self, payload, told, calls):
        _, outcome = run(payload, redelivered=True)
        delivery, outcome = run(seal(outcome.text))
        assert outcome.state == "succeeded"
        assert [kwargs["attempt"] for _, _, kwargs in calls] == [1]
        assert delivery
        assert delivery.crashes == 1

    def test_at_the_limit_it_is_dead_with_an_explanation(self, payload, settings, told, calls, caplog):
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "CRASH_LIMIT": 3}
        states = []
        for _ in range(3):
            _, outcome = run(payload, redelivered=True)
            states.append(outcome.state)
            payload = seal(outcome.text)
        assert states == ["retry", "retry", "dead"]
        assert calls == []
        assert isinstance(outcome.error, WorkerLost)
        assert "CRASH_LIMIT is 3" in str(outcome.error)
        [line] = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert "is dead: it came back 3 times in a row from workers that did not finish it" in line.getMessage()

    def test_observers_are_told_of_its_end_and_not_of_a_beginning(self, payload, told):
        run(payload, redelivered=True)
        [(what, delivery, outcome)] = told
        assert (what, delivery.crashes, outcome.state) == ("finished", 1, "retry")

    def test_by_default_nine_lost_workers_are_survived(self, payload):
        states = []
        for crashes in range(10):
            _, outcome = run(changed(payload, crashes=crashes), redelivered=True)
            states.append(outcome.state)
        assert states == ["retry"] * 9 + ["dead"]

    def test_what_the_receiver_raises_starts_the_count_anew(self, payload):
        receivers.troubles.append(ValueError())
        _, outcome = run(changed(payload, crashes=9))
        assert outcome.state == "retry"
        assert read(outcome.text) == {**read(payload), "attempt": 2}

    def test_what_waits_for_another_release_keeps_the_count(self, payload):
        _, outcome = run(changed(payload, crashes=4, to="of.the.next.release"))
        assert read(outcome.text)["crashes"] == 4

    def test_what_has_waited_and_came_to_a_worker_that_did_not_finish_it_would_wait_anew(self, payload):
        """Redis gives it back after an hour. The next outage of a second must not be the end of a window."""
        _, outcome = run(changed(payload, waiting=1790000000.5), redelivered=True)
        assert "waiting" not in read(outcome.text)

    def test_a_forged_payload_is_dead_whatever_the_broker_says(self, payload):
        delivery, outcome = run(payload[:-1], redelivered=True)
        assert delivery is None
        assert (outcome.state, type(outcome.error)) == ("dead", OpenError)

    def test_a_newer_wire_version_waits_as_it_is(self, payload):
        newer = changed(payload, v=99, crashes=1)
        _, outcome = run(newer, redelivered=True)
        assert (outcome.state, type(outcome.error)) == ("retry", NewerWire)
        assert {**read(outcome.text), "waiting": None} == {**read(newer), "waiting": None}

    @pytest.mark.parametrize("crashes", [1, 2, 5, 7, 100, 10_000])
    def test_its_pauses_grow_up_to_a_minute(self, crashes, settings):
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "CRASH_LIMIT": 20_000}
        envelope = Envelope("id", 0, "to", None, None, {}, {}, crashes=crashes)
        pauses = [crashed(envelope).countdown for _ in range(300)]
        longest = min(LONGEST_WAIT, 2.0 ** min(crashes - 1, 6))
        assert 0 <= min(pauses) <= max(pauses) <= longest
        assert max(pauses) > longest * 0.9  # 0.9 ** 300 is 2e-14

    def test_those_that_came_back_together_do_not_leave_in_the_same_order_again(self, payload):
        pauses = [run(changed(payload, crashes=5), redelivered=True)[1].countdown for _ in range(20)]
        assert len(set(pauses)) == 20
        assert pauses != sorted(pauses)

    def test_no_values_are_in_what_is_said(self, payload, caplog):
        run(changed(payload, kwargs={"password": "hunter2"}), redelivered=True)
        assert "hunter2" not in caplog.text


class TestWhatHasExpired:
    def test_it_is_discarded_with_a_line_and_observers_are_told(self, payload, told, calls, caplog):
        caplog.set_level(logging.INFO, "deferred_signals")
        delivery, outcome = run(changed(payload, expires=1790000000))
        assert (outcome.state, outcome.reason, calls) == ("discarded", "expired", [])
        assert told == [("finished", delivery, outcome)]
        assert "is discarded: expired" in caplog.text

    def test_that_goes_before_a_crash(self, payload):
        assert run(changed(payload, expires=1790000000), redelivered=True)[1].state == "discarded"

    def test_it_expires_so_many_seconds_after_the_send(self, link, memory):
        link(rang, troubled, expires=timedelta(hours=1))
        [(_, delivery)] = rang.send(sender=None)
        envelope = read(delivery.text)
        assert envelope["expires"] == pytest.approx(envelope["at"] + 3600)
        assert memory.deliver()[0][1].state == "succeeded"

    def test_what_expires_as_late_as_can_be_is_run(self, link, outcome_of):
        link(rang, troubled, expires=LONGEST_COUNTDOWN)
        rang.send(sender=None)
        assert outcome_of().state == "succeeded"

    def test_a_retry_and_what_came_back_expire_when_the_first_would_have(self, payload):
        expires = int(time.time()) + 1000
        receivers.troubles.append(ValueError())
        for redelivered in (False, True):
            _, outcome = run(changed(payload, expires=expires), redelivered=redelivered)
            assert (outcome.state, read(outcome.text)["expires"]) == ("retry", expires)

    @pytest.mark.django_db(transaction=True)
    def test_several_sends_as_one_expire_with_the_last(self, link, memory, monkeypatch):
        link(rang, receivers.on_instance, coalesce=True, expires=60)
        moments = iter([(1900000000.0, "1900000000.0"), (1900000005.0, "1900000005.0")])
        monkeypatch.setattr("deferred_signals.deferred_receiver.moment", moments.__next__)
        with transaction.atomic():
            customer = Customer.objects.create(name="Ada")
            rang.send(sender=None, instance=customer)
            rang.send(sender=None, instance=customer)
        [(delivery, _)] = memory.payloads
        assert read(delivery.text)["expires"] == 1900000065

    def test_celery_and_the_broker_know_nothing_of_it(self, link):
        """RabbitMQ would drop it in the queue, and Celery before its run: no line of ours, no observer."""
        link(rang, troubled, expires=60)
        [(_, delivery)] = rang.send(sender=None)
        assert "expires" not in delivery.options.message


class Cyclic(Exception):
    def __init__(self) -> None:
        super().__init__()
        self.__cause__ = ValueError("the other")
        self.__cause__.__cause__ = self


class Unsayable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Unpicklable(Exception):
    def __init__(self, one: Any, other: Any) -> None:
        super().__init__(one)
        self.lock = threading.Lock()

    def __reduce__(self) -> Any:
        raise TypeError("not to be pickled")


class UnsayableDiscard(Discard):
    __str__ = Unsayable.__str__


#: By name: what a receiver may raise that is not as other exceptions are.
ODD: dict[str, Callable[[], BaseException]] = {
    "SystemExit": SystemExit,
    "sys.exit with a text": lambda: SystemExit("the configuration is wrong"),
    "sys.exit with a code below zero": lambda: SystemExit(-1),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
    "BaseExceptionGroup": lambda: BaseExceptionGroup("both", [SystemExit(1), ValueError()]),
    "ExceptionGroup": lambda: ExceptionGroup("both", [MemoryError(), ValueError()]),
    "a BaseException of its own": type("Alarm", (BaseException,), {}),
    "MemoryError": MemoryError,
    "RecursionError": RecursionError,
    "Celery's Ignore": Ignore,
    "Celery's Reject": lambda: Reject("no", requeue=False),
    "Celery's Reject with requeue": lambda: Reject("no", requeue=True),
    "Celery's Retry": CelerysRetry,
    "Celery's WorkerLostError": lambda: WorkerLostError("no"),
    "Celery's TimeLimitExceeded": lambda: TimeLimitExceeded(7),
    "Celery's SoftTimeLimitExceeded": SoftTimeLimitExceeded,
    "billiard's Terminated": lambda: Terminated(9),
    "a cycle of causes": Cyclic,
    "an error without a text": Unsayable,
    "an error that cannot be pickled": lambda: Unpicklable(1, 2),
    "a retry in the year 3000": lambda: Retry(countdown=31e9),
    "a retry after the end of all calendars": lambda: Retry(countdown=1e300),
}


class Worker:
    """One of Celery's own, in a thread, with the outcomes of what it has run."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.ended: list[Outcome] = []
        self.failures: list[BaseException] = []

    def wait_for(self, count: int, failures: int = 0) -> list[str]:
        """Wait until so many runs have ended, and Celery has told of so many failures; return how they ended."""
        deadline = time.monotonic() + 20
        while len(self.ended) < count or len(self.failures) < failures:
            assert time.monotonic() < deadline, f"not {count} with {failures} failures: {self.ended}, {self.failures}"
            threading.Event().wait(0.005)
        return [outcome.state for outcome in self.ended]


@pytest.fixture(scope="module")
def working() -> Iterator[Worker]:
    """``solo``, so that what comes out of a task comes to the worker; one for all, for it takes a second to end."""
    before = app_or_default()
    app = Celery("crashes", broker="memory://", set_as_current=False)
    app.conf.update(task_default_queue="crashes", broker_transport_options={"polling_interval": 0.01})
    found = Worker(app)

    def failed(exception: BaseException, **kwargs: Any) -> None:
        found.failures.append(exception)

    def leave_logging_alone(**kwargs: Any) -> None: ...

    drain = Transport.drain_events
    signals.setup_logging.connect(leave_logging_alone)
    signals.task_failure.connect(failed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CELERY_SKIP_CHECKS", "1")
        # So that it looks often whether it shall end.
        patch.setattr(Transport, "drain_events", lambda self, connection, timeout=None: drain(self, connection, 0.02))
        with start_worker(app, pool="solo", perform_ping_check=False):
            before.set_current()
            yield found
    signals.task_failure.disconnect(failed)
    signals.setup_logging.disconnect(leave_logging_alone)
    before.set_current()


@pytest.fixture
def worker(working: Worker, settings) -> Iterator[Worker]:
    """A worker that has not run anything yet."""
    settings.DEFERRED_SIGNALS = {"BACKEND": "celery"}
    before = app_or_default()
    working.app.set_current()
    working.ended.clear()
    working.failures.clear()

    def finished(outcome: Outcome, **kwargs: Any) -> None:
        working.ended.append(outcome)

    delivery_finished.connect(finished)
    yield working
    delivery_finished.disconnect(finished)
    before.set_current()


class TestWhatAReceiverMayRaise:
    @pytest.mark.parametrize("raised", [name for name in ODD if not name.startswith("a retry")])
    def test_it_is_retried_and_then_dead_and_for_celery_failed_and_the_worker_goes_on(
        self, raised, worker, link, calls
    ):
        link(rang, troubled, max_retries=1, retry_backoff_max=0)
        receivers.troubles += [ODD[raised](), ODD[raised]()]
        rang.send(sender=None)
        assert worker.wait_for(2, failures=1) == ["retry", "dead"]
        assert [kwargs["attempt"] for _, _, kwargs in calls] == [1, 2]
        [failure] = worker.failures
        assert isinstance(failure, Exception)
        assert not isinstance(failure, MemoryError | Ignore | Reject | CelerysRetry | WorkerLostError | Terminated)
        rang.send(sender=None)
        assert worker.wait_for(3) == ["retry", "dead", "succeeded"]

    @pytest.mark.parametrize("raised", [name for name in ODD if name.startswith("a retry")])
    def test_a_retry_beyond_all_clocks_waits_a_hundred_years_and_keeps_nobody_waiting(self, raised, worker, link):
        link(rang, troubled)
        receivers.troubles.append(ODD[raised]())
        rang.send(sender=None)
        rang.send(sender=None)
        assert worker.wait_for(2) == ["retry", "succeeded"]
        assert worker.ended[0].countdown == LONGEST_COUNTDOWN

    def test_a_backoff_beyond_all_clocks_is_as_long(self, link, outcome_of):
        most = LONGEST_COUNTDOWN
        link(rang, troubled, retry_backoff=most, retry_backoff_max=most, retry_jitter=False)
        receivers.troubles.append(ValueError())
        rang.send(sender=None)
        assert outcome_of().countdown == LONGEST_COUNTDOWN

    def test_options_name_it_as_the_receiver_raised_it(self, link, memory):
        link(rang, troubled, dont_autoretry_for=(SystemExit,))
        receivers.troubles += [SystemExit(1)]
        rang.send(sender=None)
        _, outcome = run(memory.payloads.pop()[1], passes=lambda error: False)
        assert (outcome.state, type(outcome.error)) == ("dead", ReceiverInterrupted)
        assert isinstance(outcome.error, ReceiverInterrupted)
        assert isinstance(outcome.error.__cause__, SystemExit)

    def test_the_text_of_an_exit_is_not_repeated(self, payload, caplog):
        receivers.troubles += [SystemExit("hunter2")]
        _, outcome = run(payload, passes=lambda error: False)
        assert str(outcome.error) == "The receiver raised SystemExit."
        assert "hunter2" not in caplog.text

    def test_a_discard_without_a_text_is_one(self, payload):
        receivers.troubles.append(UnsayableDiscard())
        _, outcome = run(payload)
        assert (outcome.state, outcome.reason) == ("discarded", "the receiver discarded it")

    def test_endless_recursion_is_raised_like_anything(self, link, memory):
        def recurse(**kwargs: Any) -> None:
            recurse(**kwargs)

        link(rang, receivers.curious)
        receivers.inquiries.append(recurse)
        rang.send(sender=None)
        [(_, outcome)] = memory.deliver()
        assert (outcome.state, type(outcome.error)) == ("retry", RecursionError)

    def test_what_a_context_carrier_raises_is_no_end_of_the_worker_either(self, payload, monkeypatch):
        leaves = ExitStack()
        leaves.callback(sys.exit, 1)

        monkeypatch.setattr("deferred_signals.context.enter", lambda found, decode, stack: stack.enter_context(leaves))
        assert run(payload, passes=lambda error: False)[1].state == "succeeded"
        monkeypatch.setattr("deferred_signals.context.enter", lambda *args: sys.exit(1))
        assert run(payload, passes=lambda error: False)[1].state == "retry"


@contextmanager
def as_in_a_worker(**request: Any) -> Iterator[None]:
    deliver.push_request(**{"id": "x", "retries": 0, **request}, called_directly=False, is_eager=False)
    try:
        yield
    finally:
        deliver.pop_request()


class TestWhatIsNotTheReceivers:
    @pytest.mark.parametrize(
        "order",
        [WorkerShutdown(0), WorkerTerminate(1), SystemExit(-256 + 3), SystemExit(-256 + 15)],
        ids=["warm shutdown", "cold shutdown", "SIGQUIT to a child", "SIGTERM to a child"],
    )
    def test_celerys_own_orders_to_the_worker_reach_it(self, order, payload, told):
        receivers.troubles.append(order)
        with as_in_a_worker(), pytest.raises(type(order)) as caught:
            deliver.run(payload)
        assert caught.value is order
        assert [what for what, _, _ in told] == ["started"]

    @pytest.mark.parametrize(("module", "name"), [("greenlet", "GreenletExit"), ("gevent", "Timeout")])
    def test_a_greenlet_can_be_ended_from_outside(self, module, name, payload, monkeypatch):
        kind = type(name, (BaseException,), {})
        receivers.troubles.append(kind())
        monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(**{name: kind}))
        with as_in_a_worker(), pytest.raises(kind):
            deliver.run(payload)

    def test_in_the_senders_process_ctrl_c_ends_what_runs_in_it(self, payload, memory):
        receivers.troubles += [KeyboardInterrupt(), KeyboardInterrupt(), SystemExit(3)]
        with pytest.raises(KeyboardInterrupt):
            deliver.apply((payload,))
        rang.send(sender=None)
        with pytest.raises(KeyboardInterrupt):
            memory.deliver()
        rang.send(sender=None)
        with pytest.raises(SystemExit):
            memory.deliver()


class TestAsyncReceivers:
    @pytest.fixture(params=[False, True], ids=["threads", "greenlets"], autouse=True)
    def _among_greenlets(self, request, monkeypatch) -> None:
        monkeypatch.setattr(calling, "among_greenlets", lambda: request.param)

    @pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, RecursionError])
    def test_what_they_raise_is_raised_and_the_next_one_runs(self, kind):
        async def raises() -> None:
            raise kind

        reached = []

        async def runs() -> None:
            await asyncio.sleep(0)
            reached.append(1)

        with pytest.raises(kind):
            call(raises, {})
        call(runs, {})
        assert reached

    @pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
    def test_what_a_task_of_theirs_raises_does_not_end_the_loop(self, kind):
        async def raises() -> None:
            raise kind

        async def waits() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(raises())
                await asyncio.sleep(60)

        with pytest.raises((kind, BaseExceptionGroup)):
            call(waits, {})
        call(asyncio.sleep, {"delay": 0})

    def test_endless_recursion_is_raised(self):
        async def recurse() -> None:
            await recurse()

        with pytest.raises(RecursionError):
            call(recurse, {})
        call(asyncio.sleep, {"delay": 0})


class Post:
    """Celery's request for a message, and what became of the message."""

    def __init__(self, celery_app: Celery, *, redelivered: bool = False, **options: Any) -> None:
        self.said: list[str] = []
        made = celery_app.amqp.as_task_v2(
            "an-id", deliver.name, ("payload",), {}, shadow="shop.receivers.slow", **options
        )
        message = types.SimpleNamespace(
            headers=made.headers,
            body=made.body,
            payload=made.body,
            properties=made.properties,
            delivery_info={"routing_key": "q", "redelivered": redelivered},
        )
        pool = types.SimpleNamespace(apply_async=None)
        # As Celery's strategy does.
        kind = celery_request.create_request_cls(  # type: ignore[attr-defined]
            symbol_by_name(deliver.Request), deliver, pool, "here", None, app=celery_app
        )
        self.request: Any = kind(
            message,
            app=celery_app,
            task=deliver,
            decoded=True,
            on_ack=lambda *args: self.said.append("acknowledged"),
            on_reject=lambda logger, errors, requeue: self.said.append(f"rejected, requeue={requeue}"),
        )


def raised(error: BaseException) -> ExceptionInfo:
    try:
        raise error
    except type(error):
        return ExceptionInfo()


@pytest.fixture
def celery_app() -> Iterator[Celery]:
    before = app_or_default()
    app = Celery("requests", broker="memory://", set_as_current=True)
    yield app
    before.set_current()


class TestCelerysRequest:
    def test_celery_takes_ours_for_our_task(self, celery_app):
        request = Post(celery_app).request
        assert isinstance(request, DeliveryRequest)
        assert celery_app.tasks["deferred_signals.deliver"].Request == deliver.Request

    def test_after_a_hard_time_limit_the_message_goes_back(self, celery_app, caplog):
        post = Post(celery_app)
        # What the pool calls, in this order.
        post.request.on_failure(raised(TimeLimitExceeded(7)))
        assert post.said == []
        post.request.on_timeout(soft=False, timeout=7)
        assert post.said == ["rejected, requeue=True"]
        assert [record.getMessage() for record in caplog.records] == [
            "shop.receivers.slow[an-id] ran into its hard time limit (7 s): its process is ended"
        ]

    def test_a_soft_time_limit_is_celerys(self, celery_app, caplog):
        post = Post(celery_app)
        post.request.on_timeout(soft=True, timeout=7)
        assert post.said == []
        assert "Soft time limit (7s) exceeded" in caplog.text

    def test_a_lost_process_puts_the_message_back_whatever_the_project_says(self, celery_app):
        celery_app.conf.update(task_retry_on_worker_lost=True, task_reject_on_worker_lost=False)
        post = Post(celery_app)
        post.request.on_failure(raised(WorkerLostError("exited")))
        assert post.said == ["rejected, requeue=True"]

    def test_what_a_receiver_raised_is_acknowledged(self, celery_app):
        post = Post(celery_app)
        post.request.on_success((True, raised(ReceiverInterrupted("The receiver raised TimeLimitExceeded.")), 0.1))
        assert post.said == ["acknowledged"]

    def test_a_limit_that_a_receiver_speaks_of_itself_is_no_limit(self, celery_app):
        post = Post(celery_app)
        post.request.on_success((True, raised(TimeLimitExceeded(7)), 0.1))
        assert post.said == ["acknowledged"]

    @pytest.mark.parametrize(("greenlets", "said"), [(True, "rejected, requeue=True"), (False, "acknowledged")])
    def test_a_greenlet_that_a_cold_shutdown_has_killed_is_no_success(self, greenlets, said, celery_app, monkeypatch):
        monkeypatch.setattr(worker_request, "among_greenlets", lambda: greenlets)
        post = Post(celery_app)
        post.request.cancel(types.SimpleNamespace(terminate_job=None))
        post.request.on_success((False, None, 0.1))
        assert post.said == [said]

    def test_a_greenlet_that_nobody_has_killed_is_one(self, celery_app, monkeypatch):
        monkeypatch.setattr(worker_request, "among_greenlets", lambda: True)
        post = Post(celery_app)
        post.request.on_success((False, None, 0.1))
        assert post.said == ["acknowledged"]

    def test_what_somebody_has_revoked_is_celerys(self, celery_app, caplog):
        post = Post(celery_app)
        state.revoked.add("an-id")
        try:
            assert post.request.revoked() is True
        finally:
            state.revoked.pop_value("an-id")
        assert post.said == ["acknowledged"]

    def test_what_came_back_while_it_was_kept_for_later_is_no_crash(self, celery_app, payload, calls):
        in_time = Post(celery_app, eta=datetime.now(UTC) + timedelta(days=1), redelivered=True).request
        with as_in_a_worker(**in_time.request_dict):
            assert deliver.run(payload) is None
        assert len(calls) == 1

    @pytest.mark.parametrize("eta", [None, datetime.now(UTC) - timedelta(days=1)])
    def test_what_came_back_after_its_time_is_one(self, celery_app, payload, calls, eta):
        late = Post(celery_app, eta=eta, redelivered=True).request
        with as_in_a_worker(**late.request_dict), pytest.raises(CelerysRetry, match="WorkerLost"):
            deliver.run(payload)
        assert calls == []
