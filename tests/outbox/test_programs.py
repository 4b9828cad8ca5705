"""Random programs of durable sends, held against a small model: which rows there are, and for which it is rung."""

from __future__ import annotations

import itertools
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import pytest
from django.db import transaction
from django.db.models.signals import post_save
from django.test import override_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deferred_signals import Signal, deferred_receiver
from deferred_signals.bell import read as read_bell
from deferred_signals.outbox import bulk, together
from deferred_signals.outbox.models import OutboxDelivery
from tests import receivers
from tests.receivers import on_instance, on_item
from tests.shop.models import Customer

# Its name from Django 6.1 on.
savepoint_create: Any = getattr(transaction, "savepoint_create", None) or transaction.savepoint

order_placed: Any = Signal()

FIELDS = ("name", "email")


class Send(NamedTuple):
    """Send a signal with the next number."""


class Save(NamedTuple):
    """Save some fields of a customer; of one transaction the receiver hears once."""

    pk: int
    fields: frozenset[str]


class Block(NamedTuple):
    """An ``atomic()`` or a ``together()``; one that joins has no savepoint, and so lets every exception out."""

    steps: list[Any]
    is_together: bool
    joins: bool
    fails: bool


class ByHand(NamedTuple):
    """Steps after a savepoint that was begun by hand, and what becomes of that."""

    steps: list[Any]
    end: str


sends = st.builds(Send)
saves = st.builds(Save, st.sampled_from([1, 2]), st.frozensets(st.sampled_from(FIELDS), min_size=1))
rarely = st.sampled_from([False, False, False, True])


def blocks(steps: st.SearchStrategy[Any]) -> st.SearchStrategy[Block]:
    return st.builds(Block, st.lists(steps, max_size=6), st.booleans(), rarely, rarely)


def by_hand(steps: st.SearchStrategy[Any]) -> st.SearchStrategy[ByHand]:
    return st.builds(ByHand, st.lists(steps, max_size=6), st.sampled_from(["roll back", "release", "leave"]))


steps = st.recursive(sends | saves, lambda inner: blocks(inner) | by_hand(inner), max_leaves=12)
programs = st.lists(blocks(steps) | blocks(steps) | sends | saves, min_size=1, max_size=4)


class Row(NamedTuple):
    """What a row says: the number that was sent, or the fields of a customer that were saved."""

    id: str
    number: int | None = None
    pk: int | None = None
    fields: frozenset[str] = frozenset()
    #: Which save was the last one that became part of it.
    version: int = 0

    @property
    def told(self) -> tuple[Any, ...]:
        return self.number, self.pk, sorted(self.fields)


class Undo(Exception): ...


class World:
    """Runs a program, and keeps beside the database what by the rules is in the outbox."""

    def __init__(self, *, keyed: bool) -> None:
        #: Whether rows that become one have the place of the last send, by their key.
        self.keyed = keyed
        OutboxDelivery.objects.all().delete()
        Customer.objects.all().delete()
        self.customers = {pk: Customer(pk=pk, name="", email="") for pk in (1, 2)}
        Customer.objects.bulk_create(self.customers.values())
        self.rows: dict[str, Row] = {}
        #: Of the transaction that is open: what the sender's process takes for the last row about a customer. It hears
        #: of an ``atomic()`` that is rolled back, and not of a savepoint that is rolled back by hand.
        self.last: dict[int, Row] = {}
        self.numbers = itertools.count(1)
        self.depth = 0
        self.responses: list[Any] = []  # of the last save

    def run(self, program: list[Any]) -> None:
        for step in program:
            match step:
                case Send():
                    number = next(self.numbers)
                    [(_, delivery)] = order_placed.send(Customer, item=number)
                    self.rows[delivery.id] = Row(delivery.id, number)
                case Save():
                    self.save(step)
                case ByHand():
                    self.by_hand(step)
                case Block():
                    self.block(step)
            if not self.depth:
                self.last = {}

    def save(self, step: Save) -> None:
        self.responses.clear()
        self.customers[step.pk].save(update_fields=step.fields)
        [(_, delivery)] = self.responses
        earlier = self.last.get(step.pk)
        if earlier is not None and self.rows.get(earlier.id) == earlier:
            row = earlier._replace(fields=earlier.fields | step.fields, version=next(self.numbers))
        else:
            assert delivery.id not in self.rows
            row = Row(delivery.id, None, step.pk, step.fields, next(self.numbers))
        assert delivery.id == row.id
        if self.keyed:
            self.rows.pop(row.id, None)
        self.rows[row.id] = self.last[step.pk] = row

    def by_hand(self, step: ByHand) -> None:
        rows = self.rows.copy()
        savepoint = savepoint_create()
        self.run(step.steps)
        if step.end == "roll back":
            transaction.savepoint_rollback(savepoint)
            self.rows = rows
        elif step.end == "release":
            transaction.savepoint_commit(savepoint)

    def block(self, block: Block) -> None:
        joins = block.joins and not block.is_together and self.depth > 0
        rows, last = self.rows.copy(), self.last.copy()
        around: AbstractContextManager[Any] = (
            together() if block.is_together else transaction.atomic(savepoint=not joins)
        )
        self.depth += 1
        try:
            with around:
                self.run(block.steps)
                if block.fails:
                    raise Undo
        except Undo:
            self.rows, self.last = rows, last
            if joins:
                raise
        finally:
            self.depth -= 1


@pytest.mark.django_db(transaction=True)
@override_settings(DEFERRED_SIGNALS={"BACKEND": "memory", "OUTSIDE_TRANSACTION": "ignore"})
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("keys", [{}, {"order_by": lambda sender, **kwargs: "all"}], ids=["plain", "keyed"])
@given(program=programs)
def test_the_rows_are_what_was_committed_and_each_of_them_is_rung_for(link, memory, monkeypatch, keys, program):
    """Nothing is lost, nothing that was rolled back is there, in send order, in bulk or one by one."""
    # Of the fixtures all examples have the same. To connect again what is connected already changes nothing.
    link(post_save, on_instance, Customer, durable=True, coalesce=True, **keys)
    link(order_placed, on_item, durable=True)
    memory.payloads.clear()
    receivers.calls.clear()
    world = World(keyed=bool(keys))
    with monkeypatch.context() as patch:
        send = post_save.send
        # Each send has a time of its own. Of two in one millisecond the rows can be equal, and then to be one is right.
        ticks = itertools.count(1_800_000_000)
        patch.setattr(deferred_receiver, "moment", lambda: (tick := next(ticks), str(tick)))
        patch.setattr(post_save, "send", lambda *args, **kwargs: world.responses.extend(send(*args, **kwargs)))
        world.run(program)
    assert not list(bulk._batches)
    assert [
        str(one) for one in OutboxDelivery.objects.order_by("number").values_list("delivery_id", flat=True)
    ] == list(world.rows)
    rung = {str(one) for _, payload in memory.payloads for one in read_bell(payload).ids}
    assert rung >= world.rows.keys()
    while memory.payloads:
        memory.deliver()
    assert set(OutboxDelivery.objects.values_list("state", flat=True)) <= {"succeeded"}
    told = [as_told(kwargs) for _, _, kwargs in receivers.calls]
    assert sorted(told, key=str) == sorted((row.told for row in world.rows.values()), key=str)


def as_told(kwargs: dict[str, Any]) -> tuple[Any, ...]:
    if "item" in kwargs:
        return kwargs["item"], None, []
    return None, kwargs["instance"].pk, sorted(kwargs["update_fields"])
