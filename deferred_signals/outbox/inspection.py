"""Whether all that is not finished still resolves in this release: row by row, in constant memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from django.db.models import QuerySet

from .models import OutboxDelivery, State
from .resolving import problem_of

#: Rows that are read at once. Payloads may be large.
BATCH = 100
#: Of what is finished nobody asks any more.
_STATES = (State.PENDING, State.RUNNING, State.DEAD)


class Group(NamedTuple):
    """What failing deliveries have in common."""

    state: str
    receiver: str
    kind: str
    reason: str


@dataclass(slots=True)
class Met:
    """How many of a group there are, and the first of them."""

    count: int
    example: str


@dataclass(slots=True)
class Inspected:
    """What was found in one database."""

    checked: int = 0
    failing: int = 0
    #: Payloads that could not be opened when they came: anybody who can write to the broker can make them.
    unopened: int = 0
    groups: dict[Group, Met] = field(default_factory=dict)

    def by_size(self) -> list[tuple[Group, Met]]:
        """The groups, the largest first."""
        return sorted(self.groups.items(), key=lambda pair: (-pair[1].count, pair[0]))


def inspect_rows(alias: str, progress: Callable[[int], None] | None = None) -> Inspected:
    """Look at all that is not finished; ``progress`` is told after each batch how many rows that were.

    Raises the database's error.
    """
    found = Inspected()
    last = 0
    while batch := list(_rows(alias).filter(number__gt=last).order_by("number")[:BATCH]):
        last = batch[-1].number
        for row in batch:
            _look_at(row, found)
        if progress is not None:
            progress(len(batch))
    return found


def number_of(alias: str) -> int:
    """How many rows ``inspect_rows`` looks at."""
    return _rows(alias).count()


def _rows(alias: str) -> QuerySet[OutboxDelivery]:
    rows = OutboxDelivery.objects.using(alias).filter(state__in=_STATES)
    return rows.only("number", "delivery_id", "state", "receiver", "payload")


def _look_at(row: OutboxDelivery, found: Inspected) -> None:
    if not row.receiver:
        found.unopened += 1
        return
    found.checked += 1
    problem = problem_of(row.payload)
    if problem is None:
        return
    found.failing += 1
    met = found.groups.setdefault(Group(row.state, row.receiver, *problem), Met(0, str(row.delivery_id)))
    met.count += 1
