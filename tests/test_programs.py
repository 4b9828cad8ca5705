"""Random programs of saves, sends and nested transactions, held against a small model of the documented rules."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

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
#: Of each signal the receivers, in the order in which they are connected, and whether they coalesce.
AFTER_SAVE = {"on_changes": True, "first": False}
AFTER_MOVE = {"second": True, "on_instance": False}


@dataclass(frozen=True)
class Save:
    """Set values of a customer and save it: all fields, or some."""

    pk: int
    values: dict[str, str]
    update_fields: frozenset[str] | None


@dataclass(frozen=True)
class Move:
    """Send a signal of our own about a customer."""

    pk: int
    action: str
    pk_set: frozenset[int] | None


@dataclass(frozen=True)
class Block:
    """An ``atomic()``; one that joins has no savepoint of its own, and so cannot keep an exception to itself."""

    steps: list[Save | Move | Block]
    joins: bool
    fails: bool
    catches: bool


pks = st.sampled_from([1, 2])
saves = st.builds(
    Save,
    pks,
    st.fixed_dictionaries({}, optional={"name": st.sampled_from("abc"), "email": st.sampled_from(["a@b.at", "b@b.at"])}),
    st.none() | st.frozensets(st.sampled_from(NAMES), min_size=1),
)
moves = st.builds(
    Move,
    pks,
    st.sampled_from(["pre_add", "post_add", "post_remove"]),
    st.none() | st.frozensets(st.integers(1, 4), max_size=2),
)


def blocks(steps: st.SearchStrategy[Any]) -> st.SearchStrategy[Block]:
    rarely = st.integers(0, 3).map(lambda number: number == 3)
    return st.builds(Block, st.lists(steps, max_size=6), joins=rarely, fails=rarely, catches=rarely.map(lambda no: not no))


steps = st.recursive(saves | moves, blocks, max_leaves=12)
programs = st.lists(blocks(steps) | blocks(steps) | saves | moves, min_size=1, max_size=4)


@dataclass(frozen=True)
class Told:
    """What a receiver is called with; in the model, by one send and then by several that became one."""

    id: str
    receiver: str
    pk: int
    #: The fields of a snapshot; None for a reference, which is the row as it is in the end.
    state: dict[str, str] | None
    kwargs: dict[str, Any]
    place: tuple[int, ...] = field(default=(), compare=False)

    def follows(self, other: Told) -> bool:
        phases = [str(one.kwargs.get("action")).partition("_")[0] for one in (self, other)]
        return (self.receiver, self.pk, phases[0]) == (other.receiver, other.pk, phases[1])

    def after(self, earlier: Told) -> Told:
        """One for two neighbours: as the later, but ..."""
        kwargs, past = dict(self.kwargs), earlier.kwargs
        if "created" in kwargs:
            kwargs["created"] = kwargs["created"] or past["created"]
        for name in {"update_fields", "pk_set"} & kwargs.keys():
            kwargs[name] = None if None in {kwargs[name], past[name]} else kwargs[name] | past[name]
        if "changes" in kwargs:
            both = past["changes"] | {
                name: (past["changes"].get(name, (old, None))[0], new) for name, (old, new) in kwargs["changes"].items()
            }
            kwargs["changes"] = {name: (old, new) for name, (old, new) in both.items() if old != new}
        return replace(self, id=earlier.id, kwargs=kwargs)


def coalesced(sends: list[Told]) -> list[Told]:
    told: list[Told] = []
    for send in sends:
        one = send
        last = next((number for number in reversed(range(len(told))) if one.follows(told[number])), None)
        if last is not None and (AFTER_SAVE | AFTER_MOVE)[one.receiver]:
            if told[last].kwargs.get("action") == one.kwargs.get("action"):
                one = one.after(told.pop(last))
        told.append(one)
    return told


class Undo(Exception): ...


class World:
    """Runs a program, and keeps beside the database what by the rules is in it and what must be told."""

    def __init__(self, there: set[int]) -> None:
        Customer.objects.all().delete()
        self.customers = {pk: Customer(pk=pk, name="", email="") for pk in (1, 2)}
        for pk in there:
            self.customers[pk].save()
        self.rows = {pk: self.state(pk) for pk in there}
        self.told: list[Told] = []
        self.waiting: list[Told] = []
        self.numbers = itertools.count()
        #: Whether a savepoint was rolled back after the last send: then each frame is handed over by itself.
        self.frames_part = False
        #: What the deferred receivers of the last save have returned.
        self.responses: list[Any] = []

    def state(self, pk: int) -> dict[str, str]:
        return {name: getattr(self.customers[pk], name) for name in NAMES}

    def run(self, program: list[Any], place: tuple[int, ...] | None = None) -> None:
        for step in program:
            if isinstance(step, Block):
                self.block(step, place)
                continue
            responses, kwargs = self.save(step) if isinstance(step, Save) else self.move(step)
            for (name, coalesces), (_, delivery) in zip(kwargs.pop("to").items(), responses, strict=True):
                given = {key: value for key, value in kwargs.items() if key != "changes" or coalesces}
                state = None if name == "first" else self.state(step.pk)
                self.waiting.append(Told(delivery.id, name, step.pk, state, given, place or ()))
            self.frames_part = False
            if place is None:
                self.commit()

    def save(self, step: Save) -> tuple[list[Any], dict[str, Any]]:
        customer, row = self.customers[step.pk], self.rows.get(step.pk)
        vars(customer).update(step.values)
        update_fields = None if row is None else step.update_fields  # Django refuses some fields of no row
        self.responses.clear()
        customer.save(update_fields=update_fields)
        written = {name: value for name, value in self.state(step.pk).items() if name in (update_fields or NAMES)}
        changes = {name: (row[name], new) for name, new in written.items() if row[name] != new} if row else {}
        self.rows[step.pk] = {**(row or {}), **written}
        kwargs = {"created": row is None, "update_fields": update_fields, "changes": changes, "to": AFTER_SAVE}
        return list(self.responses), kwargs

    def move(self, step: Move) -> tuple[list[Any], dict[str, Any]]:
        kwargs = {"action": step.action, "pk_set": step.pk_set, "number": next(self.numbers)}
        return moved.send(Customer, instance=self.customers[step.pk], **kwargs), {**kwargs, "to": AFTER_MOVE}

    def block(self, block: Block, outer: tuple[int, ...] | None) -> None:
        place = () if outer is None else outer if block.joins else (*outer, next(self.numbers))
        before, rows = list(self.waiting), copy.deepcopy(self.rows)
        try:
            with transaction.atomic(savepoint=not block.joins):
                self.run(block.steps, place)
                if block.fails:
                    raise Undo
        except Undo:
            self.waiting, self.rows, self.frames_part = before, rows, True
            if outer is not None and (block.joins or not block.catches):
                raise
        if outer is None:
            self.commit()

    def commit(self) -> None:
        frames: dict[tuple[int, ...] | None, list[Told]] = {}
        for send in self.waiting:
            frames.setdefault(send.place if self.frames_part else None, []).append(send)
        self.told += [one for frame in frames.values() for one in coalesced(frame)]
        self.waiting, self.frames_part = [], False


@pytest.mark.django_db(transaction=True)
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(program=programs, there=st.sets(pks))
def test_what_is_told_is_what_the_rules_say(link, memory, monkeypatch, program, there):
    """Nothing is lost, nothing that was rolled back is told, in send order, each under the id of its first send."""
    receivers.calls.clear()
    world = World(there)
    with monkeypatch.context() as patch:
        send = post_save.send
        patch.setattr(post_save, "send", lambda *args, **kwargs: world.responses.extend(send(*args, **kwargs)))
        link(post_save, on_changes, Customer, coalesce=True, changes=True, instance="snapshot")
        link(post_save, first, Customer)
        link(moved, second, coalesce=True, instance="snapshot")
        link(moved, on_instance, instance="snapshot")
        try:
            world.run(program)
        finally:
            for signal, function in [(post_save, on_changes), (post_save, first)]:
                signal.disconnect(function, sender=Customer)
            moved.disconnect(second)
            moved.disconnect(on_instance)
    ended = memory.deliver()
    assert {outcome.state for _, outcome in ended} <= {"succeeded"}
    assert [as_told(delivery, *call) for (delivery, _), call in zip(ended, receivers.calls, strict=True)] == [
        replace(one, state=one.state or world.rows[one.pk]) for one in world.told
    ]
    assert len({delivery.id for delivery, _ in ended}) == len(ended)


def as_told(delivery: Any, receiver: str, sender: Any, kwargs: dict[str, Any]) -> Told:
    assert sender is Customer
    state = dict(zip(NAMES, attrgetter(*NAMES)(kwargs["instance"]), strict=True))
    told = {"created", "update_fields", "changes", "action", "pk_set", "number"} & kwargs.keys()
    return Told(delivery.id, receiver, kwargs["instance"].pk, state, {name: kwargs[name] for name in told})
