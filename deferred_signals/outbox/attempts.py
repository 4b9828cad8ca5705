"""The attempts of a row that failed, one line each: what the admin shows as a delivery's timeline.

The row itself knows only its last error. A line is written in the transaction that writes the end of an attempt, or
the claim that finds its worker lost, so by whoever holds the row and nobody else. An attempt that succeeds, or that
the receiver discards, writes nothing here: what is to be known of it stands in the row. The lines go with their row.

A line is worth less than what it tells of. Where none can be written, the transaction fails as a whole, for nobody can
tell whether it was the line's fault; but for a while no line is written, so whoever tries again writes the end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DatabaseError, connections

from .clock import DatabaseNow
from .models import Attempt, Failing, OutboxDelivery
from .tables import has_table

logger = logging.getLogger("deferred_signals")

#: Claims of one row that are looked back on: what waits for something may be tried for a long time.
MOST = 100
#: The columns of a row that its line has as well.
ERROR = ("error_type", "error")

#: Seconds for which no line is written, nor is the table looked for, after it was not there or has had an error.
REST = 60.0

#: The databases that have the table, and those of which that was said.
_there: set[str] = set()
_said: set[str] = set()
#: Until when, by the monotonic clock, those rest whose table is missing or in doubt.
_resting: dict[str, float] = {}
#: Those in which lines could not be deleted the last time.
_undeleted: set[str] = set()


def are_kept(alias: str) -> bool:
    """Whether lines are to be written: a worker may be of a newer release than its database, or have no right to.

    Raises the database's error.
    """
    if alias in _there:
        return True
    if are_in_doubt(alias):
        return False
    if has_table(alias, Attempt):
        _there.add(alias)
        return True
    _rest(
        alias,
        "The database %r has no table for failed attempts yet, and they are not noted down. Run manage.py "
        "migrate --database=%s deferred_signals_outbox.",
        alias,
        alias,
    )
    return False


def are_in_doubt(alias: str) -> bool:
    """Whether no lines are written just now. Asks nobody."""
    return time.monotonic() < _resting.get(alias, 0.0)


def doubt(alias: str, error: DatabaseError) -> None:
    """Write no lines for a while, and then see whether there is a table."""
    said = "Failed attempts cannot be noted down in the database %r, and for %d s at a time are not: %s"
    _rest(alias, said, alias, REST, type(error).__name__)


def _rest(alias: str, said: str, *what: object) -> None:
    _there.discard(alias)
    _resting[alias] = time.monotonic() + REST
    if alias not in _said:
        _said.add(alias)
        logger.warning(said, *what)


@contextmanager
def _doubted(alias: str) -> Iterator[None]:
    """Raises the database's error, and remembers it. Behind a savepoint it would be one more trip for each line."""
    try:
        yield
    except DatabaseError as error:
        doubt(alias, error)
        raise


def note(alias: str, row: OutboxDelivery, lease: int, outcome: Failing, seconds: float | None, **columns: Any) -> None:
    """Write down an attempt of a row that began so many seconds ago, in the transaction that is open.

    Raises the database's error.
    """
    lines = Attempt.objects.using(alias)
    started = None if seconds is None else DatabaseNow(-seconds)
    line = Attempt(
        row_id=row.number, lease=lease, attempt=row.attempt, outcome=outcome,
        started=started, ended=DatabaseNow(), **columns,
    )  # fmt: skip
    with _doubted(alias):
        lines.bulk_create([line])  # which sends no pre_save and post_save to receivers without a sender
        if lease > MOST:
            old = lines.filter(row_id=row.number, lease__lte=lease - MOST)
            _delete(alias, list(old.values_list("number", flat=True)))


def forget(alias: str, numbers: Collection[int]) -> None:
    """In the transaction in which rows of these numbers were deleted, delete the lines of those that are gone.

    Raises the database's error. The first time that is no reason to doubt, only to look whether the table is there:
    of rows that are pruned meanwhile, the lines would stay for ever.
    """
    try:
        _forget(alias, numbers)
    except DatabaseError as error:
        if alias in _undeleted:
            doubt(alias, error)
        _undeleted.add(alias)
        _there.discard(alias)
        raise
    _undeleted.discard(alias)


def _forget(alias: str, numbers: Collection[int]) -> None:
    lines = dict(Attempt.objects.using(alias).filter(row_id__in=numbers).values_list("number", "row_id"))
    if lines:
        rows = OutboxDelivery.objects.using(alias).filter(number__in=set(lines.values()))
        there = set(rows.values_list("number", flat=True))  # redelivered meanwhile
        _delete(alias, [number for number, row in lines.items() if row not in there])


#: Lines that are deleted by one statement.
_BATCH = 500


def _delete(alias: str, numbers: list[int]) -> None:
    # By number alone, and in SQL, both for what ``pruning`` says.
    connection = connections[alias]
    table = connection.ops.quote_name(Attempt._meta.db_table)
    for start in range(0, len(numbers), _BATCH):
        part = numbers[start : start + _BATCH]
        with connection.cursor() as cursor:
            cursor.execute(f"DELETE FROM {table} WHERE number IN ({', '.join(['%s'] * len(part))})", part)  # noqa: S608 - no text of others
