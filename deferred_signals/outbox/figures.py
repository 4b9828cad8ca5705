"""The outbox in a few numbers, for monitoring: what a probe or a scrape may ask every few seconds.

Each is one statement. What waits and what runs is found by the index on ``ring_at``, which finished rows have not, so
the number of those does not matter; dead ones by an index of their own (on MySQL and MariaDB, which have none of a part
of a table, among all rows).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from django.db import connections, router
from django.db.models import Count, Min, QuerySet

from deferred_signals import keeping

from .clock import DatabaseNow, SecondsFromNow
from .keyed import blocked, passing
from .leader import LEASE, NAME
from .models import Lock, OutboxDelivery, State


class Open(NamedTuple):
    """How many wait, and how many run."""

    pending: int
    running: int


class Relay(NamedTuple):
    """Whether a relay leads, and the seconds since the leader's last sign of life; None if there has never been one."""

    leads: bool
    age: float | None


def aliases() -> Iterator[str]:
    """The databases that may have the tables; whether they have them, ``keeping.required().check()`` says."""
    return (alias for alias in connections if router.allow_migrate_model(alias, OutboxDelivery))


def check(alias: str) -> None:
    """Raise ConfigurationError if the database has no tables, or its error."""
    keeping.required().check(alias)


def _rows(alias: str) -> QuerySet[OutboxDelivery]:
    return OutboxDelivery.objects.using(alias).order_by()


def oldest(alias: str) -> float:
    """For how many seconds the oldest delivery has been due that waits and could run; 0 if there is none.

    Not its age: one that is retried tomorrow is not late, and one that waits for others of its key is not either.
    """
    waiting = _rows(alias).filter(ring_at__isnull=False, state=State.PENDING, due__lte=DatabaseNow())
    found = waiting.exclude(blocked(alias)).aggregate(since=Min(SecondsFromNow("due")))
    return max(0.0, -(found["since"] or 0.0))


def open_ones(alias: str) -> Open:
    """What is not finished."""
    found = _rows(alias).filter(ring_at__isnull=False).values_list("state").annotate(count=Count("number"))
    counts = dict(found)
    return Open(counts.get(State.PENDING, 0), counts.get(State.RUNNING, 0))


def dead(alias: str, most: int | None = None) -> int:
    """The dead deliveries that are kept; counted no further than ``most``, if that is given."""
    found = _rows(alias).filter(state=State.DEAD)
    return found.count() if most is None else found[:most].count()


def parked_keys(alias: str) -> int:
    """The ``order_by`` keys that a dead delivery stops, whether or not anything waits behind it."""
    stopping = _rows(alias).filter(state=State.DEAD, order_key__isnull=False).exclude(receiver__in=passing())
    return stopping.values("order_key").distinct().count()


def relay(alias: str) -> Relay:
    """Whether somebody rings for what is left over."""
    left = Lock.objects.using(alias).filter(name=NAME).values_list(SecondsFromNow("until"), flat=True).first()
    return Relay(False, None) if left is None else Relay(left > 0, max(0.0, LEASE - left))
