"""A model of keys: random sends in random transactions, claims, ends, crashes; against the real database."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, connections, transaction
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from deferred_signals import Delivery, Signal, backends
from deferred_signals.bell import read
from deferred_signals.outbox import keyed, succession
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.lease import Claim, Superseded, claim
from deferred_signals.outbox.models import OutboxDelivery, State
from tests.receivers import first, second

parking: Any = Signal()
passing: Any = Signal()

KEYS = st.sampled_from([None, "a", "b"])


#: Without shrinking: an example is some hundred statements.
REPEATED = settings(max_examples=12, stateful_step_count=40, deadline=None, phases=[Phase.explicit, Phase.generate])


class Sender:
    """A process that sends, over a connection of its own."""

    def __init__(self) -> None:
        self.connection = connections.create_connection("default")
        self.block: Any = None
        self.sent: list[Any] = []

    @contextmanager
    def here(self) -> Iterator[None]:
        ours = connections["default"]
        connections["default"] = self.connection
        try:
            yield
        finally:
            connections["default"] = ours

    def end(self, error: BaseException | None = None) -> None:
        with self.here():
            self.block.__exit__(type(error) if error else None, error, None)
        self.block, self.sent = None, []


class Model(RuleBasedStateMachine):
    """What is known of each committed row: its number, its keys, its state."""

    def __init__(self) -> None:
        super().__init__()
        # SQLite has one writer at a time.
        self.senders = [Sender() for _ in range(3 if connection.features.has_select_for_update else 0)]
        self.rows: dict[Any, dict[str, Any]] = {}
        self.claims: dict[Any, Claim] = {}
        self.doorbells: list[Any] = []

    # What senders do.

    @rule(signal=st.sampled_from([parking, passing]), key=KEYS, other=KEYS)
    def send_by_itself(self, signal: Any, key: Any, other: Any) -> None:
        with transaction.atomic():
            ((_, delivery),) = signal.send(sender=None, key=key, other=other)
        self.committed([delivery.id])

    @precondition(lambda self: self.senders)
    @rule(which=st.integers(0, 2), signal=st.sampled_from([parking, passing]), key=KEYS, other=KEYS)
    def send_in_a_transaction(self, which: int, signal: Any, key: Any, other: Any) -> None:
        sender = self.senders[which]
        with sender.here():
            if sender.block is None:
                sender.block = transaction.atomic()
                sender.block.__enter__()
            ((_, delivery),) = signal.send(sender=None, key=key, other=other)
        assert isinstance(delivery, Delivery)
        sender.sent.append(delivery.id)

    @precondition(lambda self: self.open())
    @rule(data=st.data())
    def commit(self, data: Any) -> None:
        sender = data.draw(st.sampled_from(self.open()))
        ids = list(sender.sent)
        sender.end()
        self.committed(ids)

    @precondition(lambda self: self.open())
    @rule(data=st.data())
    def roll_back(self, data: Any) -> None:
        data.draw(st.sampled_from(self.open())).end(ZeroDivisionError())

    def open(self) -> list[Sender]:
        return [sender for sender in self.senders if sender.block is not None]

    def committed(self, ids: list[Any]) -> None:
        for row in OutboxDelivery.objects.filter(delivery_id__in=ids).order_by("number"):
            self.rows[row.delivery_id] = {
                "number": row.number,
                "order": row.order_key,
                "unique": row.unique_key,
                "parks": row.receiver.endswith("first"),
                "state": "pending",
                "due": True,
            }
        self.hear()

    def hear(self) -> None:
        memory: Any = backends.current()
        for _, payload in memory.payloads:
            self.doorbells += read(payload).ids
        memory.payloads.clear()

    def pick(self, data: Any, keys: Collection[Any]) -> Any:
        """One of some rows, by its place: their ids are never the same."""
        return data.draw(st.sampled_from(range(len(keys))).map(sorted(keys, key=self.number_of).__getitem__))

    def number_of(self, key: Any) -> int:
        number: int = self.rows[key]["number"]
        return number

    # What workers do.

    @precondition(lambda self: self.doorbells)
    @rule(data=st.data())
    def answer(self, data: Any) -> None:
        """The doorbells come in any order, and each once."""
        key = self.pick(data, self.doorbells)
        self.doorbells.remove(key)
        self.claim(key)

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def answer_to_the_relay(self, data: Any) -> None:
        self.claim(self.pick(data, self.rows))

    def claim(self, key: Any) -> None:
        row, expected = self.rows[key], self.expected(self.rows[key])
        made = claim("default", key)
        if isinstance(made, Claim):
            assert expected == "run"
            earlier = [one for one in self.same("unique", row) if one["state"] == "pending"]
            assert all(one["number"] < row["number"] or row["state"] == "running" for one in earlier if one is not row)
            for one in earlier:
                if one["number"] < row["number"]:
                    one["state"] = "superseded"
            row["state"], row["due"] = "running", False
            self.claims[key] = made
        elif isinstance(made, Superseded):
            assert expected == "superseded"
            row["state"] = "superseded"
            self.ring_after(made.row)
        else:
            assert expected is None

    def same(self, kind: str, row: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            one for one in self.rows.values() if row[kind] is not None and one[kind] == row[kind] and one is not row
        ]

    def expected(self, row: dict[str, Any]) -> str | None:
        """What must become of a row that is claimed now, told in other words than the library's."""
        if not row["due"] or row["state"] not in ("pending", "running"):
            return None
        if row["state"] == "running":
            return "run"
        mates = self.same("unique", row)
        if any(one["state"] == "pending" and one["number"] > row["number"] for one in mates):
            return "superseded"
        before = [one for one in self.same("order", row) if one["number"] < row["number"]]
        waits = (
            any(one["state"] == "running" for one in mates + self.same("order", row))
            or any(one["state"] == "pending" and one not in mates for one in before)
            or any(one["state"] == "dead" and row["parks"] for one in before)
        )
        return None if waits else "run"

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), how=st.sampled_from(["succeeded", "discarded", "dead", "retry", "given back"]))
    def end(self, data: Any, how: str) -> None:
        self.end_of(self.pick(data, self.claims), how)

    def end_of(self, key: Any, how: str) -> None:
        made, row = self.claims.pop(key), self.rows[key]
        if how == "retry":
            assert made.again(3600)
            row.update(state="pending", due=False)
        elif how == "given back":
            assert made.release()
            row.update(state="pending", due=True)
            self.doorbells.append(key)  # the relay, at once
        else:
            assert made.end(State(how))
            row.update(state=how, due=False)
        self.ring_after(made.row)

    def ring_after(self, row: OutboxDelivery) -> None:
        self.doorbells += [one.delivery_id for one in succession.following("default", row)]

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def lose_a_worker(self, data: Any) -> None:
        key = self.pick(data, self.claims)
        del self.claims[key]
        self.is_due(key)

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def let_time_pass(self, data: Any) -> None:
        self.is_due(self.pick(data, self.waiting()))

    def waiting(self) -> list[Any]:
        return [key for key, row in self.rows.items() if row["state"] == "pending" and not row["due"]]

    def relay(self) -> bool:
        """Ring for what the relay rings for now: of what was sent and is rung for already, nothing for 30 seconds."""
        waiting = OutboxDelivery.objects.filter(state=State.PENDING).order_by("number")
        due = waiting.filter(ring_at__lte=DatabaseNow())
        self.doorbells += due.values_list("delivery_id", flat=True)
        due.order_by().update(ring_at=DatabaseNow(30))
        if not self.doorbells:
            # Later it rings for all that is not blocked. Only one that will be discarded may be left to that: which
            # had to wait for what ran of its unique key, and then a later one was sent that has to wait for another.
            left = list(waiting.filter(due__lte=DatabaseNow()).exclude(keyed.blocked("default")))
            assert all(keyed.standing("default", row).superseded for row in left)
            self.doorbells += [row.delivery_id for row in left]
        return bool(self.doorbells)

    def is_due(self, key: Any) -> None:
        OutboxDelivery.objects.filter(delivery_id=key).update(due=DatabaseNow(-1))
        self.rows[key]["due"] = True
        self.doorbells.append(key)

    @precondition(lambda self: self.dead())
    @rule(data=st.data(), how=st.sampled_from(["redeliver", "discard"]))
    def attend_to_a_dead_one(self, data: Any, how: str) -> None:
        key = self.pick(data, self.dead())
        rows = OutboxDelivery.objects.filter(delivery_id=key)
        if how == "redeliver":
            rows.update(state=State.PENDING, due=DatabaseNow())
            self.rows[key].update(state="pending", due=True)
            self.doorbells.append(key)
        else:
            rows.update(state=State.DISCARDED)
            self.rows[key]["state"] = "discarded"
            self.ring_after(rows.get())

    def dead(self) -> list[Any]:
        return [key for key, row in self.rows.items() if row["state"] == "dead"]

    # What is always so.

    @invariant()
    def never_do_two_of_a_key_run(self) -> None:
        for column in ("order_key", "unique_key"):
            keys = OutboxDelivery.objects.filter(state=State.RUNNING, **{f"{column}__isnull": False})
            found = list(keys.values_list(column, flat=True))
            assert len(found) == len(set(found))

    @invariant()
    def the_rows_are_as_the_model_has_them(self) -> None:
        names = {"superseded": "discarded"}
        expected = {key: names.get(row["state"], row["state"]) for key, row in self.rows.items()}
        assert dict(OutboxDelivery.objects.values_list("delivery_id", "state")) == expected

    def teardown(self) -> None:
        """Answering all doorbells leaves nothing that may run: none was lost."""
        try:
            for sender in self.open():
                ids = list(sender.sent)
                sender.end()
                self.committed(ids)
            for key in [*self.claims]:
                self.end_of(key, "succeeded")
            for key in self.waiting():
                self.is_due(key)
            while self.doorbells or self.relay():
                self.claim(self.doorbells.pop(0))
                for key in [*self.claims]:
                    self.end_of(key, "succeeded")
            for row in self.rows.values():
                if row["state"] in ("pending", "running"):
                    assert any(one["state"] == "dead" for one in self.same("order", row)), row
        finally:
            for sender in self.senders:
                if sender.block is not None:
                    sender.end(ZeroDivisionError())
                sender.connection.close()
            OutboxDelivery.objects.all().delete()


@pytest.mark.django_db(transaction=True)
def test_keys_are_kept_whatever_happens_in_whatever_order(link):
    link(parking, first, durable=True, order_by="key", unique="other")
    link(passing, second, durable=True, order_by="key", unique="other", on_dead="pass")
    run_state_machine_as_test(Model, settings=REPEATED)
