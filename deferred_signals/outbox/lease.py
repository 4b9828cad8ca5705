"""Claiming a row, and writing down what became of it: each by one statement that says what it expects.

A claim counts the row's ``lease`` up. Whoever holds the row writes only ``WHERE lease`` is its own, so what a worker
writes that was taken for dead, and was not, changes nothing. No lock is held between two statements.
"""

from __future__ import annotations

import functools
import time
import uuid
from dataclasses import dataclass, field, replace
from typing import Any

from django.db import DatabaseError, transaction
from django.db.models import F, QuerySet

from deferred_signals import conf
from deferred_signals.envelope import Envelope, unseal
from deferred_signals.failpoints import reach

from . import attempts, keyed, succession
from .clock import DatabaseNow
from .models import Failing, OutboxDelivery, State
from .processes import me


def taken_by_me() -> dict[str, Any]:
    """The columns of a row that this process claims."""
    until = DatabaseNow(conf.current().lease)
    return {
        "state": State.RUNNING,
        "lease": F("lease") + 1,
        "due": until,
        "ring_at": until,
        "rings": 0,
        "worker": me(),
        "loss": "",
    }


def over(state: State) -> dict[str, Any]:
    """The columns of a row that has ended."""
    return {"state": state, "due": None, "ring_at": None, "finished": DatabaseNow()}


@dataclass(eq=False)
class Claim:
    """A row that this process holds, as it was when it was claimed; ``crashes`` counts this claim's cause already."""

    alias: str
    row: OutboxDelivery
    lease: int
    #: Who had it and did not finish it, "" if nobody.
    lost: str = ""
    #: Whether an end was written by this claim, or is about to be committed: there is nothing more to renew.
    is_over: bool = False
    #: The payloads of the rows for which this one counts (``unique``), and which were discarded.
    superseded: list[str] = field(default_factory=list)
    #: When it was made, by the monotonic clock.
    began: float = field(default_factory=time.monotonic)

    @functools.cached_property
    def envelope(self) -> Envelope:
        """What its payload says. Raises OpenError and NewerWire."""
        return replace(unseal(self.row.payload, of_any_age=True), crashes=self.row.crashes)

    @property
    def mine(self) -> QuerySet[OutboxDelivery]:
        """The row, as long as it is held by this claim."""
        rows = OutboxDelivery.objects.using(self.alias)
        return rows.filter(number=self.row.number, lease=self.lease, state=State.RUNNING)

    def renew(self) -> bool:
        """Hold the row for another lease; False if it is somebody else's by now, or over."""
        until = DatabaseNow(conf.current().lease)
        return bool(self.mine.update(due=until, ring_at=until))

    def release(self) -> bool:
        """Give the row back as it was, for a run that was broken off from outside; False as for ``end``."""
        return self._leave(state=State.PENDING, due=DatabaseNow(), ring_at=DatabaseNow())

    def complete(self) -> bool:
        """Write down that the receiver has succeeded; False as for ``end``."""
        return self.end(State.SUCCEEDED)

    def end(self, state: State, **columns: Any) -> bool:
        """Write down how the delivery has ended; False if the row is somebody else's by now."""
        return self._leave(Failing.DEAD if state == State.DEAD else None, **over(state), **columns)

    def again(self, countdown: float, **columns: Any) -> bool:
        """Have the delivery run again in so many seconds; False as for ``end``."""
        due = DatabaseNow(countdown)
        return self._leave(Failing.RETRY, state=State.PENDING, due=due, ring_at=due, rings=0, crashes=0, **columns)

    def _leave(self, failing: Failing | None = None, **columns: Any) -> bool:
        if failing is not None and attempts.are_kept(self.alias):
            with transaction.atomic(using=self.alias):
                left = bool(self.mine.update(**columns))
                if left:
                    error = {name: columns[name] for name in attempts.ERROR if name in columns}
                    took = time.monotonic() - self.began
                    attempts.note(self.alias, self.row, self.lease, failing, took, worker=me(), **error)
        else:
            left = bool(self.mine.update(**columns))
        self.is_over = self.is_over or left
        return left

    def is_completed(self) -> bool:
        """Whether this claim has completed it, though the database's answer to that was lost."""
        rows = OutboxDelivery.objects.using(self.alias)
        return rows.filter(number=self.row.number, lease=self.lease, state=State.SUCCEEDED).exists()


@dataclass(frozen=True, eq=False)
class Superseded:
    """A row that was discarded at its claim, since a later one of its ``unique`` key waits."""

    row: OutboxDelivery


def claim(alias: str, key: uuid.UUID) -> Claim | Superseded | None:
    """Claim the row of a delivery; None if it is not there, not due, held, or not its turn.

    Raises the database's error.
    """
    reach("worker.before_claim")
    row = OutboxDelivery.objects.using(alias).filter(delivery_id=key, due__lte=DatabaseNow()).first()
    if row is None:
        return None
    take = _take_in_turn if keyed.has_key(row) else _take
    try:
        made = take(alias, row)
    except DatabaseError:
        if row.state != State.RUNNING or not attempts.are_in_doubt(alias):
            raise
        made = take(alias, row)  # without a line, which may have been the fault
    if isinstance(made, Claim):
        reach("worker.after_claim")
    return made


def _take_in_turn(alias: str, row: OutboxDelivery) -> Claim | Superseded | None:
    seen = keyed.standing(alias, row)
    if seen.blocked and not seen.superseded:
        return None  # without a lock, for a doorbell may name many; whoever blocks it rings when it has ended
    with keyed.turn(alias, row):
        seen = keyed.standing(alias, row)
        if seen.superseded:
            if not succession.discard(_as_read(alias, row)):
                return None
            succession.hurry(alias, row)
            return Superseded(row)
        made = None if seen.blocked else _take(alias, row)
        if made is not None:
            made.superseded = succession.supersede(alias, row)
            succession.attend(alias, row)
        return made


def _as_read(alias: str, row: OutboxDelivery) -> QuerySet[OutboxDelivery]:
    """The row, if nobody has claimed, renewed or ended it since it was read."""
    rows = OutboxDelivery.objects.using(alias)
    return rows.filter(number=row.number, lease=row.lease, state=row.state, due__lte=DatabaseNow())


def _take(alias: str, row: OutboxDelivery) -> Claim | None:
    if row.state == State.RUNNING:
        return _take_over(alias, row)
    taken = _as_read(alias, row).update(**taken_by_me())
    return Claim(alias, row, row.lease + 1) if taken else None


def _take_over(alias: str, row: OutboxDelivery) -> Claim | None:
    """Take a row whose worker was lost, or was taken for lost."""
    are_kept = attempts.are_kept(alias)
    with transaction.atomic(using=alias):
        if not _as_read(alias, row).update(**taken_by_me(), crashes=F("crashes") + 1):
            return None
        if are_kept:
            error = row.loss or "its lease ran out"
            attempts.note(alias, row, row.lease, Failing.LOST, None, worker=row.worker, error=error)
    row.crashes += 1
    return Claim(alias, row, row.lease + 1, f"{row.worker}{', ' if row.loss else ''}{row.loss}")
