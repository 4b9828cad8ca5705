"""The relay of one database: which rows it rings for, when again, and what it does about a broker or database away."""

import itertools
import os
import resource
import struct
import subprocess
import sys
import threading
import time
import zoneinfo
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from django.db import DatabaseError, connection, connections, transaction
from django.db import OperationalError as DatabaseIsAway
from django.db.models.signals import post_save
from django.test.utils import CaptureQueriesContext, override_settings
from kombu.exceptions import OperationalError
from redis import exceptions as redis_errors

from deferred_signals import failpoints
from deferred_signals.backends.memory import MemoryBackend
from deferred_signals.backends.producer import Refused, Unroutable
from deferred_signals.delivery import Delivery
from deferred_signals.exceptions import ConfigurationError, PublishError
from deferred_signals.outbox import figures, leader, lease, losses, probing, processes, pruning, refusal, relay
from deferred_signals.outbox.batch import Batch, drain, ring_batch
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.leader import Leadership
from deferred_signals.outbox.marking import pause_after
from deferred_signals.outbox.models import Lock, OutboxDelivery, State
from deferred_signals.outbox.redelivery import discard
from deferred_signals.outbox.refusal import may_be_outage
from deferred_signals.outbox.relay import Relay
from deferred_signals.outbox.ringing import ids_of
from tests import receivers
from tests.outbox.waiting import DEADLINE, wait_until
from tests.shop.models import Customer

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


@pytest.fixture
def send(link, memory) -> Callable[..., list[Any]]:
    """Send durable deliveries whose doorbells are lost; return their ids."""

    def send(count: int = 1, **options: Any) -> list[Any]:
        link(post_save, receivers.first, Customer, durable=True, dispatch_uid="relay", **options)
        with transaction.atomic():
            for number in range(count):
                Customer.objects.create(name=str(number))
        memory.payloads.clear()
        ids = OutboxDelivery.objects.order_by("number").values_list("delivery_id", flat=True)
        return list(ids)[-count:]

    return send


def age(seconds: float, **which: Any) -> None:
    """Have the rows be rung for so many seconds earlier."""
    for row in OutboxDelivery.objects.filter(ring_at__isnull=False, **which):
        assert row.ring_at
        OutboxDelivery.objects.filter(pk=row.pk).update(ring_at=row.ring_at - timedelta(seconds=seconds))


def rings_in(number: int | None = None) -> float:
    """In how many seconds the relay rings for a row: the first or the one of that number."""
    rows = OutboxDelivery.objects.order_by("number")
    found = rows.values_list("ring_at", DatabaseNow()).first() if number is None else None
    assert found
    return float((found[0] - found[1]).total_seconds())


def rung_for(memory: MemoryBackend) -> list[Any]:
    """The ids that were rung for since this was asked last."""
    found = [one for delivery, _ in memory.payloads for one in ids_of(delivery)]
    memory.payloads.clear()
    return found


@pytest.fixture
def refusing(memory, monkeypatch) -> list[Any]:
    """While the list has something, the broker refuses the doorbells with these ids, or with ``...`` all."""
    refused: list[Any] = []
    publish = memory.publish

    def publish_or_not(deliveries: Sequence[Delivery]) -> list[Any]:
        no = [one for one in deliveries if ... in refused or set(refused) & set(ids_of(one))]
        publish([one for one in deliveries if one not in no])
        return [(one, PublishError("The broker is away.")) for one in no]

    monkeypatch.setattr(memory, "publish", publish_or_not)
    return refused


@pytest.fixture
def made() -> Iterator[Callable[..., Relay]]:
    """Make relays, which end with the test."""
    all_made: list[Relay] = []

    def make(alias: str = "default") -> Relay:
        all_made.append(Relay(alias))
        return all_made[-1]

    yield make
    for one in all_made:
        one.stop()


@pytest.fixture
def running(made) -> Iterator[Callable[..., Relay]]:
    """Make relays and run each in a thread."""
    threads: list[tuple[Relay, threading.Thread]] = []

    def run(alias: str = "default") -> Relay:
        one: Relay = made(alias)

        thread = threading.Thread(target=one.run, name=f"relay {id(one)}")
        threads.append((one, thread))
        thread.start()
        return one

    yield run
    for one, thread in threads:
        one.stop()
        thread.join(DEADLINE)
        assert not thread.is_alive()


def end(one: Relay) -> None:
    """Stop it, and wait for its thread: who asks the database meanwhile is in its way, if that is in memory."""
    one.stop()
    for thread in threading.enumerate():
        if thread.name == f"relay {id(one)}":
            thread.join(DEADLINE)


class TestABatch:
    def test_rings_for_nothing_that_is_not_due(self, send, memory):
        send()
        assert ring_batch("default") == (0, 0, None)
        assert rung_for(memory) == []

    def test_rings_for_what_is_due_once_and_again_after_ring_again(self, send, memory, rows):
        ids = send(3)
        age(31)
        assert ring_batch("default")[:2] == (3, 3)
        assert rung_for(memory) == ids
        assert rows("rings") == [1, 1, 1]
        assert 20 < rings_in() <= 30
        assert ring_batch("default").due == 0

    def test_puts_a_hundred_rows_into_a_doorbell_and_no_more_than_asked_into_a_batch(self, send, memory):
        send(250)
        age(31)
        assert ring_batch("default", 230)[:2] == (230, 230)
        assert [len(ids_of(one)) for one, _ in memory.payloads] == [100, 100, 30]
        assert ring_batch("default", 230)[:2] == (20, 20)

    def test_begins_with_what_is_due_longest(self, send, memory):
        first, second, third = send(3)
        age(31)
        age(60, delivery_id=third)
        ring_batch("default")
        assert rung_for(memory) == [third, first, second]

    def test_rings_half_as_often_each_time_and_once_in_ten_minutes_at_least(self, send, memory, rows):
        send()
        waited = []
        for _ in range(9):
            age(5000)
            ring_batch("default")
            waited.append(rings_in())
        assert waited == pytest.approx([30, 60, 120, 240, 480, 600, 600, 600, 600], abs=10)
        assert rows("rings") == [9]

    @pytest.mark.parametrize("rings", [32_766, 32_767, 65_535])
    def test_counts_no_further_than_the_column_goes_for_a_row_that_nobody_takes(self, send, memory, rows, rings):
        """PostgreSQL's is full after 227 days of rings, and then nothing of its batch would be marked, for ever."""
        if rings > 32_767 and connection.vendor == "postgresql":
            pytest.skip("more than the column takes")
        first, second = send(2)
        age(31)
        OutboxDelivery.objects.filter(delivery_id=first).update(rings=rings)
        assert ring_batch("default") == (2, 2, None)
        assert rung_for(memory) == [first, second]
        assert rows("rings") == [32_767, 1]
        assert 590 < rings_in() <= 600

    def test_never_rings_more_often_than_ring_again(self):
        with override_settings(DEFERRED_SIGNALS={"BACKEND": "memory", "RING_AGAIN": 7200}):
            assert [pause_after(0), pause_after(5), pause_after(30_000)] == [7200, 7200, 7200]

    def test_reads_no_payload_and_asks_little(self, send):
        send(50)
        age(31)
        with CaptureQueriesContext(connection) as asked:
            ring_batch("default")
        said = [one["sql"] for one in asked if "deferred_signals_delivery" in one["sql"]]
        assert len(said) == 2
        assert not any("payload" in one for one in said)

    def test_rings_on_the_default_queue_for_a_receiver_that_only_others_know(self, send, memory):
        (one,) = send(queue="mail")
        age(31)
        OutboxDelivery.objects.update(receiver="shop.of_the_next_release")
        ring_batch("default")
        ((bell, _),) = memory.payloads
        assert ids_of(bell) == [one]
        assert bell.options.queue is None

    def test_rings_on_each_receivers_own_queue(self, link, send, memory):
        link(post_save, receivers.second, Customer, durable=True, queue="print")
        send(2, queue="mail")
        age(31)
        ring_batch("default")
        assert {bell.options.queue: len(ids_of(bell)) for bell, _ in memory.payloads} == {"mail": 2, "print": 2}

    def test_makes_the_row_run(self, send, memory, calls, rows):
        send(2)
        age(31)
        ring_batch("default")
        memory.deliver()
        assert len(calls) == 2
        assert rows("state") == ["succeeded", "succeeded"]

    def test_that_is_broken_off_before_the_ring_rings_after_ring_again(self, send, memory, monkeypatch, rows):
        ids = send(2)
        age(31)

        class Killed(BaseException):
            pass

        def kill() -> None:
            assert not connection.in_atomic_block  # no lock is held while the broker is talked to
            raise Killed

        monkeypatch.setitem(failpoints.actions, "relay.after_mark", kill)
        with pytest.raises(Killed):
            ring_batch("default")
        monkeypatch.delitem(failpoints.actions, "relay.after_mark")
        assert rung_for(memory) == []
        assert rows("rings") == [1, 1]
        assert 20 < rings_in() <= 30
        age(31)
        ring_batch("default")
        assert rung_for(memory) == ids

    def test_that_is_broken_off_before_the_mark_changes_nothing(self, send, memory, monkeypatch, rows):
        ids = send(1)
        age(31)

        def kill() -> None:
            raise DatabaseIsAway("gone")

        monkeypatch.setitem(failpoints.actions, "relay.before_mark", kill)
        with pytest.raises(DatabaseIsAway):
            ring_batch("default")
        monkeypatch.delitem(failpoints.actions, "relay.before_mark")
        assert rows("rings") == [0]
        ring_batch("default")
        assert rung_for(memory) == ids

    def test_does_not_ring_for_what_waits_for_another_one_of_its_key(self, send, memory, rows):
        first, *_ = send(3, order_by=_one_key)
        age(31)
        assert ring_batch("default")[:2] == (3, 1)
        assert rung_for(memory) == [first]
        assert rows("rings") == [1, 1, 1]

    def test_asks_once_for_all_keys_of_a_batch(self, send):
        send(20, order_by=_own_key)
        age(31)
        with CaptureQueriesContext(connection) as asked:
            assert ring_batch("default").rung == 20
        assert len([one for one in asked if "deferred_signals_delivery" in one["sql"]]) == 3

    @pytest.mark.parametrize("skips", [True, False])
    def test_rings_where_rows_can_be_skipped_and_where_they_cannot(self, send, memory, monkeypatch, skips):
        look_like(monkeypatch, skips=skips)
        ids = send(3)
        age(31)
        assert ring_batch("default")[:2] == (3, 3)
        assert rung_for(memory) == ids
        assert ring_batch("default")[:2] == (0, 0)

    @pytest.mark.skipif(
        connection.vendor == "sqlite",
        reason="in memory, it lets nobody write at the same time; tests/integration/test_relay.py has files",
    )
    @pytest.mark.parametrize("skips", [True, False])
    def test_marks_no_row_twice_although_two_work_at_once(self, send, memory, monkeypatch, rows, skips):
        """The second begins while the first one's transaction is open, and passes by what that has locked."""
        look_like(monkeypatch, skips=skips)
        ids = send(40)
        age(31)
        second: list[Any] = []

        def other() -> None:
            monkeypatch.delitem(failpoints.actions, "relay.before_mark")
            second.append(ring_batch("default"))
            connections["default"].close()

        thread = threading.Thread(target=other)

        def begin() -> None:
            thread.start()
            thread.join(DEADLINE)
            assert second

        monkeypatch.setitem(failpoints.actions, "relay.before_mark", begin)
        first = ring_batch("default", 20)
        assert [first[:2], second[0][:2]] == [(20, 20), (20, 20)]
        assert sorted(rung_for(memory)) == sorted(ids)
        assert set(rows("rings")) == {1}


def _one_key(sender: Any, **kwargs: Any) -> str:
    return "one"


def _own_key(sender: Any, instance: Any, **kwargs: Any) -> str:
    return str(instance.pk)


class TestABrokerThatIsAway:
    def test_uses_up_no_rings_and_puts_the_rows_back(self, send, memory, refusing, rows):
        ids = send(3)
        age(31)
        refusing.append(...)
        for _ in range(5):
            found = ring_batch("default")
            assert found[:2] == (3, 0)
            assert isinstance(found.outage, PublishError)
        assert rows("rings") == [0, 0, 0]
        refusing.clear()
        assert ring_batch("default")[:2] == (3, 3)
        assert rung_for(memory) == ids

    def test_is_tried_with_one_row_of_each_route_until_it_takes_that(self, two_queues, queues, made):
        two_queues(3, 3)
        queues.fail[""] = PublishError("The broker is away.")
        one = made()
        assert one.turn() == relay.REFUSED_PAUSE
        with CaptureQueriesContext(connection) as asked:
            assert one.turn() == relay.REFUSED_PAUSE
        marks = [query["sql"] for query in asked if query["sql"].startswith("UPDATE") and "rings" in query["sql"]]
        assert len(marks) == 2  # made, and taken back
        queues.fail.clear()
        assert one.turn() == 0
        assert sorted(queue for queue, _ in queues.taken) == ["bad", "good"]
        turns_of(one)
        assert len(queues.taken) == 6

    def test_is_tried_with_one_row_until_it_takes_that(self, send, memory, refusing, made, rows, caplog):
        ids = send(5)
        age(31)
        one = made()
        refusing.append(...)
        with caplog.at_level("INFO", "deferred_signals"):
            assert one.turn() == one.turn() == one.turn() == relay.REFUSED_PAUSE
            # It leads; and once for the outage.
            assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
            refusing.clear()
            assert one.turn() == 0
            assert len(rung_for(memory)) == 1
            assert one.turn() == 0
        assert "takes doorbells again" in caplog.text
        assert rows("rings") == [1] * 5
        assert one.rung == len(ids)

    @pytest.fixture
    def meanwhile(self, memory: MemoryBackend, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
        """Have something done after the rows are marked, and before the broker refuses the doorbells."""

        def have_done(act: Callable[[], Any]) -> None:
            publish = memory.publish

            def published(deliveries: Any) -> Any:
                act()
                return publish(deliveries)

            monkeypatch.setattr(memory, "publish", published)

        return have_done

    def test_keeps_a_row_that_a_worker_has_claimed_meanwhile(self, send, meanwhile, refusing, rows):
        (one,) = send()
        age(31)
        refusing.append(one)

        def claim() -> None:
            OutboxDelivery.objects.filter(delivery_id=one).update(due=DatabaseNow())
            assert lease.claim("default", one)

        meanwhile(claim)
        assert ring_batch("default").outage
        assert rows("rings", "state") == [(0, "running")]
        assert rings_in() > 15  # at the end of its lease

    def test_rings_no_more_for_a_row_that_somebody_has_discarded_meanwhile(self, send, meanwhile, refusing, rows):
        (one,) = send()
        age(31)
        refusing.append(one)

        def give_up() -> None:
            assert discard(OutboxDelivery.objects.using("default").filter(delivery_id=one)).changed == 1

        meanwhile(give_up)
        assert ring_batch("default").outage
        assert rows("state", "ring_at") == [("discarded", None)]

    @pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has no rows to lock")
    @pytest.mark.parametrize("skips", [True, False])
    def test_waits_for_nobody_who_has_locked_a_row_meanwhile(self, send, memory, locked, monkeypatch, rows, skips):
        look_like(monkeypatch, skips=skips)
        ids = send(3)
        age(31)

        def publish(deliveries: Sequence[Delivery]) -> list[Any]:
            locked(ids[1])
            return [(one, PublishError("The broker is away.")) for one in deliveries]

        monkeypatch.setattr(memory, "publish", publish)
        assert ring_batch("default").outage
        assert rows("rings") == [0, 1, 0]

    @pytest.mark.parametrize("error", [ConfigurationError("no app"), OSError("gone"), OperationalError("gone")])
    def test_is_whatever_does_not_tell_of_one_queue(self, error):
        assert may_be_outage(error)

    @pytest.mark.parametrize(
        "cause",
        [
            redis_errors.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
            redis_errors.ReadOnlyError("You can't write against a read only replica."),
            redis_errors.MasterDownError("Link with MASTER is down and replica-serve-stale-data is set to 'no'."),
            redis_errors.ResponseError("MISCONF Redis is configured to save RDB snapshots, but ..."),
            redis_errors.ResponseError("NOREPLICAS Not enough good replicas to write."),
            redis_errors.ConnectionError("Connection refused"),
        ],
    )
    def test_is_also_one_that_answers_and_takes_nothing_for_any_queue(self, cause, on_redis):
        assert may_be_outage(caused_by(cause))


@pytest.fixture
def on_redis(monkeypatch) -> None:
    """The app's broker is a Redis, which nobody connects to."""
    app = Celery("on_redis", broker="redis://127.0.0.1:1/0", set_as_current=False)
    monkeypatch.setattr(refusal, "app_or_default", lambda: app)


def caused_by(cause: Exception) -> OperationalError:
    """As kombu raises what a broker has said."""
    error = OperationalError(str(cause))
    error.__cause__ = cause
    return error


WRONG_TYPE = redis_errors.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
#: What says that one queue, or one receiver, is at fault.
OF_ONE_QUEUE = [Unroutable("mail", "mail"), Refused("full"), caused_by(WRONG_TYPE), TypeError("headers")]


class Queues:
    """In the place of the memory backend's broker: some of its queues fail, each in its way. ``taken`` by others."""

    def __init__(self, memory: MemoryBackend) -> None:
        #: By the queue, or with "" for all of them.
        self.fail: dict[str | None, Exception] = {}
        self.taken: list[tuple[str | None, Any]] = []
        self.flushes = 0
        #: Called for each flush.
        self.then: Callable[[], None] = lambda: None

    def publish(self, deliveries: Sequence[Delivery]) -> list[tuple[Delivery, Exception]]:
        self.flushes += 1
        self.then()
        failures = []
        for one in deliveries:
            error = self.fail.get(one.options.queue) or self.fail.get("")
            if error:
                failures.append((one, error))
            else:
                self.taken += [(one.options.queue, row) for row in ids_of(one)]
        return failures


@pytest.fixture
def queues(memory: MemoryBackend, monkeypatch: pytest.MonkeyPatch) -> Queues:
    made = Queues(memory)
    monkeypatch.setattr(memory, "publish", made.publish)
    return made


@pytest.fixture
def two_queues(link, queues) -> Callable[..., None]:
    """Make deliveries due: so many on the queue ``bad``, each with its own doorbell, and later ones on ``good``."""
    link(post_save, receivers.first, Customer, durable=True, queue="bad", time_limit=10)
    link(post_save, receivers.second, Customer, durable=True, queue="good")

    def make(bad: int, good: int) -> None:
        with transaction.atomic():
            for number in range(max(bad, good)):
                Customer.objects.create(name=str(number))
        queues.taken.clear()
        queues.flushes = 0
        for name, count in (("first", bad), ("second", good)):
            found = OutboxDelivery.objects.filter(receiver=f"tests.receivers.{name}").order_by("number")
            found.filter(pk__in=[row.pk for row in found[count:]]).delete()
        age(60, receiver="tests.receivers.first")
        age(31, receiver="tests.receivers.second")

    return make


def rings_of(name: str) -> set[int]:
    return set(OutboxDelivery.objects.filter(receiver=f"tests.receivers.{name}").values_list("rings", flat=True))


def turns_of(one: Relay) -> list[float]:
    """What its turns come to, until it has nothing to do."""
    found: list[float] = []
    while not found or found[-1] == 0:
        assert len(found) < 10
        found.append(one.turn())
    return found


class TestAQueueThatRefuses:
    @pytest.mark.parametrize("error", OF_ONE_QUEUE)
    def test_is_not_a_broker_that_is_away(self, send, queues, on_redis, rows, caplog, error):
        send(2)
        age(31)
        queues.fail[""] = error
        assert ring_batch("default") == (2, 0, None)
        assert rows("rings") == [1, 1]  # not at once again
        assert caplog.text.count("Deliveries to tests.receivers.first cannot be rung for") == 1

    @pytest.mark.parametrize(
        "error", [*OF_ONE_QUEUE, PublishError("The broker did not answer for 1 s."), OSError("gone")]
    )
    def test_keeps_nobody_waiting_whatever_it_is_that_it_says(
        self, two_queues, queues, made, on_redis, error, caplog, monkeypatch
    ):
        """Neither those that are due with it, nor those that come due later: it is rung for ever more seldom."""
        two_queues(120, 3)
        queues.fail["bad"] = error
        one = made()
        assert turns_of(one)[-1] not in {0, relay.REFUSED_PAUSE}
        assert {queue for queue, _ in queues.taken} == {"good"}
        assert (rings_of("first"), rings_of("second")) == ({1}, {1})
        assert rings_in() > 25
        assert "does not take doorbells" not in caplog.text
        said = [record for record in caplog.records if "cannot be rung for" in record.getMessage()]
        assert len(said) == 1
        assert said[0].getMessage().endswith("(120 doorbells)")
        flushes = queues.flushes
        assert one.turn() > 0
        assert queues.flushes == flushes

    def test_takes_them_when_it_can_again(self, two_queues, queues, made):
        two_queues(3, 1)
        queues.fail["bad"] = Refused("full")
        one = made()
        turns_of(one)
        queues.fail.clear()
        age(31, receiver="tests.receivers.first")
        turns_of(one)
        assert [queue for queue, _ in queues.taken] == ["good", "bad", "bad", "bad"]

    def test_alone_in_a_way_that_says_nothing_is_held_for_the_broker_until_another_one_takes_something(
        self, two_queues, queues, made, caplog
    ):
        two_queues(120, 0)
        queues.fail["bad"] = PublishError("The broker did not answer for 1 s.")
        one = made()
        assert one.turn() == one.turn() == relay.REFUSED_PAUSE
        assert rings_of("first") == {0}
        two_queues(120, 3)
        assert turns_of(one)[-1] > 0
        assert {queue for queue, _ in queues.taken} == {"good"}
        assert len({row for _, row in queues.taken}) == 3
        assert (rings_of("first"), rings_of("second")) == ({1}, {1})

    def test_is_passed_by_also_where_its_rows_are_more_than_are_looked_at(self, two_queues, queues, made, monkeypatch):
        monkeypatch.setattr(probing, "WINDOW", 10)
        monkeypatch.setattr(ring_batch, "__defaults__", (10, None))
        two_queues(35, 1)
        queues.fail["bad"] = PublishError("The broker did not answer for 1 s.")
        one = made()
        for _ in range(60):
            one.turn()
            if queues.taken:
                break
        assert queues.flushes < 20
        assert rings_of("second") == {1}

    def test_is_told_from_a_broker_that_goes_away_between_two_routes(self, two_queues, queues, made, rows):
        two_queues(2, 2)

        def go_away() -> None:
            if queues.flushes == 2:
                queues.fail[""] = PublishError("The broker is away.")

        queues.then = go_away
        found = ring_batch("default")
        assert (found.due, found.rung) == (4, 2)
        assert isinstance(found.outage, PublishError)
        assert (rings_of("first"), rings_of("second")) == ({1}, {0})

    def test_is_told_from_a_broker_that_was_away_for_a_moment(self, two_queues, queues, made, rows):
        """What failed meanwhile is rung for at once, and not when it would be its turn again."""
        two_queues(2, 2)
        queues.fail["bad"] = PublishError("The broker is away.")

        def come_back() -> None:
            if queues.flushes == 2:
                queues.fail.clear()

        queues.then = come_back
        assert ring_batch("default") == (4, 4, None)
        assert len({row for queue, row in queues.taken if queue == "bad"}) == 2


class TestTurns:
    def test_an_idle_leader_asks_one_question_a_second(self, made, send):
        send()
        one = made()
        one.turn()
        with CaptureQueriesContext(connection) as asked:
            assert one.turn() == relay.POLL == 1.0
        assert len(asked) == 1
        assert "ring_at" in asked[0]["sql"]

    def test_an_idle_minute_of_a_leader_is_no_more_than_the_documented_statements(self, made, monkeypatch):
        clock = itertools.count(time.monotonic())
        now = next(clock)
        for module in (leader, pruning):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
        one = made()
        one.turn()
        with CaptureQueriesContext(connection) as asked:
            for _ in range(60):
                now = next(clock)
                assert one.turn() == 1.0
        words = Counter(query["sql"].split()[0] for query in asked)
        assert words == {"SELECT": 61, "UPDATE": 12}  # docs/relay.md: 1.2 a second

    def test_one_leaves_nothing_behind_in_the_session_of_a_pooled_connection(self, made, send):
        send(3, order_by=_own_key)
        age(31)
        one = made()
        with CaptureQueriesContext(connection) as asked:
            assert [one.turn(), one.turn()] == [0, 1.0]
            one.leadership.give_up()
        words = {query["sql"].split()[0] for query in asked if not query["sql"].startswith("-- ")}
        assert words <= {"SELECT", "INSERT", "UPDATE", "DELETE", "BEGIN", "COMMIT", "SHOW"}
        assert not any("advisory" in query["sql"] for query in asked)

    def test_one_sleeps_until_the_next_row_is_due_if_that_is_sooner(self, made, send):
        send()
        age(29.5)
        assert 0 <= made().turn() <= 0.5

    def test_one_whose_batch_had_something_does_not_sleep(self, made, send):
        send()
        age(31)
        assert made().turn() == 0

    def test_all_but_one_do_nothing(self, made, send, memory):
        send()
        first, second = made(), made()
        assert first.turn() == 1.0
        age(31)
        assert second.turn() == leader.RENEWAL
        assert rung_for(memory) == []
        assert first.turn() == 0
        assert len(rung_for(memory)) == 1

    def test_one_takes_over_when_the_leader_gives_up(self, made):
        first, second = made(), made()
        first.turn()
        second.turn()
        first.leadership.give_up()
        second.leadership.look_again()
        second.turn()
        assert (first.leadership.leads, second.leadership.leads) == (False, True)

    def test_without_a_table_one_looks_for_it_now_and_then(self, made, monkeypatch):
        one = made()
        monkeypatch.setattr(relay, "has_table", lambda alias: False)
        assert one.turn() == relay.NO_TABLE_PAUSE
        monkeypatch.undo()
        assert one.turn() == 1.0

    def test_the_leader_prunes_also_while_it_rings_or_the_broker_is_away(self, made, send, rows, refusing, monkeypatch):
        monkeypatch.setattr(pruning, "BATCH", 1)
        ids = send(4, time_limit=10)
        gone = OutboxDelivery.objects.filter(delivery_id__in=ids[:3])
        gone.update(state=State.SUCCEEDED, ring_at=None, due=None, finished=DatabaseNow(-90_000))
        age(31)
        one = made()
        refusing.append(...)
        assert one.turn() == relay.REFUSED_PAUSE
        assert len(rows("state")) == 3
        refusing.clear()
        assert one.turn() == 0
        assert len(rows("state")) == 2

    def test_the_leader_prunes_what_was_finished_before_the_retention(self, made, send, rows, monkeypatch):
        monkeypatch.setattr(pruning, "BATCH", 2)
        send(3)
        OutboxDelivery.objects.update(state=State.SUCCEEDED, ring_at=None, due=None, finished=DatabaseNow(-90_000))
        one = made()
        assert one.turn() == 0  # a batch, and then it looks whom to ring for
        assert rows("state") == ["succeeded"]
        assert one.turn() == 1.0
        assert rows("state") == []


@pytest.fixture
def locked() -> Iterator[Callable[..., Any]]:
    """Lock rows in a transaction of somebody else's, until the block or the test ends."""
    go_on = threading.Event()
    threads = []

    def lock(*ids: Any) -> threading.Event:
        is_locked = threading.Event()

        def hold() -> None:
            with transaction.atomic():
                rows = OutboxDelivery.objects.select_for_update().filter(delivery_id__in=ids)
                assert len(list(rows)) == len(ids)
                is_locked.set()
                go_on.wait(DEADLINE)
            connections["default"].close()

        threads.append(threading.Thread(target=hold))
        threads[-1].start()
        assert is_locked.wait(DEADLINE)
        return go_on

    yield lock
    go_on.set()
    for thread in threads:
        thread.join(DEADLINE)


LOCKS_ROWS = pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has no rows to lock")


def look_like(monkeypatch: pytest.MonkeyPatch, *, skips: bool) -> None:
    """Have the database look like one with SKIP LOCKED, or like MariaDB 10.5, which has only NOWAIT.

    Also to connections of other threads. SQLite, which has no rows to lock, reads without a lock then.
    """
    features = {"has_select_for_update_skip_locked": skips}
    if connection.vendor == "sqlite":
        features |= {"has_select_for_update": True, "has_select_for_update_nowait": True}
        monkeypatch.setattr(type(connection.ops), "for_update_sql", lambda self, **how: "")
    for name, can in features.items():
        connection.features.__dict__.pop(name, None)  # what this one has found out itself
        monkeypatch.setattr(type(connection.features), name, can)


@pytest.fixture
def cannot_skip(monkeypatch) -> None:
    look_like(monkeypatch, skips=False)


@pytest.mark.usefixtures("cannot_skip")
class TestWithoutSkipLocked:
    @LOCKS_ROWS
    def test_what_is_locked_is_passed_by_at_once(self, made, send, memory, locked, rows):
        ids = send(20)
        age(31)
        go_on = locked(ids[3], ids[17])
        one = made()
        with CaptureQueriesContext(connection) as asked:
            assert one.turn() == 0
        assert sorted(rung_for(memory)) == sorted(set(ids) - {ids[3], ids[17]})
        assert sum("FOR UPDATE" in query["sql"] for query in asked) <= 2 * 20
        assert one.turn() == relay.POLL
        go_on.set()
        wait_until(lambda: one.turn() == 0, "the locks are gone")
        wait_until(lambda: one.turn() > 0, "there is no more")
        assert sorted(rung_for(memory)) == sorted([ids[3], ids[17]])
        assert set(rows("rings")) == {1}

    @LOCKS_ROWS
    def test_no_row_is_held_while_another_one_is_locked(self, send, locked):
        """A worker can claim all of them but that one at any moment: so it can when the relay comes to that one."""
        first, second = send(2)
        age(31)
        locked(second)
        assert ring_batch("default")[:2] == (1, 1)
        OutboxDelivery.objects.filter(delivery_id=first).update(due=DatabaseNow(-1))
        assert isinstance(lease.claim("default", first), lease.Claim)

    @pytest.mark.parametrize("code", [1205, 3572])
    def test_the_others_are_marked_where_one_is_locked(self, send, memory, rows, code):
        ids = send(7, order_by=_own_key)
        age(31)
        number = OutboxDelivery.objects.get(delivery_id=ids[4]).number

        def lock(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            if sql.startswith("SELECT") and "delivery_id" in sql and number in params:
                raise DatabaseIsAway("locked") from Exception(code, "lock wait timeout")
            return execute(sql, params, many, context)

        with connection.execute_wrapper(lock):
            assert ring_batch("default")[:2] == (6, 6)
        assert rung_for(memory) == ids[:4] + ids[5:]
        assert rows("rings") == [1, 1, 1, 1, 0, 1, 1]

    def test_an_error_of_another_kind_is_the_relays(self, send, monkeypatch, rows):
        send(2)
        age(31)

        def break_off() -> None:
            raise DatabaseIsAway("gone")

        monkeypatch.setitem(failpoints.actions, "relay.before_mark", break_off)
        with pytest.raises(DatabaseIsAway, match="gone"):
            ring_batch("default")
        assert rows("rings") == [0, 0]


class TestRowsThatOthersHaveLocked:
    @LOCKS_ROWS
    def test_do_not_keep_the_relay_busy_while_they_are_due(self, made, send, memory, locked, rows):
        ids = send(3)
        age(31)
        go_on = locked(ids[0])
        one = made()
        assert one.turn() == 0
        assert rung_for(memory) == ids[1:]
        with CaptureQueriesContext(connection) as asked:
            assert one.turn() == relay.POLL
        assert len(asked) < 10
        assert rows("rings") == [0, 1, 1]
        go_on.set()
        wait_until(lambda: one.turn() == 0, "the lock is gone")
        assert rung_for(memory) == ids[:1]

    @pytest.fixture
    def all_locked(self, monkeypatch) -> None:
        """Whatever is due, somebody else has it."""
        monkeypatch.setattr(relay, "ring_batch", lambda alias, **which: Batch(0, 0, None))

    def test_do_not_keep_it_from_what_is_due_before_its_next_look(self, made, send, all_locked):
        first, _ = send(2)
        age(29.6)
        age(31, delivery_id=first)
        assert 0 < made().turn() <= 0.4

    def test_do_not_keep_it_from_pruning(self, made, send, rows, all_locked):
        first, second = send(2)
        age(31)
        OutboxDelivery.objects.filter(delivery_id=first).update(
            state=State.SUCCEEDED, ring_at=None, due=None, finished=DatabaseNow(-90_000)
        )
        assert made().turn() == relay.POLL
        assert rows("delivery_id") == [second]


class TestTheLeader:
    def test_leads_until_its_lease_is_over(self):
        first, second = Leadership("default"), Leadership("default")
        assert first.is_mine()
        assert not second.is_mine()
        Lock.objects.filter(name="relay").update(until=DatabaseNow(-1))
        assert not second.is_mine()  # it looks every few seconds
        second.look_again()
        assert second.is_mine()
        first.look_again()
        assert not first.is_mine()

    def test_renews_its_lease(self):
        one = Leadership("default")
        one.is_mine()
        Lock.objects.filter(name="relay").update(until=DatabaseNow(1))
        one.look_again()
        assert one.is_mine()
        until, now = Lock.objects.values_list("until", DatabaseNow()).get(name="relay")
        assert until - now > timedelta(seconds=10)
        assert Lock.objects.get(name="relay").turns == 2

    def test_asks_one_question_to_go_on_and_the_others_ask_one_to_wait(self):
        first, second = Leadership("default"), Leadership("default")
        first.is_mine()
        for one, leads in ((first, True), (second, False)):
            one.look_again()
            with CaptureQueriesContext(connection) as asked:
                assert one.is_mine() == leads
            assert len(asked) == 1

    def test_that_is_none_any_more_gives_nothing_up(self):
        first, second = Leadership("default"), Leadership("default")
        first.is_mine()
        Lock.objects.filter(name="relay").update(until=None)
        second.is_mine()
        first.give_up()
        second.look_again()
        assert second.is_mine()
        assert Lock.objects.get(name="relay").holder == second.me
        first.give_up()

    def test_that_is_known_to_be_gone_is_replaced_at_once(self):
        first, second = Leadership("default"), Leadership("default")
        first.is_mine()
        leader.depose("default", os.getpid() + 1)
        assert not second.is_mine()
        leader.depose("default", os.getpid())
        second.look_again()
        assert second.is_mine()

    def test_believes_in_nothing_while_the_database_is_away(self, monkeypatch):
        one = Leadership("default")
        assert one.is_mine()

        def away(self: Any, *, led: bool) -> bool:
            raise DatabaseIsAway("away")

        monkeypatch.setattr(Leadership, "_take", away)
        one.look_again()
        with pytest.raises(DatabaseIsAway):
            one.is_mine()
        assert not one.leads


class TestALostChild:
    @pytest.fixture
    def child(self) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        yield process
        process.kill()
        process.wait()
        if process.stdin:
            process.stdin.close()

    @pytest.fixture
    def held(self, send, child) -> Callable[[], None]:
        """Have a child hold the row."""

        def hold(count: int = 1) -> None:
            for one in send(count):
                assert lease.claim("default", one)
            OutboxDelivery.objects.update(worker=processes.name_of(child.pid))

        return hold

    def test_is_not_waited_for_until_its_lease_ends(self, held, child, made, memory, rows):
        held()
        one = made()
        assert 0.9 < one.turn() <= 1.0
        child.kill()
        child.wait()
        one.lost(child.pid, "signal 9 (SIGKILL)")
        assert one.turn() == 0
        assert rows("loss", "state") == [("signal 9 (SIGKILL)", "running")]
        (key,) = rung_for(memory)
        again = lease.claim("default", key)
        assert isinstance(again, lease.Claim)
        assert again.lost == f"{processes.name_of(child.pid)}, signal 9 (SIGKILL)"
        assert rows("crashes") == [1]

    def test_that_still_lives_is_left_alone_until_it_is_gone(self, held, child, made, rows):
        held()
        one = made()
        one.lost(child.pid, "hard time limit of 5 s")
        assert one.turn() == losses.PAUSE
        assert rows("loss") == [""]
        child.kill()
        child.wait()
        assert one.turn() == 0
        assert rows("loss") == ["hard time limit of 5 s"]

    def test_that_stays_is_not_watched_for_ever(self, held, child, made, monkeypatch):
        held()
        one = made()
        one.lost(child.pid, "hard time limit of 5 s")
        monkeypatch.setattr(losses, "PATIENCE", 0.0)
        assert one.turn() > losses.PAUSE

    def test_is_told_also_by_a_relay_that_does_not_lead(self, held, child, made, rows):
        made().turn()
        held()
        second = made()
        second.lost(child.pid, "signal 9 (SIGKILL)")
        assert second.turn() == losses.PAUSE
        child.kill()
        child.wait()
        assert second.turn() == leader.RENEWAL
        assert rows("loss") == ["signal 9 (SIGKILL)"]

    def test_changes_no_row_of_another_process_or_that_is_finished(self, held, child, rows, send):
        held(2)
        first = OutboxDelivery.objects.order_by("number").first()
        assert first
        OutboxDelivery.objects.filter(pk=first.pk).update(state=State.SUCCEEDED, ring_at=None, due=None)
        (other,) = send()
        assert lease.claim("default", other)
        assert losses.end_leases("default", child.pid, "signal 9 (SIGKILL)") == 1
        assert rows("loss") == ["", "signal 9 (SIGKILL)", ""]

    @pytest.mark.parametrize(("before", "pause"), [(4, 8), (9, 30), (10_000, 30)])
    def test_runs_again_after_a_pause_if_it_was_not_the_first(self, held, child, made, memory, rows, before, pause):
        held(2)
        first, second = OutboxDelivery.objects.order_by("number")
        OutboxDelivery.objects.filter(pk=first.pk).update(
            crashes=before, due=DatabaseNow(300), ring_at=DatabaseNow(300)
        )
        assert losses.end_leases("default", child.pid, "signal 9 (SIGKILL)") == 2
        assert rows("loss") == ["signal 9 (SIGKILL)"] * 2
        found = OutboxDelivery.objects.filter(due__gt=DatabaseNow(pause - 4), due__lte=DatabaseNow(pause))
        assert [row.pk for row in found] == [first.pk]
        made().turn()
        assert rung_for(memory) == [second.delivery_id]

    def test_with_the_number_of_somebody_elses_process_is_gone(self, monkeypatch):
        def not_yours(pid: int, number: int) -> None:
            raise PermissionError

        monkeypatch.setattr(os, "kill", not_yours)
        assert losses.is_gone(1)


class TestRunning:
    def test_it_rings_until_it_is_stopped_and_gives_its_lead_up(self, running, send, memory):
        one = running()
        wait_until(lambda: one._pruning._done is not None, "it leads, and has nothing more to do")
        (key,) = send()
        age(31)
        wait_until(lambda: len(memory.payloads) == 1, "it rings")
        assert rung_for(memory) == [key]
        end(one)
        assert Lock.objects.get(name="relay").until is None
        assert not one.leadership.leads

    def test_it_wakes_when_it_is_told_of_a_loss(self, running, memory, send, monkeypatch):
        monkeypatch.setattr(relay, "POLL", 3600.0)
        one = running()
        wait_until(lambda: one._pruning._done is not None, "it leads, and has nothing more to do")
        (key,) = send()
        assert lease.claim("default", key)
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        OutboxDelivery.objects.update(worker=processes.name_of(gone.pid))
        one.lost(gone.pid, "exitcode 0")
        wait_until(lambda: bool(memory.payloads), "it rings")

    def test_it_waits_for_a_database_that_is_away(self, running, monkeypatch, caplog, send, memory):
        monkeypatch.setattr(relay, "AWAY_PAUSE", 0.01)
        asked: list[float] = []

        def away(self: Any) -> bool:
            asked.append(time.monotonic())
            raise DatabaseIsAway("the database system is starting up")

        caplog.set_level("INFO", "deferred_signals")
        with monkeypatch.context() as patch:
            patch.setattr(Leadership, "is_mine", away)
            one = running()
            wait_until(lambda: len(asked) > 3, "it tries again")
        wait_until(lambda: one.leadership.leads, "it leads")
        wait_until(lambda: "works again" in caplog.text, "it says so")
        assert caplog.text.count("cannot work, and tries again: OperationalError: the database system") == 1
        assert not any(record.exc_info for record in caplog.records)
        pauses = [after - before for before, after in itertools.pairwise(asked)]
        assert pauses[0] >= 0.01
        assert pauses[1] >= 0.02

    def test_it_tells_of_an_error_of_another_kind_with_its_traceback(self, made, monkeypatch, caplog):
        one = made()

        def wrong(self: Any) -> float:
            raise ZeroDivisionError

        monkeypatch.setattr(Relay, "turn", wrong)
        assert one._turn_or_trouble() == relay.AWAY_PAUSE
        (record,) = caplog.records
        assert record.exc_info

    def test_it_drops_a_connection_that_cannot_even_be_closed(self, made, monkeypatch):
        one = made()

        def away(self: Any) -> float:
            raise DatabaseIsAway("away")

        def broken(self: Any) -> None:
            raise DatabaseError("broken")

        monkeypatch.setattr(Relay, "turn", away)
        with monkeypatch.context() as patch:
            patch.setattr(type(connections["default"]), "close", broken)
            assert one._turn_or_trouble() == relay.AWAY_PAUSE

    def test_it_ends_although_the_database_is_away(self, made, monkeypatch, caplog):
        one = made()
        one.turn()
        one.stop()

        def away(self: Any) -> None:
            raise DatabaseIsAway("away")

        monkeypatch.setattr(Leadership, "give_up", away)
        with caplog.at_level("INFO", "deferred_signals"):
            one.run()
        assert "could not say that it ends" in caplog.text

    def test_it_also_runs_in_a_process_with_more_than_a_thousand_files(self, running, memory, send):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
        with open(os.devnull) as first, ExitStack() as files:  # noqa: PTH123 - no more than a file
            while (number := os.dup(first.fileno())) < 1100:
                files.callback(os.close, number)
            files.callback(os.close, number)
            send(1)
            age(60)
            one = running()
            wait_until(lambda: rung_for(memory), "the row is rung for")
            end(one)


class TestDraining:
    def test_rings_for_everything_that_is_due(self, send, memory, monkeypatch):
        monkeypatch.setattr(ring_batch, "__defaults__", (7, None))
        ids = send(20)
        age(31)
        assert drain(["default", "other"]) == {"default": (20, 20, None), "other": (0, 0, None)}
        assert rung_for(memory) == ids

    def test_stops_where_the_broker_refuses(self, send, refusing):
        send(3)
        age(31)
        refusing.append(...)
        done = drain(["default"])["default"]
        assert done[:2] == (3, 0)
        assert isinstance(done.outage, PublishError)


@pytest.mark.skipif(connection.vendor != "postgresql", reason="elsewhere the times of the tables are in UTC")
class TestTheHourThatThereIsTwice:
    """At the end of summer time, where a session has a time zone that changes its clock."""

    @pytest.fixture(autouse=True)
    def _without_time_zones(self) -> Iterator[None]:
        connection.close()
        with override_settings(USE_TZ=False):
            yield
            connection.close()

    @pytest.fixture
    def summer_ends_in(self, tmp_path: Path) -> Iterator[Callable[[float], None]]:
        """Give the session a time zone whose summer time ends in so many seconds, and Python the same."""

        def end_it(seconds: float) -> None:
            end = datetime.now(UTC) + timedelta(hours=1, seconds=seconds)
            days = [min(one.timetuple().tm_yday, 365) for one in (end + timedelta(days=180), end)]
            zone = f"WIN0SUM,J{days[0]}/0,J{days[1]}/{end:%H:%M:%S}"
            block = b"TZif2" + bytes(15) + struct.pack(">6llbb", 0, 0, 0, 0, 1, 4, 0, 0, 0) + b"WIN\0"
            file = tmp_path / zone
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(2 * block + f"\n{zone}\n".encode())
            zoneinfo.reset_tzpath([str(tmp_path), *zoneinfo.TZPATH])
            with connection.cursor() as cursor:
                cursor.execute("SET TIME ZONE %s", [zone])

        yield end_it
        zoneinfo.reset_tzpath()

    def test_what_was_due_before_it_is_rung_for_in_it(self, send, memory, summer_ends_in):
        ids = send()
        OutboxDelivery.objects.update(due=DatabaseNow(-30), ring_at=DatabaseNow(-30))
        summer_ends_in(-10)
        Relay("default").turn()
        assert rung_for(memory) == ids

    def test_what_is_due_in_it_is_waited_for_without_asking_all_the_time(self, send, summer_ends_in):
        send()
        OutboxDelivery.objects.update(ring_at=DatabaseNow(30))
        summer_ends_in(10)
        assert Relay("default").turn() > 0

    def test_how_late_a_delivery_is_and_whether_somebody_rings_is_told_as_ever(self, send, summer_ends_in):
        send()
        OutboxDelivery.objects.update(due=DatabaseNow(-30))
        Leadership("default").is_mine()
        summer_ends_in(-10)
        assert 30 <= figures.oldest("default") < 90
        summer_ends_in(5)
        leads, age = figures.relay("default")
        assert leads
        assert age is not None
        assert age < 60
