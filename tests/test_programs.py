"""Random programs of saves, sends and nested transactions, held against a small model of the documented rules."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import pytest
from django.db import transaction
from django.db.models.signals import post_save
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deferred_signals import Signal
from tests import receivers
from tests.receivers import first, on_changes, on_instance, second
from tests.shop.models import Customer

moved: Any = Signal()

NAMES = ("name", "email")
COALESCING = {"on_changes", "second"}


class Save(NamedTuple):
    """Set values of a customer and save it: all fields, or some."""

    pk: int
    values: dict[str, str]
    update_fields: frozenset[str] | None


class Move(NamedTuple):
    """Send a signal of one's own about a customer."""

    pk: int
    action: str
    pk_set: frozenset[int] | None


class Block(NamedTuple):
    """An ``atomic()``; one that joins has no savepoint of its own, and so lets every exception out."""

    steps: list[Save | Move | Block]
    joins: bool
    fails: bool
    lets_out: bool


pks = st.sampled_from([1, 2])
values = st.dictionaries(st.sampled_from(NAMES), st.sampled_from("abc"))
saves = st.builds(Save, pks, values, st.none() | st.frozensets(st.sampled_from(NAMES), min_size=1))
actions = st.sampled_from(["pre_add", "post_add", "post_remove"])
moves = st.builds(Move, pks, actions, st.none() | st.frozensets(st.integers(1, 4), max_size=2))


def blocks(steps: st.SearchStrategy[Any]) -> st.SearchStrategy[Block]:
    rarely = st.sampled_from([False, False, False, True])
    return st.builds(Block, st.lists(steps, max_size=6), joins=rarely, fails=rarely, lets_out=rarely)


steps = st.recursive(saves | moves, blocks, max_leaves=12)
programs = st.lists(blocks(steps) | blocks(steps) | saves | moves, min_size=1, max_size=4)


class Told(NamedTuple):
    """What a receiver is called with; in the model, by one send and then by several that became one."""

    id: str
    receiver: str
    pk: int
    #: The fields of a snapshot; None for a reference, which is the row as it is in the end.
    state: dict[str, str] | None
    kwargs: dict[str, Any]

    @property
    def about(self) -> tuple[str, int, str]:
        """What comes before an action is another story than what comes after it."""
        return self.receiver, self.pk, self.kwargs.get("action", "").partition("_")[0]

    def after(self, earlier: Told) -> Told:
        """One for two neighbours: as the later one, except for what is said of both."""
        kwargs, past = dict(self.kwargs), earlier.kwargs
        for name in {"update_fields", "pk_set"} & kwargs.keys():
            kwargs[name] = None if None in {kwargs[name], past[name]} else kwargs[name] | past[name]
        if "created" in kwargs:
            kwargs["created"] = kwargs["created"] or past["created"]
            old = {name: pair[0] for name, pair in [*kwargs["changes"].items(), *past["changes"].items()]}
            new = {name: pair[1] for name, pair in [*past["changes"].items(), *kwargs["changes"].items()]}
            kwargs["changes"] = {name: (old[name], new[name]) for name in old if old[name] != new[name]}
        return self._replace(id=earlier.id, kwargs=kwargs)


def coalesced(sends: list[Told]) -> list[Told]:
    told: list[Told] = []
    for send in sends:
        earlier = next((one for one in reversed(told) if one.about == send.about), None)
        if earlier and send.receiver in COALESCING and earlier.kwargs.get("action") == send.kwargs.get("action"):
            told.remove(earlier)
            told.append(send.after(earlier))
        else:
            told.append(send)
    return told


class Undo(Exception): ...


def state_of(customer: Customer) -> dict[str, str]:
    return {name: getattr(customer, name) for name in NAMES}


class World:
    """Runs a program, and keeps beside the database what by the rules is in it and what must be told."""

    def __init__(self, there: set[int]) -> None:
        Customer.objects.all().delete()
        self.customers = {pk: Customer(pk=pk, name="", email="") for pk in (1, 2)}
        Customer.objects.bulk_create(self.customers[pk] for pk in sorted(there))  # sends nothing
        self.rows = {pk: state_of(self.customers[pk]) for pk in there}
        self.told: list[Told] = []
        #: What was sent in the transaction that is open, with the savepoints in which it was.
        self.waiting: list[tuple[Told, tuple[int, ...]]] = []
        self.numbers = itertools.count()
        #: Whether a savepoint was rolled back after the last send: then each frame is handed over by itself.
        self.frames_part = False
        self.responses: list[Any] = []  # of the last save

    def run(self, program: list[Any], place: tuple[int, ...] | None = None) -> None:
        for step in program:
            if isinstance(step, Block):
                self.block(step, place)
                continue
            responses, kwargs = self.save(step) if isinstance(step, Save) else self.move(step)
            names = ["on_changes", "first"] if isinstance(step, Save) else ["second", "on_instance"]
            for name, (_, delivery) in zip(names, responses, strict=True):
                given = {key: value for key, value in kwargs.items() if key != "changes" or name == "on_changes"}
                state = None if name == "first" else state_of(self.customers[step.pk])
                self.waiting.append((Told(delivery.id, name, step.pk, state, given), place or ()))
            self.frames_part = False
            if place is None:
                self.commit()

    def save(self, step: Save) -> tuple[list[Any], dict[str, Any]]:
        customer, row = self.customers[step.pk], self.rows.get(step.pk)
        vars(customer).update(step.values)
        update_fields = None if row is None else step.update_fields  # Django refuses some fields of no row
        self.responses.clear()
        customer.save(update_fields=update_fields)
        written = {name: getattr(customer, name) for name in update_fields or NAMES}
        changes = {name: (row[name], new) for name, new in written.items() if row[name] != new} if row else {}
        self.rows[step.pk] = {**(row or {}), **written}
        return self.responses, {"created": row is None, "update_fields": update_fields, "changes": changes}

    def move(self, step: Move) -> tuple[list[Any], dict[str, Any]]:
        kwargs = {"action": step.action, "pk_set": step.pk_set, "number": next(self.numbers)}
        return moved.send(Customer, instance=self.customers[step.pk], **kwargs), kwargs

    def block(self, block: Block, outer: tuple[int, ...] | None) -> None:
        place = () if outer is None else outer if block.joins else (*outer, next(self.numbers))
        before, rows = self.waiting.copy(), self.rows.copy()
        try:
            with transaction.atomic(savepoint=not block.joins):
                self.run(block.steps, place)
                if block.fails:
                    raise Undo
        except Undo:
            self.waiting, self.rows, self.frames_part = before, rows, True
            if outer is not None and (block.joins or block.lets_out):
                raise
        if outer is None:
            self.commit()

    def commit(self) -> None:
        places = dict.fromkeys(place for _, place in self.waiting)
        frames = [{place} for place in places] if self.frames_part else [set(places)]
        self.told += [one for frame in frames for one in coalesced([send for send, at in self.waiting if at in frame])]
        self.waiting, self.frames_part = [], False


@pytest.mark.django_db(transaction=True)
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(program=programs, there=st.sets(pks))
def test_what_is_told_is_what_the_rules_say(link, memory, monkeypatch, program, there):
    """Nothing is lost, nothing that was rolled back is told, in send order, each under the id of its first send."""
    # Of the fixtures all examples have the same. To connect again what is connected already changes nothing.
    link(post_save, on_changes, Customer, coalesce=True, changes=True, instance="snapshot")
    link(post_save, first, Customer)
    link(moved, second, coalesce=True, instance="snapshot")
    link(moved, on_instance, instance="snapshot")
    receivers.calls.clear()
    memory.payloads.clear()
    world = World(there)
    with monkeypatch.context() as patch:
        send = post_save.send
        patch.setattr(post_save, "send", lambda *args, **kwargs: world.responses.extend(send(*args, **kwargs)))
        world.run(program)
    ended = memory.deliver()
    assert {outcome.state for _, outcome in ended} <= {"succeeded"}
    assert [as_told(delivery, *call) for (delivery, _), call in zip(ended, receivers.calls, strict=True)] == [
        one._replace(state=one.state or world.rows[one.pk]) for one in world.told
    ]
    assert len({delivery.id for delivery, _ in ended}) == len(ended)


def as_told(delivery: Any, receiver: str, sender: Any, kwargs: dict[str, Any]) -> Told:
    assert sender is Customer
    customer = kwargs["instance"]
    told = {"created", "update_fields", "changes", "action", "pk_set", "number"} & kwargs.keys()
    return Told(delivery.id, receiver, customer.pk, state_of(customer), {name: kwargs[name] for name in told})
