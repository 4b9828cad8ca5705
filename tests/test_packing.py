"""Deliveries of large transactions wait in a few bytes each."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest
from django.db import transaction

from deferred_signals import Signal, backends, frame, handover
from deferred_signals.options import Options
from deferred_signals.packing import Pack
from tests.receivers import first, on_item, second
from tests.shop.models import Customer

bell: Any = Signal()


class RolledBack(Exception):
    pass


@pytest.fixture
def memory(settings: Any) -> Any:
    settings.DEFERRED_SIGNALS = {"BACKEND": "memory"}
    yield backends.current()
    backends.current().payloads.clear()  # type: ignore[attr-defined]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "MOST", 20)
    monkeypatch.setattr(frame, "PACKED", 10)


def ring(number: int) -> str:
    return str(bell.send(sender=None, item=number)[0][1].id)


def sent(memory: Any) -> list[str]:
    return [delivery.id for delivery, _ in memory.payloads]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("small")
class TestALargeTransaction:
    def test_its_deliveries_leave_in_the_order_of_their_sends(self, memory, link, calls):
        link(bell, on_item)
        with transaction.atomic():
            ids = [ring(number) for number in range(105)]
        assert sent(memory) == ids
        memory.deliver()
        assert [call[2]["item"] for call in calls] == [*range(105)]

    def test_savepoints_among_them_keep_their_places_and_may_be_rolled_back(self, memory, link):
        link(bell, first)
        ids = []
        with transaction.atomic():
            for number in range(201):  # a rollback after the last send lets frames leave one by one
                if number % 50 < 25:
                    ids.append(ring(number))
                    continue
                try:
                    with transaction.atomic():
                        delivery = ring(number)
                        if number % 2:
                            raise RolledBack
                        ids.append(delivery)
                except RolledBack:
                    pass
        assert sent(memory) == ids

    def test_what_can_become_one_waits_as_it_is(self, memory, link):
        customer = Customer.objects.create(name="Ada")
        link(bell, first)
        link(bell, second, coalesce=True)
        with transaction.atomic():
            for number in range(105):
                bell.send(sender=None, item=number, instance=customer)
        assert len(memory.payloads) == 105 + 1
        assert memory.payloads[-1][0].receiver == "tests.receivers.second"

    def test_where_all_wait_as_they_are_they_are_not_looked_through_at_each_send(self, memory, link, monkeypatch):
        looked: list[Any] = []

        def look(delivery: Any) -> bool:
            looked.append(delivery)
            return delivery.subject is None

        monkeypatch.setattr(frame, "can_be_packed", look)
        link(bell, second, coalesce=True)
        with transaction.atomic():
            for number in range(100):
                bell.send(sender=None, instance=Customer(pk=number + 1), number=number)
        assert 0 < len(looked) < 100 * 10
        assert len(memory.payloads) == 100

    def test_its_deliveries_are_handed_over_in_parts(self, memory, link, monkeypatch):
        parts: list[int] = []
        monkeypatch.setattr(handover, "AT_ONCE", 30)
        publish = memory.publish

        def note(some: Any) -> Any:
            parts.append(len(some))
            return publish(some)

        monkeypatch.setattr(memory, "publish", note)
        link(bell, first)
        with transaction.atomic():
            ids = [ring(number) for number in range(70)]
        assert parts == [30, 30, 10]
        assert sent(memory) == ids

    def test_who_is_interrupted_leaves_a_line_about_all_that_are_left(self, memory, link, monkeypatch, caplog):
        monkeypatch.setattr(handover, "AT_ONCE", 30)

        def interrupt(some: Any) -> Any:
            raise KeyboardInterrupt

        monkeypatch.setattr(memory, "publish", interrupt)
        link(bell, first)
        with pytest.raises(KeyboardInterrupt), transaction.atomic():
            for number in range(70):
                ring(number)
        assert "deliveries to tests.receivers.first (30)" in caplog.text
        assert "deliveries to tests.receivers.first (40)" in caplog.text

    def test_the_last_part_leaves_no_such_line(self, memory, link, monkeypatch, caplog):
        def interrupt(some: Any) -> Any:
            raise KeyboardInterrupt

        monkeypatch.setattr(memory, "publish", interrupt)
        link(bell, first)
        with pytest.raises(KeyboardInterrupt), transaction.atomic():
            for number in range(70):
                ring(number)
        assert caplog.text.count("Interrupted by") == 1


@pytest.mark.django_db(transaction=True)
def test_a_delivery_comes_back_as_it_was(memory, link):
    link(bell, first, priority=3)
    made = bell.send(sender=None, item="ä")[0][1]
    made.depth, made.repeats, made.keys = 2, 1, ("a", None)
    other = bell.send(sender=None, item=1)[0][1]
    other.keep("default")
    (one, (number, two)) = Pack([(7, made), (8, other)]).entries()
    assert (one[0], number) == (7, 8)
    for before, after in ((made, one[1]), (other, two)):
        for name in before.__slots__:
            assert getattr(after, name) == getattr(before, name), name
        assert after.options is before.options
    assert isinstance(made.options, Options)


@pytest.mark.django_db(transaction=True)
def test_those_of_a_large_transaction_take_a_fifth_of_a_closure_each(memory, link):
    link(bell, first)
    number = 20_000
    gc.collect()
    tracemalloc.start()
    try:
        with pytest.raises(RolledBack), transaction.atomic():
            before, _ = tracemalloc.get_traced_memory()
            for item in range(number):
                bell.send(sender=None, item=item)
            taken = tracemalloc.get_traced_memory()[0] - before
            raise RolledBack
    finally:
        tracemalloc.stop()
    assert taken / number < 150, taken / number
