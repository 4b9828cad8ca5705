"""Rows that are claimed, run and completed together (``batch_size``), and what becomes of those that are not."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connection, connections, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import translation

from deferred_signals import Discard, Retry, Signal, failpoints, prefetch
from deferred_signals.envelope import seal
from deferred_signals.exceptions import LeaseLost, OpenError
from deferred_signals.outbox import claims, remainder, windows
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.lease import Claim, claim
from deferred_signals.outbox.models import OutboxDelivery, State
from deferred_signals.outbox.processes import me
from deferred_signals.outbox.windows import Window, opened
from deferred_signals.signals import delivery_finished
from deferred_signals.strict_json import dump, parse
from deferred_signals.tasks import deliver
from tests import receivers
from tests.ahead import in_schema, tenants, translated  # noqa: F401 - fixtures
from tests.shop.models import Customer

from .holding import expire, once, parcel_sent, ring, send, states
from .test_answering import at_once
from .waiting import DEADLINE, wait_until

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

#: SQLite has no rows to lock. With this one taken for granted, what is said to it is the same but for the lock.
CAN = "has_select_for_update_skip_locked"
HAS_THREADS = pytest.mark.skipif(
    connection.vendor == "sqlite", reason="threads share the lock of SQLite's database in memory"
)

Link = Callable[..., None]

letter_sent = Signal()


@pytest.fixture(autouse=True)
def _skips(monkeypatch: pytest.MonkeyPatch) -> None:
    if connection.vendor == "sqlite":
        monkeypatch.setattr(type(connection.features), CAN, True)
    assert getattr(connection.features, CAN)


@pytest.fixture(autouse=True)
def _no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, a window is quick."""
    monkeypatch.setattr(windows, "QUICK", 3600.0)
    monkeypatch.setattr(windows, "LAST_MOMENT", 0.0)
    monkeypatch.setattr(prefetch, "FRESH", 3600.0)


@pytest.fixture
def curious(link: Link) -> None:
    link(parcel_sent, receivers.curious, durable=True, batch_size=100)


@pytest.fixture
def finished() -> Any:
    """What observers are told: the state, and that of the row at that moment."""
    told: list[tuple[str, str]] = []

    def observe(delivery: Any, outcome: Any, **kwargs: Any) -> None:
        told.append((outcome.state, OutboxDelivery.objects.get(delivery_id=delivery.id).state))

    delivery_finished.connect(observe)
    yield told
    delivery_finished.disconnect(observe)


def numbers() -> list[int]:
    """Which of those that were sent have run, in order."""
    return [kwargs["number"] for _, _, kwargs in receivers.calls]


def claim_together(ids: list[uuid.UUID]) -> claims.Claimed:
    return claims.claim_together("default", ids, claims.receivers("default"))


def statements(asked: CaptureQueriesContext) -> list[str]:
    ours = [query["sql"] for query in asked if "deferred_signals_delivery" in query["sql"]]
    return [text.split()[0] for text in ours]


def at(number: int, action: Callable[[], Any]) -> Callable[..., None]:
    """An inquiry for ``receivers.curious``: does it in the run of this one."""

    def ask(**kwargs: Any) -> None:
        if kwargs["number"] == number:
            action()

    return ask


def fail(error: BaseException) -> Callable[[], None]:
    def raise_it() -> None:
        raise error

    return raise_it


class TestStatements:
    def test_are_three_for_each_window_and_windows_grow(self, curious, rows, calls):
        send(100)
        with CaptureQueriesContext(connection) as asked:
            assert states(ring()) == ["succeeded"] * 100
        assert statements(asked)[1:] == ["SELECT", "UPDATE", "UPDATE"] * 4, (
            "of 10, 20, 40 and 30; the first is the test's"
        )
        locks = ["FOR UPDATE SKIP LOCKED" in query["sql"] for query in asked]
        assert sum(locks) == (0 if connection.vendor == "sqlite" else 4)
        assert rows("state", "lease", "crashes", "due", "ring_at") == [("succeeded", 1, 0, None, None)] * 100
        assert numbers() == [*range(100)]

    def test_are_three_for_each_row_without_batch_size(self, link):
        link(parcel_sent, receivers.curious, durable=True)
        send(5)
        with CaptureQueriesContext(connection) as asked:
            ring()
        assert statements(asked)[1:] == ["SELECT", "UPDATE", "UPDATE"] * 5

    def test_are_three_for_each_row_where_no_row_can_be_passed_by(self, curious, monkeypatch):
        monkeypatch.setattr(type(connection.features), CAN, False)
        connection.features.__dict__.pop(CAN, None)
        send(5)
        with CaptureQueriesContext(connection) as asked:
            assert states(ring()) == ["succeeded"] * 5
        assert statements(asked)[1:] == ["SELECT", "UPDATE", "UPDATE"] * 5

    def test_are_as_ever_for_a_doorbell_of_one(self, curious):
        send()
        with CaptureQueriesContext(connection) as asked:
            assert states(ring()) == ["succeeded"]
        assert statements(asked)[1:] == ["SELECT", "UPDATE", "UPDATE"]
        assert not any("FOR UPDATE" in query["sql"] for query in asked)

    def test_for_the_rows_that_are_referred_to_are_one_for_each_window(self, link, calls):
        link(parcel_sent, receivers.on_instance, durable=True, batch_size=100)
        for name in "abcdefgh":
            send(instance=Customer.objects.create(name=name))
        with CaptureQueriesContext(connection) as asked:
            assert states(ring()) == ["succeeded"] * 8
        assert sum("shop_customer" in query["sql"] for query in asked) == 1
        assert [kwargs["instance"].name for _, _, kwargs in calls] == [*"abcdefgh"]

    def test_for_the_rows_of_a_tenant_are_made_inside_of_it(self, link, calls, tenants):  # noqa: F811
        link(parcel_sent, receivers.on_instance, durable=True, batch_size=100)
        for name, row in zip(("acme", "globex", ""), tenants, strict=True):
            with in_schema(name):
                send(instance=row)
        assert states(ring()) == ["succeeded"] * 3
        assert [kwargs["instance"].name for _, _, kwargs in calls] == ["acme", "globex", "2"]

    def test_for_the_rows_are_made_in_the_language_of_the_deliveries(self, link, calls, translated):  # noqa: F811
        link(parcel_sent, receivers.on_instance, durable=True, batch_size=100)
        for name in "abc":
            row = Customer.objects.create(name=name)
            with translation.override("fr"):
                send(instance=row)
        with CaptureQueriesContext(connection) as asked:
            assert states(ring()) == ["succeeded"] * 3
        assert sum("shop_customer" in query["sql"] for query in asked) == 1
        assert [kwargs["instance"].name for _, _, kwargs in calls] == ["a fr", "b fr", "c fr"]

    def test_a_window_holds_no_more_than_batch_size_says(self, link):
        link(parcel_sent, receivers.curious, durable=True, batch_size=4)
        send(9)
        most: list[int] = []
        running = OutboxDelivery.objects.filter(state=State.RUNNING)
        receivers.inquiries[:] = [lambda **_: most.append(running.count())]
        assert states(ring()) == ["succeeded"] * 9
        assert max(most) == 4
        assert numbers() == [*range(9)]

    @pytest.mark.parametrize(("took", "size"), [(0.05, 20), (0.1, 10), (0.2, 5), (5.0, 1)])
    def test_the_next_window_holds_what_should_run_in_a_moment(self, curious, monkeypatch, took, size):
        monkeypatch.setattr(windows, "QUICK", 0.1)
        window = Window(claims.Claimed([], 10), 0.0)
        monkeypatch.setattr("deferred_signals.outbox.windows.time.monotonic", lambda: took)
        assert window.next_size() == size


class TestWhatIsClaimedTogether:
    def test_is_in_the_order_of_the_doorbell_and_held_as_one_row_is(self, curious, rows):
        ids = send(3)
        made = claim_together([ids[2], ids[0], uuid.uuid4(), ids[2], ids[1]])
        assert [held.row.delivery_id for held in made.claims] == [ids[2], ids[0], ids[1]]
        assert [(held.lease, held.lost, held.row.crashes) for held in made.claims] == [(1, "", 0)] * 3
        assert rows("state", "lease", "worker", "rings") == [("running", 1, me(), 0)] * 3
        soon, late = DatabaseNow(20), DatabaseNow(30)
        assert OutboxDelivery.objects.filter(due__gt=soon, due__lte=late, ring_at__gt=soon).count() == 3
        assert [claim("default", one) for one in ids] == [None] * 3

    def test_is_nothing_that_is_not_due_or_has_ended_or_is_held(self, curious):
        ids = send(4)
        OutboxDelivery.objects.filter(delivery_id=ids[0]).update(due=DatabaseNow(60))
        OutboxDelivery.objects.filter(delivery_id=ids[1]).update(due=None, state=State.DEAD)
        claim("default", ids[2])
        assert [held.row.delivery_id for held in claim_together(ids).claims] == [ids[3]]
        assert claim_together(ids).claims == []

    def test_is_nothing_that_has_lost_a_worker(self, curious, rows):
        """It may be what ends workers: the others would be counted with it, and in the end be dead with it."""
        ids = send(4)
        OutboxDelivery.objects.filter(delivery_id=ids[1]).update(state=State.RUNNING, lease=1, due=DatabaseNow(-1))
        OutboxDelivery.objects.filter(delivery_id=ids[2]).update(crashes=1)
        assert [held.row.delivery_id for held in claim_together(ids).claims] == [ids[0], ids[3]]
        expire()
        assert states(ring()) == ["succeeded"] * 4
        assert rows("crashes") == [1, 1, 1, 1], "the claims of this test were lost as well"

    @pytest.mark.parametrize(
        "options",
        [{"order_by": lambda **_: "a"}, {"unique": lambda **_: "a"}, {"atomic": True}, {"time_limit": 5}],
        ids=["order_by", "unique", "atomic", "time_limit"],
    )
    def test_is_nothing_of_a_connection_that_asks_for_more(self, link, options):
        link(parcel_sent, receivers.curious, durable=True, batch_size=100, **options)
        link(parcel_sent, receivers.first, durable=True, batch_size=100, soft_time_limit=5)
        link(parcel_sent, receivers.second, durable=True, batch_size=100)
        ids = send(3)
        held = claim_together(ids).claims
        assert [one.row.receiver for one in held] == ["tests.receivers.second"] * 3

    def test_is_nothing_of_another_connection_of_its_receiver(self, link):
        link(parcel_sent, receivers.curious, durable=True, batch_size=100)
        link(letter_sent, receivers.curious, durable=True)
        sent = send(2)
        with transaction.atomic():
            letters = [uuid.UUID(letter_sent.send(sender=None, number=number)[0][1].id) for number in (2, 3)]
        held = claim_together([*letters, *sent]).claims
        assert [one.row.delivery_id for one in held] == sent
        assert states(ring(*letters)) == ["succeeded"] * 2

    def test_runs_between_what_is_claimed_one_by_one_in_the_order_of_the_doorbell(self, link, calls, rows):
        link(parcel_sent, receivers.first, durable=True, batch_size=100)
        link(parcel_sent, receivers.second, durable=True)
        send(3)
        assert states(ring()) == ["succeeded"] * 6
        assert [name for name, _, _ in calls] == ["first", "second"] * 3
        assert rows("state") == ["succeeded"] * 6

    def test_is_nothing_where_all_are_claimed_one_by_one(self, link):
        link(parcel_sent, receivers.first, durable=True, batch_size=100)
        link(parcel_sent, receivers.second, durable=True)
        ids = send(12)
        OutboxDelivery.objects.filter(receiver="tests.receivers.first").update(crashes=1)
        assert states(ring(*ids)) == ["succeeded"] * 24

    @pytest.mark.parametrize("point", ["worker.before_claim", "worker.after_claim"])
    def test_has_points_at_which_a_test_can_break_it_off(self, curious, rows, monkeypatch, point):
        ids = send(3)
        monkeypatch.setitem(failpoints.actions, point, fail(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            claim_together(ids)
        assert rows("state") == ["pending" if point == "worker.before_claim" else "running"] * 3

    def test_at_the_end_too(self, curious, rows, monkeypatch):
        send(3)
        reached: list[Any] = []
        for point in ("worker.before_completion", "worker.after_completion"):
            monkeypatch.setitem(failpoints.actions, point, lambda point=point: reached.append((point, rows("state"))))
        ring()
        assert reached == [
            ("worker.before_completion", ["running"] * 3),
            ("worker.after_completion", ["succeeded"] * 3),
        ]


class TestEnds:
    def test_are_each_its_own(self, link, rows, finished):
        link(parcel_sent, receivers.curious, durable=True, batch_size=100, dont_autoretry_for=(ZeroDivisionError,))
        receivers.inquiries[:] = [
            at(1, fail(ZeroDivisionError())),
            at(2, fail(Retry(countdown=5))),
            at(3, fail(Discard("no"))),
        ]
        send(5)
        assert states(ring()) == ["succeeded", "dead", "retry", "discarded", "succeeded"]
        assert rows("state") == ["succeeded", "dead", "pending", "discarded", "succeeded"]
        assert rows("attempt") == [1, 1, 2, 1, 1]
        assert finished == [
            ("dead", "dead"),
            ("retry", "pending"),
            ("discarded", "discarded"),
            ("succeeded", "succeeded"),
            ("succeeded", "succeeded"),
        ], "success is told when it is written down"

    def test_of_what_has_expired_are_none_of_a_run(self, link, rows, calls, monkeypatch):
        link(parcel_sent, receivers.first, durable=True, expires=30, batch_size=100)
        send(3)
        monkeypatch.setattr("deferred_signals.attempt.time.time", lambda: 1e10)
        assert states(ring()) == ["discarded"] * 3
        assert (rows("state"), calls) == (["discarded"] * 3, [])

    def test_of_payloads_that_cannot_be_run_keep_nobody(self, curious, rows):
        ids = send(3)
        payload = rows("payload")[1]
        OutboxDelivery.objects.filter(delivery_id=ids[0]).update(payload="forged:payload")
        newer = {**parse(payload.rpartition(":")[0]), "v": 99}
        OutboxDelivery.objects.filter(delivery_id=ids[1]).update(payload=seal(dump(newer)))
        ended = ring()
        assert states(ended) == ["dead", "retry", "succeeded"]
        assert isinstance(ended[0][1].error, OpenError)
        assert rows("state") == ["dead", "pending", "succeeded"]

    def test_are_by_what_is_signed_whatever_the_columns_say(self, link, rows, calls):
        """A receiver that is atomic has its own transaction, though its row claims to be another's."""
        link(parcel_sent, receivers.curious, durable=True, atomic=True, max_retries=0)
        link(parcel_sent, receivers.first, durable=True, batch_size=100)
        receivers.inquiries[:] = [lambda **_: Customer.objects.create(name="effect"), at(1, fail(ZeroDivisionError()))]
        send(2)
        OutboxDelivery.objects.update(receiver="tests.receivers.first")
        assert sorted(states(ring())) == ["dead", "succeeded", "succeeded", "succeeded"]
        assert Customer.objects.filter(name="effect").count() == 1

    def test_of_a_run_that_is_overtaken_count_for_nothing(self, curious, rows, finished):
        ids = send(4)
        others = OutboxDelivery.objects.filter(delivery_id=ids[1])
        receivers.inquiries[:] = [at(2, lambda: others.update(lease=7))]
        ended = ring()
        assert states(ended) == ["succeeded", "discarded", "succeeded", "succeeded"]
        assert isinstance(ended[1][1].error, LeaseLost)
        assert rows("state", "lease") == [("succeeded", 1), ("running", 7), ("succeeded", 1), ("succeeded", 1)]
        assert finished == [
            ("succeeded", "succeeded"), ("discarded", "running"), ("succeeded", "succeeded"), ("succeeded", "succeeded")
        ]  # fmt: skip

    def test_whose_answer_is_lost_are_ends_all_the_same(self, curious, rows, monkeypatch):
        ids = send(3)
        real = claims.complete
        lost: list[int] = []

        def lose_the_answer(held: Any) -> Any:
            found = real(held)
            if not lost:
                lost.append(1)
                OutboxDelivery.objects.filter(delivery_id=ids[2]).update(state=State.RUNNING, lease=7)
                raise OperationalError("server closed the connection unexpectedly")
            return found

        monkeypatch.setattr(claims, "complete", lose_the_answer)
        assert states(ring()) == ["succeeded", "succeeded", "discarded"]
        assert rows("state") == ["succeeded", "succeeded", "running"]

    def test_are_tried_to_be_written_down_for_as_long_as_a_lease(self, curious, rows, monkeypatch, caplog, calls):
        send(3)
        monkeypatch.setattr(claims, "complete", lambda held: fail(OperationalError("away"))())
        with override_settings(DEFERRED_SIGNALS={"BACKEND": "memory", "LEASE": 0.3}):
            began = time.monotonic()
            assert states(ring()) == ["succeeded"] * 3
        assert time.monotonic() - began >= 0.3
        assert "could not be written down" in caplog.text
        assert rows("state") == ["running"] * 3
        monkeypatch.undo()
        expire()
        ring()
        assert rows("state", "crashes") == [("succeeded", 1)] * 3
        assert len(calls) == 6

    def test_of_a_database_that_is_back_in_time_are_ends(self, curious, rows, monkeypatch):
        send(3)
        real, left = claims.complete, [OperationalError("away")] * 2
        monkeypatch.setattr(claims, "complete", lambda held: fail(left.pop())() if left else real(held))
        assert states(ring()) == ["succeeded"] * 3
        assert rows("state") == ["succeeded"] * 3


class TestNobodyRunsTwice:
    def test_whose_doorbell_comes_again_and_again(self, curious, calls):
        ids = send(5)
        receivers.inquiries[:] = [lambda **_: more.append(ring(*ids)) if len(more) < 5 else None]
        more: list[Any] = []
        assert states(ring(*ids, *ids)) == ["succeeded"] * 5
        assert more == [[]] * 5, "meanwhile"
        assert ring(*ids) == []
        assert numbers() == [0, 1, 2, 3, 4]

    @HAS_THREADS
    def test_of_two_workers_that_hear_the_same_doorbell(self, curious, rows, calls):
        ids = send(100)
        barrier = threading.Barrier(4)
        ended: list[Any] = []

        def come() -> None:
            try:
                barrier.wait(DEADLINE)
                ended.extend(ring(*ids))
            finally:
                connections.close_all()

        threads = [threading.Thread(target=come) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert states(ended) == ["succeeded"] * 100
        assert sorted(numbers()) == [*range(100)]
        assert rows("state", "lease") == [("succeeded", 1)] * 100

    @HAS_THREADS
    def test_and_what_somebody_has_locked_is_not_waited_for(self, curious):
        ids = send(3)
        is_locked, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            with transaction.atomic():
                OutboxDelivery.objects.filter(delivery_id=ids[1]).update(rings=1)
                is_locked.set()
                go_on.wait(DEADLINE)
            connections.close_all()

        thread = threading.Thread(target=hold)
        thread.start()
        try:
            assert is_locked.wait(DEADLINE)
            assert [held.row.delivery_id for held in claim_together(ids).claims] == [ids[0], ids[2]]
        finally:
            go_on.set()
            thread.join(DEADLINE)

    def test_that_was_held_for_longer_than_a_lease_before_it_began(self, curious, rows, monkeypatch):
        """A process that was stopped in a window does not run what others have taken over meanwhile."""
        ids = send(3)

        def stall() -> None:
            expire()
            assert claim("default", ids[1]) is not None
            monkeypatch.setattr(Window, "take", late)

        real = Window.take

        def late(self: Window, key: uuid.UUID) -> Any:
            self._renewed -= 31
            return real(self, key)

        receivers.inquiries[:] = [at(0, stall)]
        assert states(ring()) == ["succeeded", "succeeded"], "what nobody has taken over is claimed anew"
        assert numbers() == [0, 2]
        assert rows("state", "lease", "crashes") == [("succeeded", 1, 0), ("running", 2, 1), ("succeeded", 2, 1)]


@contextmanager
def beside(action: Callable[[], Any]) -> Any:
    """In the thread of a heartbeat."""
    troubles: list[BaseException] = []

    def act() -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - told in the test's own thread
            troubles.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=act)
    thread.start()
    thread.join(DEADLINE)
    yield troubles


class TestASlowReceiver:
    def test_has_the_rest_given_back_and_rung_for(self, curious, memory, rows, monkeypatch):
        monkeypatch.setattr("deferred_signals.outbox.answering.passing_on", at_once)
        ids = send(8)
        memory.payloads.clear()
        seen: list[Any] = []
        receivers.inquiries[:] = [once(lambda: seen.extend(rows("state", "lease", "crashes")))]
        assert states(ring(*ids)) == ["succeeded"]
        assert seen == [("running", 1, 0), *[("pending", 1, 0)] * 7]
        soon, late = DatabaseNow(20), DatabaseNow(30)
        given = OutboxDelivery.objects.filter(due__lte=DatabaseNow(), ring_at__gt=soon, ring_at__lte=late)
        assert given.count() == 7
        assert len(memory.payloads) == 2
        while memory.payloads:
            memory.deliver()
        assert rows("state", "crashes") == [("succeeded", 0)] * 8
        assert sorted(numbers()) == [*range(8)]

    def test_has_the_rest_run_here_if_nobody_takes_the_doorbells(self, curious, memory, rows, monkeypatch):
        monkeypatch.setattr("deferred_signals.outbox.answering.passing_on", at_once)
        ids = send(5)
        monkeypatch.setattr(type(memory), "publish", lambda self, given: [(one, OSError()) for one in given])
        assert states(ring(*ids)) == ["succeeded"] * 5
        assert rows("state") == ["succeeded"] * 5
        assert sorted(numbers()) == [*range(5)]

    def test_after_the_longest_time_has_the_rest_given_back_too(self, curious, memory, rows, monkeypatch):
        monkeypatch.setattr("deferred_signals.outbox.answering.LONGEST", -1.0)
        ids = send(5)
        memory.payloads.clear()
        assert states(ring(*ids)) == ["succeeded"]
        assert rows("state") == ["succeeded", *["pending"] * 4]
        assert len(memory.payloads) == 1

    def test_has_what_ran_before_completed_meanwhile(self, curious, rows, finished):
        ids = send(3)
        seen: list[Any] = []
        with opened("default", ids, claims.receivers("default")) as window:
            for key in ids[:2]:
                held = window.take(key)
                assert held is not None
                window.keep(held, Any)  # type: ignore[arg-type]
            with beside(window.complete) as troubles:
                assert troubles == []
            seen += rows("state")
            assert window.complete() is True, "one is still to come"
            window.ended.clear()
            window._ran.clear()
        assert seen == ["succeeded", "succeeded", "running"]
        assert rows("state") == ["succeeded", "succeeded", "pending"], "what was not begun is given back"

    @HAS_THREADS
    def test_has_all_that_done_by_the_heartbeat(self, curious, memory, rows, monkeypatch, finished):
        monkeypatch.setattr(remainder, "PATIENCE", 0.05)
        ids = send(6)
        memory.payloads.clear()
        wanted = ["succeeded", "succeeded", "running", *["pending"] * 3]
        receivers.inquiries[:] = [at(2, lambda: wait_until(lambda: rows("state") == wanted, "the heartbeat"))]
        assert states(ring(*ids)) == ["succeeded"] * 3
        assert finished == [("succeeded", "succeeded")] * 3
        wait_until(lambda: len(memory.payloads) == 2, "the doorbells")
        monkeypatch.setattr(remainder, "PATIENCE", 3600.0)
        memory.deliver()
        assert rows("state", "crashes") == [("succeeded", 0)] * 6

    def test_whose_rest_may_have_been_given_back_is_asked_again(self, curious, rows, monkeypatch, calls):
        """The answer was lost; so what was held may be another's."""
        ids = send(3)
        real = claims.release

        def lose_the_answer(*args: Any) -> None:
            real(*args)
            raise OperationalError("server closed the connection unexpectedly")

        with opened("default", ids, claims.receivers("default")) as window:
            with monkeypatch.context() as patched:
                patched.setattr(claims, "release", lose_the_answer)
                with pytest.raises(OperationalError):
                    window.release(ids[1:], 30.0)
            assert [window.take(one) is None for one in ids] == [False, True, True]
        assert rows("state") == ["running", "pending", "pending"]


class TestALease:
    def test_is_renewed_for_all_that_is_held_by_one_statement(self, curious, rows):
        ids = send(4)
        with opened("default", ids, claims.receivers("default")) as window:
            window.release(ids[3:], 30.0)
            expire()
            before = window._renewed
            with CaptureQueriesContext(connection) as asked:
                assert window.renew()
            assert len(asked) == 1
            assert window._renewed > before
            held = OutboxDelivery.objects.filter(due__gt=DatabaseNow(20), state=State.RUNNING)
            assert held.count() == 3
            OutboxDelivery.objects.filter(delivery_id=ids[0]).update(lease=9)
            renewed = window._renewed
            assert window.renew()
            assert window._renewed == renewed, "not of all of them"
            window.release(ids, 0.0)
            with CaptureQueriesContext(connection) as asked:
                assert window.renew()
            assert len(asked) == 0, "nothing is left"

    @HAS_THREADS
    def test_is_renewed_while_a_receiver_takes_longer_than_it(self, curious, rows, settings):
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "LEASE": 0.6}
        ids = send(3)
        others: list[Any] = []

        def dawdle() -> None:
            for _ in range(15):
                time.sleep(0.1)
                others.append([claim("default", one) for one in ids])

        receivers.inquiries[:] = [at(1, dawdle)]
        assert states(ring(*ids)) == ["succeeded"] * 3
        assert others == [[None] * 3] * 15
        assert rows("lease", "crashes") == [(1, 0)] * 3


class TestAWindowThatIsBrokenOff:
    def test_by_a_shutdown_completes_what_ran_and_gives_the_rest_back(self, curious, rows, finished):
        send(5)
        receivers.inquiries[:] = [once_at(2, SystemExit(-241))]
        with pytest.raises(SystemExit):
            ring()
        assert rows("state") == ["succeeded", "succeeded", "pending", "pending", "pending"]
        assert rows("attempt", "crashes") == [(1, 0)] * 5
        assert OutboxDelivery.objects.filter(ring_at__lte=DatabaseNow()).count() == 3, "the relay rings at once"
        assert finished == [("succeeded", "succeeded")] * 2
        assert states(ring()) == ["succeeded"] * 3
        assert numbers() == [0, 1, 2, 2, 3, 4]

    def test_by_a_hard_time_limit_leaves_the_one_that_ran_to_the_end_of_its_lease(self, curious, rows, monkeypatch):
        send(3)
        monkeypatch.setattr(deliver, "time_limit", 1e-9)
        receivers.inquiries[:] = [once_at(1, SystemExit(-241))]
        with pytest.raises(SystemExit):
            ring()
        assert rows("state") == ["succeeded", "running", "pending"]

    def test_by_an_error_of_ours_counts_for_the_one_that_ran(self, curious, rows, monkeypatch):
        send(3)
        receivers.inquiries[:] = [at(1, fail(Retry(countdown=5)))]
        with monkeypatch.context() as patched:
            patched.setattr(Claim, "again", lambda *args, **columns: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                ring()
        assert rows("state") == ["succeeded", "running", "pending"]

    def test_while_the_database_is_away_is_left_to_the_end_of_the_leases(self, curious, rows, monkeypatch, caplog):
        send(4)
        receivers.inquiries[:] = [once_at(2, SystemExit(-241))]
        for name in ("complete", "release"):
            monkeypatch.setattr(claims, name, lambda *args: fail(OperationalError("away"))())
        with pytest.raises(SystemExit):
            ring()
        assert rows("state") == ["running", "running", "pending", "running"]
        assert "could not be written down" in caplog.text
        assert "could not be given back" in caplog.text


def once_at(number: int, error: BaseException) -> Callable[..., None]:
    left = [error]
    return at(number, lambda: fail(left.pop())() if left else None)


class TestADatabaseThatIsAway:
    def test_at_the_claim_leaves_the_rows_to_be_claimed_one_by_one(self, curious, rows, monkeypatch):
        send(3)
        monkeypatch.setattr(claims, "claim_together", lambda *args: fail(DatabaseError("gave way"))())
        assert states(ring()) == ["succeeded"] * 3
        assert rows("state") == ["succeeded"] * 3

    def test_at_a_claim_in_between_ends_the_doorbell(self, link, rows, monkeypatch):
        link(parcel_sent, receivers.first, durable=True, batch_size=100)
        ids = send(3)
        OutboxDelivery.objects.filter(delivery_id=ids[1]).update(crashes=1)
        monkeypatch.setattr("deferred_signals.outbox.answering.claim", lambda *args: fail(OperationalError("away"))())
        monkeypatch.setattr("deferred_signals.outbox.answering.database_is_away", lambda: True)
        assert states(ring(*ids)) == ["succeeded"]
        assert rows("state") == ["succeeded", "pending", "pending"]
