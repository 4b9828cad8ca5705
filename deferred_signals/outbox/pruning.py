"""Deleting the rows of finished deliveries, in batches, so that nobody waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from django.db import connections, transaction
from django.db.models import Count, QuerySet

from deferred_signals import conf

from . import attempts
from .clock import DatabaseNow, now_sql
from .models import OutboxDelivery, State

#: States whose rows nobody will ask for again. Dead ones are there to be redelivered.
FINISHED = (State.SUCCEEDED, State.DISCARDED)
BATCH = 1000
#: Seconds between two times that a relay prunes.
PAUSE = 60.0
#: Seconds for which a row may have been invisible that says when it was finished: until its transaction was committed.
SLACK = 3600.0


def prune(
    alias: str,
    older_than: float,
    states: Iterable[str] = FINISHED,
    batch: int = BATCH,
    *,
    most: int | None = None,
    younger_than: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Delete rows that have been in one of these end states for so many seconds; return how many.

    Each ``batch`` is a transaction of its own; ``most`` ends it after so many rows. ``younger_than`` spares the
    database to look at rows that were finished longer ago, which are those of dead deliveries. ``progress`` is told
    after each batch how many rows it was. Raises the database's error.
    """
    deleted, began = 0, time.monotonic()
    ends = [State(state).value for state in states]
    while most is None or deleted < most:
        size = batch if most is None else min(batch, most - deleted)
        # What grows old enough meanwhile is for the next time.
        age = older_than + time.monotonic() - began
        found = _finished(alias, age, ends)
        if younger_than is not None:
            found = found.filter(finished__gt=DatabaseNow(-younger_than))
        numbers = list(found.order_by("finished").values_list("number", flat=True)[:size])
        if numbers:
            have_attempts = attempts.are_kept(alias)
            with transaction.atomic(using=alias):
                deleted += _delete(alias, numbers, ends, age)
                if have_attempts:
                    attempts.forget(alias, numbers)
            if progress is not None:
                progress(len(numbers))
        if len(numbers) < size:
            break
    return deleted


def to_prune(alias: str, older_than: float, states: Iterable[str] = FINISHED) -> dict[str, int]:
    """How many rows ``prune`` would delete, by their state. Raises the database's error."""
    found = _finished(alias, older_than, [State(state).value for state in states])
    return dict(found.order_by("state").values_list("state").annotate(Count("number")))


def _finished(alias: str, older_than: float, ends: list[str]) -> QuerySet[OutboxDelivery]:
    return OutboxDelivery.objects.using(alias).filter(finished__lt=DatabaseNow(-older_than), state__in=ends)


def _delete(alias: str, numbers: list[int], ends: list[str], older_than: float) -> int:
    # In SQL, for QuerySet.delete() would send pre_delete and post_delete to receivers without a sender.
    connection = connections[alias]
    table = connection.ops.quote_name(OutboxDelivery._meta.db_table)
    which, states = ", ".join(["%s"] * len(numbers)), ", ".join(["%s"] * len(ends))
    with connection.cursor() as cursor:
        cursor.execute(
            # What was redelivered since it was found is not finished any more.
            f"DELETE FROM {table} WHERE number IN ({which}) AND state IN ({states}) "  # noqa: S608 - no text of others
            f"AND finished < {now_sql(connection, -older_than)}",
            [*numbers, *ends],
        )
        return int(cursor.rowcount)


class Pruning:
    """The pruning of one relay, by the setting ``RETENTION``: a batch each time that it is asked, with rests."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._next = time.monotonic()
        #: When everything was pruned that was old enough.
        self._done: float | None = None

    def goes_on(self) -> bool:
        """Prune a batch if it is time to; return whether there is more. Raises the database's error."""
        retention = conf.current().retention
        now = time.monotonic()
        if retention is None or now < self._next:
            return False
        younger = None if self._done is None else retention + (now - self._done) + SLACK
        if prune(self.alias, retention, most=BATCH, younger_than=younger) == BATCH:
            return True
        self._next, self._done = now + PAUSE, now
        return False
