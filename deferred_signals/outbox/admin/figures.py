"""The numbers of the dashboard, of one database and by its clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.db.models import Case, Count, F, IntegerField, Min, Q, QuerySet, Value, When
from django.db.models.expressions import RawSQL

from deferred_signals.outbox import attempts, keyed
from deferred_signals.outbox.clock import DatabaseNow, SecondsFromNow
from deferred_signals.outbox.models import Attempt, Failing, State
from deferred_signals.outbox.parked import Parked, parked

from . import databases
from .charts import Hour

HOURS = 24
#: Failed attempts that are looked at, and parked keys that are shown.
NEWEST, PARKED = 10_000, 20
_OPEN = (State.PENDING, State.RUNNING)
_ENDS = (State.SUCCEEDED, State.DISCARDED, State.DEAD)


@dataclass
class Figures:
    """What a dashboard shows of a database."""

    alias: str
    waiting: int = 0
    running: int = 0
    dead: int = 0
    #: Seconds since the oldest that waits was sent, and since the oldest that could run was due.
    oldest: float | None = None
    overdue: float | None = None
    #: By when they were sent, the first hour of all that are older; the others by when they ended.
    unfinished: list[Hour] = field(default_factory=list)
    finished: list[Hour] = field(default_factory=list)
    failed: list[Hour] = field(default_factory=list)
    #: Those who wait behind a dead one; one more than are shown.
    parked: list[Parked] = field(default_factory=list)


def figures(alias: str) -> Figures:
    """Ask the database. Raises the database's error."""
    rows = databases.rows(alias).order_by()
    # Of all rows only those that are not finished have a ring_at, and an index on it.
    waiting, running = (rows.filter(ring_at__isnull=False, state=one) for one in _OPEN)
    sent = waiting.aggregate(count=Count("number"), oldest=Min(SecondsFromNow("created")))
    found = Figures(alias, waiting=sent["count"], running=running.count())
    found.dead = rows.filter(state=State.DEAD).count()
    if sent["oldest"] is not None:
        found.oldest = max(-sent["oldest"], 0.0)
    found.overdue = _overdue(waiting.filter(due__lte=DatabaseNow()), keyed.blocked(alias))
    unfinished = rows.filter(ring_at__isnull=False)
    found.unfinished = _by_hour(unfinished, "created", "state", [one.value for one in _OPEN], and_before=True)
    found.finished = _by_hour(rows.filter(finished__isnull=False), "finished", "state", [one.value for one in _ENDS])
    if attempts.are_kept(alias):
        lines = Attempt.objects.using(alias)
        bound = next(iter(lines.order_by("-number").values_list("number", flat=True)[NEWEST - 1 : NEWEST]), 0)
        found.failed = _by_hour(lines.filter(number__gte=bound), "ended", "outcome", list(Failing.values))
    found.parked = parked(alias, PARKED + 1)
    return found


def _overdue(due: QuerySet[Any], blocked: RawSQL) -> float | None:
    first = due.exclude(blocked).order_by("due").values_list(SecondsFromNow("due"), flat=True).first()
    return None if first is None else max(-first, 0.0)


def _by_hour(rows: QuerySet[Any], when: str, what: str, kinds: list[str], *, and_before: bool = False) -> list[Hour]:
    """How many of each kind there were in each of the last hours, the last of which ends now.

    With ``and_before`` the first of them is of all that were before, too.

    By ages, not by hours of the clock: to truncate a time, MySQL needs tables of time zones that many lack.
    """
    ages = [
        When(Q((f"{when}__gt", DatabaseNow(-3600.0 * (ago + 1)))), then=Value(HOURS - 1 - ago)) for ago in range(HOURS)
    ]
    hours: list[dict[str, int]] = [dict.fromkeys(kinds, 0) for _ in range(HOURS)]
    recent = rows.filter(Q((f"{what}__in", kinds)))
    if not and_before:
        recent = recent.filter(Q((f"{when}__gt", DatabaseNow(-3600.0 * HOURS))))
    hour = Case(*ages, default=Value(0), output_field=IntegerField())
    counted = recent.annotate(hour=hour, kind=F(what)).values("hour", "kind").annotate(count=Count("number"))
    for one in counted.order_by():
        hours[one["hour"]][one["kind"]] += one["count"]
    return list(hours)
