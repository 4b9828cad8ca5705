"""A small model of claim, renew, expire, complete, retry, crash, discard and redeliver, against the real database."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import pytest
from django.db.models import F
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from deferred_signals.envelope import seal
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.lease import Claim, claim
from deferred_signals.outbox.models import OutboxDelivery, State
from deferred_signals.outbox.redelivery import redeliver
from tests.travel import envelope

ROWS = 3
ENDED = {State.SUCCEEDED, State.DISCARDED, State.DEAD}


@dataclass
class Believed:
    """What a row must be."""

    key: uuid.UUID
    state: str = State.PENDING
    lease: int = 0
    crashes: int = 0
    attempt: int = 1
    is_due: bool = True
    #: How often it was redelivered, and in which of its lives it was completed.
    life: int = 0
    completed: tuple[int, ...] = ()


class Outbox(RuleBasedStateMachine):
    """Workers that claim, stall, die and wake as they like; each has as many claims as it likes."""

    @initialize()
    def rows_are_written(self) -> None:
        OutboxDelivery.objects.all().delete()
        self.believed = [Believed(uuid.uuid4()) for _ in range(ROWS)]
        OutboxDelivery.objects.bulk_create(
            OutboxDelivery(
                delivery_id=one.key,
                receiver="r",
                payload=seal(envelope(id=str(one.key)).to_text()),
                created=DatabaseNow(),
            )
            for one in self.believed
        )
        OutboxDelivery.objects.update(due=DatabaseNow(-1), ring_at=DatabaseNow(-1))
        #: Claims of which workers believe that they are theirs, with the row each is of.
        self.claims: list[tuple[Claim, Believed]] = []

    def some_claim(self, data: Any) -> tuple[Claim, Believed]:
        return data.draw(st.sampled_from(self.claims), "claim")  # type: ignore[no-any-return]  # hypothesis draws Any

    def holds(self, made: Claim, one: Believed) -> bool:
        return one.state == State.RUNNING and made.lease == one.lease

    @rule(which=st.integers(0, ROWS - 1))
    def claims_a_row(self, which: int) -> None:
        one = self.believed[which]
        made = claim("default", one.key)
        if one.state in ENDED or not one.is_due:
            assert made is None
            return
        assert isinstance(made, Claim)
        one.crashes += one.state == State.RUNNING
        one.lease += 1
        one.state, one.is_due = State.RUNNING, False
        assert (made.lease, made.row.crashes) == (one.lease, one.crashes)
        self.claims.append((made, one))

    @rule(which=st.integers(0, ROWS - 1))
    def time_passes(self, which: int) -> None:
        one = self.believed[which]
        if one.state not in ENDED:
            OutboxDelivery.objects.filter(delivery_id=one.key).update(due=DatabaseNow(-1), ring_at=DatabaseNow(-1))
            one.is_due = True

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def renews(self, data: Any) -> None:
        made, one = self.some_claim(data)
        assert made.renew() is self.holds(made, one)
        if self.holds(made, one):
            one.is_due = False

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), end=st.sampled_from([State.SUCCEEDED, State.DISCARDED, State.DEAD]))
    def ends(self, data: Any, end: State) -> None:
        made, one = self.some_claim(data)
        held = self.holds(made, one)
        assert made.end(end) is held
        if held:
            one.state = end
            if end == State.SUCCEEDED:
                one.completed += (one.life,)
        assert made.is_completed() is (one.state == State.SUCCEEDED and made.lease == one.lease)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), countdown=st.sampled_from([0, 1000]))
    def wants_a_retry(self, data: Any, countdown: int) -> None:
        made, one = self.some_claim(data)
        held = self.holds(made, one)
        assert made.again(countdown, attempt=F("attempt") + 1) is held
        if held:
            one.state, one.is_due, one.crashes = State.PENDING, countdown == 0, 0
            one.attempt += 1

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def is_broken_off(self, data: Any) -> None:
        made, one = self.some_claim(data)
        held = self.holds(made, one)
        assert made.release() is held
        if held:
            one.state, one.is_due = State.PENDING, True

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def crashes(self, data: Any) -> None:
        self.claims.remove(self.some_claim(data))

    @rule(which=st.integers(0, ROWS - 1))
    def is_redelivered(self, which: int) -> None:
        """By the command: a new lease, so that nothing of the old life counts."""
        one = self.believed[which]
        done = redeliver(OutboxDelivery.objects.filter(delivery_id=one.key)).changed
        assert done == (one.state == State.DEAD)
        if done:
            one.state, one.is_due, one.crashes, one.attempt = State.PENDING, True, 0, 1
            one.lease += 1
            one.life += 1

    @invariant()
    def the_rows_are_what_is_believed(self) -> None:
        now = {row.delivery_id: row for row in OutboxDelivery.objects.all()}
        due = set(OutboxDelivery.objects.filter(due__lte=DatabaseNow()).values_list("delivery_id", flat=True))
        for one in getattr(self, "believed", ()):
            row = now[one.key]
            assert (row.state, row.crashes, row.attempt) == (one.state, one.crashes, one.attempt)
            assert row.lease == one.lease, "it is counted by claims and redeliveries only, and never back"
            assert (row.due is None, row.ring_at is None, row.finished is None) == (
                (True, True, False) if one.state in ENDED else (False, False, True)
            )
            assert (one.key in due) is (one.state not in ENDED and one.is_due)
            assert len(set(one.completed)) == len(one.completed), "an effect is completed once in each life"

    @invariant()
    def at_most_one_claim_of_a_row_counts(self) -> None:
        for one in getattr(self, "believed", ()):
            holding = [made for made, of in self.claims if of is one and made.mine.exists()]
            assert len(holding) <= 1
            assert all(made.lease == one.lease for made in holding)


@pytest.mark.django_db(transaction=True)
def test_whatever_workers_do_a_row_has_one_holder_and_one_end():
    run_state_machine_as_test(Outbox, settings=settings(max_examples=40, stateful_step_count=30, deadline=None))


@pytest.mark.django_db(transaction=True)
def test_the_model_finds_what_an_end_without_the_lease_would_do(monkeypatch):
    """The variant without the fence is kept, so that it is seen that the model would find it."""
    unfenced = property(lambda self: OutboxDelivery.objects.using(self.alias).filter(number=self.row.number))
    monkeypatch.setattr(Claim, "mine", unfenced)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            Outbox,
            settings=settings(
                max_examples=200, stateful_step_count=30, deadline=None, database=None, phases=[Phase.generate]
            ),
        )
