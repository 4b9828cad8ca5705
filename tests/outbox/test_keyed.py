"""Deliveries with a key: one after another (``order_by``), or only the last of those that wait (``unique``)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models.signals import post_save

from deferred_signals import Delivery, Retry, Signal
from deferred_signals.bell import read
from deferred_signals.outbox import keyed, succession
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.lease import Claim, claim
from deferred_signals.outbox.models import Lock, OutboxDelivery, State
from deferred_signals.outbox.parked import parked
from deferred_signals.outbox.redelivery import discard, redeliver
from deferred_signals.outbox.ringing import ring
from deferred_signals.signals import delivery_finished
from tests import receivers
from tests.receivers import first, second, troubled
from tests.shop.models import Article, Customer

placed: Any = Signal()

pytestmark = pytest.mark.django_db(transaction=True)

Send = Callable[..., OutboxDelivery]


def now(one: Any) -> OutboxDelivery:
    """A row as it is now."""
    return OutboxDelivery.objects.get(number=one.number)


def change(one: OutboxDelivery, **columns: Any) -> None:
    assert OutboxDelivery.objects.filter(delivery_id=one.delivery_id).update(**columns)


def lose(one: OutboxDelivery) -> None:
    """Let the lease of a row be over."""
    change(one, due=DatabaseNow(-1))


def held(one: OutboxDelivery) -> Claim:
    """The claim of a row that can be claimed."""
    made = claim("default", one.delivery_id)
    assert isinstance(made, Claim)
    return made


def may_run(one: OutboxDelivery) -> bool:
    """Whether a row can be claimed; it is given back."""
    made = claim("default", one.delivery_id)
    if isinstance(made, Claim):
        assert made.release()
    return isinstance(made, Claim)


def ran(calls: list[Any]) -> list[Any]:
    return [kwargs["number"] for _, _, kwargs in calls]


def rung_for(memory: Any) -> list[Any]:
    """The ids in the doorbells that wait."""
    return [one for _, payload in memory.payloads for one in read(payload).ids]


def drain(memory: Any) -> None:
    while memory.payloads:
        memory.deliver()


@pytest.fixture
def send() -> Send:
    """Send to the one receiver, with two keys; the row."""

    def one(key: Any, number: int = 0, other: Any = None) -> OutboxDelivery:
        with transaction.atomic():
            ((_, delivery),) = placed.send(sender=None, key=key, number=number, other=other)
        assert isinstance(delivery, Delivery)
        return OutboxDelivery.objects.get(delivery_id=delivery.id)

    return one


@pytest.fixture
def run(memory: Any) -> Callable[..., list[Any]]:
    """Ring for rows and run what may run of them; the ids that are rung for after that."""

    def one(*rows: OutboxDelivery) -> list[Any]:
        memory.payloads.clear()
        assert ring("default", rows)
        memory.deliver()
        return rung_for(memory)

    return one


class TestOrder:
    @pytest.fixture(autouse=True)
    def _ordered(self, link: Any) -> None:
        link(placed, first, durable=True, order_by="key")

    def test_is_that_of_the_sends_however_the_doorbells_come(self, send, memory, calls, rows):
        for number in range(5):
            send("a", number)
        memory.payloads.reverse()
        drain(memory)
        assert ran(calls) == [0, 1, 2, 3, 4]
        assert rows("state") == ["succeeded"] * 5

    def test_is_nothing_to_those_of_another_key_nor_to_those_without_one(self, send):
        held(send("a"))
        assert may_run(send("b"))
        assert may_run(send(None))
        assert may_run(send(None))

    def test_keeps_the_next_from_running_while_one_runs(self, send):
        one, two = held(send("a")), send("a")
        assert not may_run(two)
        assert one.complete()
        assert may_run(two)

    def test_has_a_row_that_became_visible_late_run_next(self, send):
        one, three, late = held(send("a")), send("a"), send("a")
        change(late, number=one.row.number - 1)
        assert not may_run(late)
        assert one.complete()
        assert not may_run(three)
        assert may_run(late)

    def test_leaves_one_whose_worker_was_lost_its_turn(self, send):
        one, two, late = send("a"), send("a"), send("a")
        held(one)
        change(late, number=one.number - 1)
        lose(one)
        assert not may_run(two)
        assert not may_run(late)
        again = held(one)
        assert again.row.crashes == 1
        assert again.complete()
        assert may_run(late)

    def test_has_the_later_ones_wait_for_a_retry(self, send):
        one, two = held(send("a")), send("a")
        assert one.again(60)
        assert not may_run(two)
        change(one.row, due=DatabaseNow())
        assert held(one.row).complete()
        assert may_run(two)

    def test_goes_on_after_a_row_that_was_discarded(self, send):
        one, two = held(send("a")), send("a")
        assert one.end(State.DISCARDED)
        assert may_run(two)

    def test_is_kept_by_a_row_that_was_given_back(self, send):
        one, two = held(send("a")), send("a")
        assert one.release()
        assert not may_run(two)
        assert may_run(one.row)

    def test_is_that_of_each_receiver_for_itself(self, link, memory, calls, rows):
        link(placed, second, durable=True, order_by="key")
        with transaction.atomic():
            placed.send(sender=None, key="a", number=1)
        one, other = OutboxDelivery.objects.all()
        assert one.order_key != other.order_key
        held(one)
        assert may_run(other)

    def test_does_not_tell_keys_apart_less_than_python_does(self, send):
        held(send("a"))
        for key in ("A", "a ", "ä", "á"):
            assert may_run(send(key)), key

    def test_goes_through_a_doorbell_for_many_of_a_key_and_rings_for_none_of_them_again(self, memory, calls):
        with transaction.atomic():
            for number in range(10):
                placed.send(sender=None, key="a", number=number)
        assert len(memory.payloads) == 1
        memory.deliver()
        assert ran(calls) == list(range(10))
        assert memory.payloads == []


class TestTheEndOfARun:
    @pytest.fixture(autouse=True)
    def _ordered(self, link: Any) -> None:
        link(placed, troubled, durable=True, order_by="key")

    def test_rings_for_the_next_whose_own_doorbell_came_too_early(self, send, run):
        one, two, three = send("a"), send("a"), send("a")
        assert run(three) == run(two) == []
        assert run(one) == [two.delivery_id]

    def test_of_one_without_a_key_rings_for_none(self, send):
        one = held(send(None))
        send(None)
        assert one.complete()
        assert succession.following("default", one.row) == []

    def test_rings_for_nothing_else(self, send, run):
        one, other = send("a"), send("b")
        send("b")
        assert run(one) == []
        assert run(other) != []

    def test_in_a_retry_rings_for_none(self, send, run):
        receivers.troubles[:] = [Retry("later", countdown=60)]
        one = send("a")
        send("a")
        assert run(one) == []
        assert now(one).state == State.PENDING

    def test_in_death_rings_for_none_as_its_key_is_parked(self, send, run, link):
        receivers.troubles[:] = [KeyboardInterrupt()]
        one = send("a")
        send("a")
        change(one, payload="of nobody")
        assert run(one) == []
        assert now(one).state == State.DEAD

    def test_rings_for_one_that_came_late(self, send, run):
        one, three, late = send("a"), send("a"), send("a")
        claimed = held(one)
        change(late, number=one.number - 1)
        assert claimed.complete()
        assert [row.delivery_id for row in succession.following("default", one)] == [late.delivery_id]
        assert run(late) == [three.delivery_id]

    def test_that_nobody_tells_of_is_noticed_by_the_relay_a_lease_after_the_claim(self, send):
        one, two = send("a"), send("a")
        # As the relay may have left it, which rings ever more seldom.
        change(two, ring_at=DatabaseNow(3600), rings=7)
        held(one)
        assert now(two).rings == 0
        assert OutboxDelivery.objects.filter(number=two.number, ring_at__lte=DatabaseNow(31)).exists()

    def test_does_not_have_the_relay_ring_sooner_for_what_is_not_due(self, send):
        one, two = send("a"), send("a")
        change(two, due=DatabaseNow(3600), ring_at=DatabaseNow(3600))
        held(one)
        assert OutboxDelivery.objects.filter(number=two.number, ring_at__gt=DatabaseNow(3000)).exists()

    def test_does_not_fail_when_the_database_is_gone_just_then(self, send, run, monkeypatch):
        def away(*_: Any) -> Any:
            raise DatabaseError("away")

        one = send("a")
        send("a")
        monkeypatch.setattr(succession, "following", away)
        assert run(one) == []
        assert now(one).state == State.SUCCEEDED


class TestWhatIsPassedOn:
    def test_is_what_the_one_that_runs_does_not_keep_waiting_anyway(self, send, link):
        link(placed, first, durable=True, order_by="key", unique="other")
        one = send("a", other="x")
        same_order, same_unique, free = send("a"), send("b", other="x"), send("c", other="y")
        ids = [row.delivery_id for row in (free, same_order, same_unique)]
        assert succession.beside("default", one, ids) == [free.delivery_id]

    def test_is_all_of_it_where_the_one_that_runs_has_no_key(self, send, link):
        link(placed, first, durable=True, order_by="key")
        one, other = send(None), send("a")
        assert succession.beside("default", one, [other.delivery_id]) == [other.delivery_id]


class TestADeadOne:
    def test_parks_its_key(self, link, send):
        link(placed, first, durable=True, order_by="key")
        one, two = held(send("a")), send("a")
        assert one.end(State.DEAD)
        assert not may_run(two)
        assert may_run(send("b"))

    def test_does_not_stop_what_was_sent_before_it(self, link, send):
        link(placed, first, durable=True, order_by="key")
        one, late = held(send("a")), send("a")
        assert one.end(State.DEAD)
        change(late, number=one.row.number - 1)
        assert may_run(late)

    def test_is_passed_by_if_the_receiver_says_so(self, link, send, run):
        link(placed, troubled, durable=True, order_by="key", on_dead="pass", max_retries=0)
        receivers.troubles[:] = [ValueError()]
        one, two = send("a"), send("a")
        assert run(one) == [two.delivery_id]
        assert now(one).state == State.DEAD
        assert may_run(two)

    def test_that_is_redelivered_runs_before_the_others(self, link, send, memory, calls):
        link(placed, first, durable=True, order_by="key")
        one = held(send("a", 1))
        send("a", 2)
        assert one.end(State.DEAD)
        drain(memory)
        assert calls == []
        assert redeliver(OutboxDelivery.objects.all()).changed == 1
        drain(memory)
        assert ran(calls) == [1, 2]

    def test_that_is_discarded_lets_the_others_run_at_once(self, link, send, memory, calls):
        link(placed, first, durable=True, order_by="key")
        one = held(send("a", 1))
        send("a", 2)
        assert one.end(State.DEAD)
        drain(memory)
        assert discard(OutboxDelivery.objects.filter(state=State.DEAD)).changed == 1
        drain(memory)
        assert ran(calls) == [2]

    def test_of_a_receiver_that_is_not_known_here_parks_its_key(self, link, send):
        link(placed, first, durable=True, order_by="key", on_dead="pass")
        one, two = held(send("a")), send("a")
        assert one.end(State.DEAD)
        OutboxDelivery.objects.update(receiver="shop.receivers.gone")
        assert not may_run(two)


class TestUnique:
    @pytest.fixture(autouse=True)
    def _unique(self, link: Any) -> None:
        link(placed, troubled, durable=True, unique="key")

    @pytest.fixture
    def finished(self) -> Any:
        heard: list[Any] = []

        def hear(sender: Any, delivery: Any, outcome: Any, **_: Any) -> None:
            heard.append((delivery.id, outcome.state))

        delivery_finished.connect(hear)
        yield heard
        delivery_finished.disconnect(hear)

    def test_of_those_that_wait_only_the_last_one_runs_and_of_each_it_is_told_how_it_ended(
        self, send, memory, rows, finished
    ):
        sent = [send("a") for _ in range(4)]
        memory.payloads.reverse()
        drain(memory)
        assert rows("state") == ["discarded"] * 3 + ["succeeded"]
        assert rows("lease") == [0, 0, 0, 1]
        assert all(f"#{sent[-1].number}" in error for error in rows("error")[:-1])
        ends = {str(row.delivery_id): "discarded" for row in sent[:-1]} | {str(sent[-1].delivery_id): "succeeded"}
        assert len(finished) == 4
        assert dict(finished) == ends

    def test_an_earlier_one_that_is_claimed_first_is_discarded_then(self, send, run, rows, finished):
        one, two = send("a"), send("a")
        # It was rung for before; who discards rings, for its own doorbell may have come and gone.
        assert run(one) == [two.delivery_id]
        assert rows("state") == ["discarded", "pending"]
        assert finished == [(str(one.delivery_id), "discarded")]

    def test_other_keys_and_no_key_are_others(self, send, memory, rows):
        for key in ("a", "b", None, None, "A"):
            send(key)
        drain(memory)
        assert rows("state") == ["succeeded"] * 5

    def test_the_one_that_runs_is_not_disturbed_and_what_was_sent_meanwhile_runs_afterwards(self, send):
        one, two, three = held(send("a")), send("a"), send("a")
        assert not may_run(three)
        assert claim("default", two.delivery_id) is not None
        assert now(two).state == State.DISCARDED
        assert one.complete()
        assert [row.number for row in succession.following("default", one.row)] == [three.number]
        assert may_run(three)

    def test_one_whose_worker_was_lost_runs_again_before_what_was_sent_meanwhile(self, send):
        one, two = held(send("a")), send("a")
        lose(one.row)
        assert not may_run(two)
        assert held(one.row).complete()
        assert may_run(two)

    def test_a_retry_that_waits_gives_way_to_a_later_send(self, send, run, rows):
        receivers.troubles[:] = [Retry("later", countdown=60)]
        one = send("a")
        run(one)
        assert rows("state", "attempt") == [("pending", 2)]
        run(send("a"))
        assert rows("state") == ["discarded", "succeeded"]

    def test_a_later_send_that_was_rolled_back_leaves_the_earlier_one_in_force(self, send, memory, rows):
        send("a")
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            placed.send(sender=None, key="a", number=0)
            _ = 1 / 0
        with transaction.atomic():
            sid = connection.savepoint()
            placed.send(sender=None, key="a", number=0)
            connection.savepoint_rollback(sid or "")
        drain(memory)
        assert rows("state") == ["succeeded"]

    def test_one_that_became_visible_while_a_later_one_ran_runs_afterwards(self, send):
        two, late = held(send("a")), send("a")
        change(late, number=two.row.number - 1)
        assert not may_run(late)
        assert two.complete()
        assert may_run(late)

    def test_a_dead_one_stops_nobody_and_gives_way_when_it_is_redelivered(self, send, memory, rows):
        one, two = held(send("a")), send("a")
        assert one.end(State.DEAD)
        assert may_run(two)
        memory.payloads.clear()
        redeliver(OutboxDelivery.objects.all())
        drain(memory)
        assert rows("state") == ["discarded", "succeeded"]

    def test_what_was_superseded_and_cannot_be_opened_is_discarded_as_well(self, send, run, rows):
        one, two = send("a"), send("a")
        change(one, payload="of nobody")
        run(two)
        assert rows("state") == ["discarded", "succeeded"]

    def test_many_that_wait_are_discarded_in_few_statements(self, send, run, django_assert_max_num_queries, rows):
        with transaction.atomic():
            for _ in range(1200):
                placed.send(sender=None, key="a", number=0)
        last = OutboxDelivery.objects.latest("number")
        with django_assert_max_num_queries(30):
            run(last)
        assert rows("state") == ["discarded"] * 1199 + ["succeeded"]


class TestDebounce:
    def test_runs_once_so_long_after_the_last_with_the_last(self, link, send, memory, run, calls, rows):
        link(placed, first, durable=True, unique="key", debounce=timedelta(minutes=1))
        one, two = send("a", 1), send("a", 2)
        assert memory.payloads == []
        for row in (one, two):
            waits = OutboxDelivery.objects.filter(number=row.number, due__gt=DatabaseNow(55), due__lte=DatabaseNow(60))
            assert waits.filter(ring_at__gt=DatabaseNow(55)).exists()
        change(one, due=DatabaseNow())
        assert run(one) == []
        assert rows("state") == ["discarded", "pending"]
        assert OutboxDelivery.objects.filter(number=two.number, due__gt=DatabaseNow(50)).exists()
        change(two, due=DatabaseNow())
        run(two)
        assert ran(calls) == [2]

    def test_is_not_countdown_which_counts_from_the_first_so_that_a_steady_stream_is_not_put_off_for_ever(
        self, link, send, run, calls, rows
    ):
        link(placed, first, durable=True, unique="key", countdown=60)
        one, _, three = send("a", 1), send("a", 2), send("a", 3)
        change(one, due=DatabaseNow())
        assert run(one) == [three.delivery_id]
        run(three)
        assert ran(calls) == [3]
        assert rows("state") == ["discarded", "discarded", "succeeded"]

    def test_a_superseded_one_does_not_hurry_the_retry_of_the_one_that_counts(self, link, send, run, rows):
        link(placed, first, durable=True, unique="key", countdown=60)
        one, two = send("a"), send("a")
        change(two, attempt=2, due=DatabaseNow(600))
        change(one, due=DatabaseNow())
        assert run(one) == []
        assert OutboxDelivery.objects.filter(number=two.number, due__gt=DatabaseNow(500)).exists()


class TestBothKeys:
    @pytest.fixture(autouse=True)
    def _both(self, link: Any) -> None:
        link(placed, first, durable=True, order_by="key", unique="other")

    def test_one_does_not_wait_for_those_that_it_supersedes(self, send, run, rows):
        send("a", other="x")
        run(send("a", other="x"))
        assert rows("state") == ["discarded", "succeeded"]

    def test_one_waits_for_an_earlier_one_of_its_order_that_is_another(self, send):
        send("a", other="x")
        assert not may_run(send("a", other="y"))
        assert not may_run(send("a"))

    def test_one_waits_for_what_runs_of_either_key(self, send):
        held(send("a", other="x"))
        assert not may_run(send("b", other="x"))
        assert not may_run(send("a", other="y"))
        assert may_run(send("c", other="z"))

    def test_the_end_of_one_rings_for_those_that_wait_for_either_key(self, send, run):
        one = send("a", other="x")
        in_order, is_one = send("a", other="y"), send("b", other="x")
        assert run(one) == [in_order.delivery_id, is_one.delivery_id]

    def test_a_superseded_one_lets_the_next_of_its_order_run(self, send, run, calls):
        send("a", 1, other="x")
        behind, later = send("a", 2), send("b", 3, other="x")
        run(behind)
        assert ran(calls) == []
        # The row that was discarded stood first in another order, of which the relay is told.
        change(behind, ring_at=DatabaseNow(3600))
        run(later)
        assert OutboxDelivery.objects.filter(number=behind.number, ring_at__lte=DatabaseNow()).exists()
        run(behind)
        assert ran(calls) == [3, 2]


class TestBlocked:
    def test_are_for_the_relay_the_rows_that_need_no_doorbell(self, link, send, rows):
        link(placed, first, durable=True, order_by="key", unique="other")
        one = held(send("a"))
        behind = send("a")
        free = [send("b"), send(None), send(None, other="x")]
        claimed = held(free[2])
        same = send(None, other="x")
        blocked = OutboxDelivery.objects.filter(keyed.blocked("default"))
        assert {row.number for row in blocked} == {behind.number, same.number}
        assert one.end(State.DEAD)
        assert claimed.complete()
        assert [row.number for row in blocked.all()] == [behind.number]

    def test_are_not_those_after_a_dead_one_which_their_receiver_passes_by(self, link, send):
        link(placed, first, durable=True, order_by="key", on_dead="pass", aliases=("old.name",))
        one = held(send("a"))
        send("a")
        assert one.end(State.DEAD)
        assert not OutboxDelivery.objects.filter(keyed.blocked("default")).exists()
        OutboxDelivery.objects.update(receiver="old.name")
        assert not OutboxDelivery.objects.filter(keyed.blocked("default")).exists()
        OutboxDelivery.objects.update(receiver="of.another.release")
        assert OutboxDelivery.objects.filter(keyed.blocked("default")).count() == 1


class TestParkedKeys:
    def test_are_listed_with_the_dead_delivery_and_how_many_wait_for_it(self, link, send):
        link(placed, first, durable=True, order_by="key")
        assert parked("default") == []
        send("a")
        dead, other = send("a"), send("b")
        for one in (other, dead):
            change(one, state=State.DEAD, due=None, ring_at=None)
        send("a")
        send("a")
        found = [(one.key, one.dead.number, one.waiting) for one in parked("default")]
        assert found == [(dead.order_key, dead.number, 2), (other.order_key, other.number, 0)]

    def test_are_none_where_the_dead_are_passed_by(self, link, send):
        link(placed, first, durable=True, order_by="key", on_dead="pass")
        assert held(send("a")).end(State.DEAD)
        assert parked("default") == []


class TestTurns:
    def test_make_their_locks_when_they_are_needed(self, link, send):
        link(placed, first, durable=True, order_by="key", unique="other")
        Lock.objects.all().delete()
        held(send("a", other="b"))
        assert 1 <= Lock.objects.filter(turns=1).count() <= 2

    def test_are_not_needed_to_see_that_a_row_is_blocked(self, link, send, django_assert_num_queries):
        link(placed, first, durable=True, order_by="key")
        held(send("a"))
        behind = send("a")
        with django_assert_num_queries(2):
            assert claim("default", behind.delivery_id) is None

    def test_look_again_when_they_have_come(self, link, send, monkeypatch):
        link(placed, first, durable=True, order_by="key", unique="other")
        one, two = send("a", other="x"), send("a", other="y")
        seen = iter([keyed.Standing(False, False)])
        real = keyed.standing
        monkeypatch.setattr(keyed, "standing", lambda *args: next(seen, None) or real(*args))
        assert claim("default", two.delivery_id) is None
        assert may_run(one)

    def test_leave_a_superseded_row_alone_that_somebody_has_changed_meanwhile(self, link, send, monkeypatch):
        link(placed, first, durable=True, unique="other")
        one, _ = send("a", other="x"), send("a", other="x")
        real = keyed.standing

        def and_then(*args: Any) -> Any:
            found = real(*args)
            change(one, lease=OutboxDelivery.objects.get(pk=one.pk).lease + 1)
            return found

        monkeypatch.setattr(keyed, "standing", and_then)
        assert claim("default", one.delivery_id) is None
        assert now(one).state == State.PENDING

    def test_find_a_row_gone_that_was_deleted_meanwhile(self, link, send):
        link(placed, first, durable=True, order_by="key")
        one = send("a")
        OutboxDelivery.objects.all().delete()
        assert keyed.standing("default", one).blocked
        assert succession.following("default", one) == []


def test_a_receiver_of_two_models_has_an_instance_of_one_superseded_by_none_of_the_other(link, memory, calls):
    for model in (Customer, Article):
        link(post_save, first, model, unique="instance")
    with transaction.atomic():
        Customer.objects.create(pk=1, name="Ada")
        Article.objects.create(pk=1, title="Pot")
    drain(memory)
    assert [type(kwargs["instance"]) for _, _, kwargs in calls] == [Customer, Article]
