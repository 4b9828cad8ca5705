"""Deliveries with a key: one after another (``order_by``), or only the last of those that wait (``unique``).

Rows are always appended, so that no sender waits for another; a claim sorts them out. Of either key one row runs at a
time. Of an ``order_by`` key, the others wait for the rows of smaller numbers that are pending (a retry too) or, unless
``on_dead="pass"``, dead. Of a ``unique`` key, the pending one of the greatest number counts, and the others are
discarded. A row whose worker was lost still has its turn.

Claims of rows of one key are made in turn, by a row of ``models.Lock``: two that cannot see each other's rows yet would
both believe to be the first. An end needs no turn: see ``succession``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from django.db import connections, transaction
from django.db.models import BooleanField, F
from django.db.models.expressions import RawSQL

from deferred_signals import registry
from deferred_signals.exceptions import NotYetKnown

from .models import Lock, OutboxDelivery, State

#: Locks that the keys share; claims hold one for a few statements.
SLOTS = 64
#: Needs no quotes in any database.
TABLE = OutboxDelivery._meta.db_table


def has_key(row: OutboxDelivery) -> bool:
    """Whether other rows decide whether this one may run."""
    return row.order_key is not None or row.unique_key is not None


@contextmanager
def turn(alias: str, row: OutboxDelivery) -> Iterator[None]:
    """A transaction in which nobody else claims a row of the same keys."""
    keys = [key for key in (row.order_key, row.unique_key) if key is not None]
    with transaction.atomic(using=alias):
        # In one order everywhere, so that nobody waits in a circle.
        for slot in sorted({zlib.crc32(key.encode()) % SLOTS for key in keys}):
            take(alias, f"key-{slot}")
        yield


def take(alias: str, name: str) -> None:
    """Hold a lock until the end of the transaction.

    An UPDATE locks on every database. Where a transaction keeps to a snapshot that is older than the last turn
    (REPEATABLE READ), it fails, and a lock that writes nothing would not.
    """
    locks = Lock.objects.using(alias)
    while not locks.filter(name=name).update(turns=F("turns") + 1):
        locks.bulk_create([Lock(name=name)], ignore_conflicts=True)


def passing() -> list[str]:
    """The names of the receivers of this process whose dead deliveries stop nobody (``on_dead="pass"``)."""
    found = [one for one in registry.registrations() if one.options.on_dead == "pass"]
    return [name for one in found for name in (one.name, *one.options.aliases)]


# In SQL, for it stands in every claim, and to build it takes Django longer than databases to answer it. A comparison
# with a key that is NULL is not true. Earlier ones of the same unique key are discarded when the row is claimed.
_BLOCKED = """({row}.state = 'pending' AND (
  EXISTS (SELECT 1 FROM {table} other WHERE other.order_key = {row}.order_key AND other.state = 'running')
  OR COALESCE({first_pending}, {row}.number) < {row}.number
  OR ({parks} AND COALESCE({first_dead}, {row}.number) < {row}.number)
  OR EXISTS (SELECT 1 FROM {table} other WHERE other.unique_key = {row}.unique_key AND other.state = 'running')))"""
_ANOTHER = """(other.state <> 'pending' OR other.unique_key IS NULL OR {row}.unique_key IS NULL
    OR other.unique_key <> {row}.unique_key)"""

#: The first or last number of a key in a state. A planner that is asked for it plainly may go through all rows by their
#: numbers, if it believes that one of the key comes soon: so it is left the index of the key only.
_SEEKS = {
    "postgresql": """(SELECT found.number FROM (
        SELECT other.state, other.number FROM {table} other
        WHERE other.{column} = {key} AND other.state {beyond} '{state}' AND {condition}
        ORDER BY other.state {way}, other.number {way} LIMIT 1
      ) found WHERE found.state = '{state}')""",
    "mysql": """(SELECT other.number FROM {table} other FORCE INDEX ({index})
        WHERE other.{column} = {key} AND other.state = '{state}' AND {condition}
        ORDER BY other.number {way} LIMIT 1)""",
    "sqlite": """(SELECT other.number FROM {table} other INDEXED BY {index}
        WHERE other.{column} = {key} AND other.state = '{state}' AND {condition}
        ORDER BY other.number {way} LIMIT 1)""",
}
_INDEXES = {"order_key": "deferred_signals_order", "unique_key": "deferred_signals_unique"}


def first_sql(alias: str, key: str, state: State = State.PENDING, condition: str = "1 = 1") -> str:
    """The SQL of the first number of an ``order_by`` key in a state; ``key`` and ``condition`` are SQL as well."""
    return _seek(alias, "order_key", key, state, condition, beyond=">=", way="ASC")


def last_sql(alias: str, key: str) -> str:
    """The SQL of the last number of a ``unique`` key that waits."""
    return _seek(alias, "unique_key", key, State.PENDING, "1 = 1", beyond="<=", way="DESC")


def _seek(alias: str, column: str, key: str, state: State, condition: str, **words: str) -> str:
    words |= {"table": TABLE, "column": column, "index": _INDEXES[column], "key": key, "condition": condition}
    return _SEEKS[connections[alias].vendor].format(state=state.value, **words)


def blocked_sql(alias: str, row: str, parks: str) -> str:
    """The SQL of whether a row must wait for others of its keys; ``row`` is what it is called there.

    ``parks`` is the SQL of whether its receiver's dead deliveries stop others.
    """
    key = f"{row}.order_key"
    return _BLOCKED.format(
        row=row,
        table=TABLE,
        parks=parks,
        first_pending=first_sql(alias, key, condition=_ANOTHER.format(row=row)),
        first_dead=first_sql(alias, key, State.DEAD),
    )


def parks_sql(receiver: str) -> str:
    """The same of one receiver."""
    return "1 = 1" if parks(receiver) else "1 = 0"


def blocked(alias: str) -> RawSQL:
    """The condition on rows that must wait for others of their keys, for ``filter()`` of a queryset of all rows."""
    receivers = passing()
    parks = f"{TABLE}.receiver NOT IN ({', '.join(['%s'] * len(receivers))})" if receivers else "1 = 1"
    text = blocked_sql(alias, TABLE, parks)
    return RawSQL(text, receivers, output_field=BooleanField())  # noqa: S611 - no text of others is in it


class Standing(NamedTuple):
    """What the other rows of its keys say of a row that is to be claimed."""

    superseded: bool
    blocked: bool


def standing(alias: str, row: OutboxDelivery) -> Standing:
    """How a row stands now. Only in its ``turn`` does it stay so until it is claimed."""
    superseded = f"(mine.state = 'pending' AND COALESCE({last_sql(alias, 'mine.unique_key')}, 0) > mine.number)"
    blocked = blocked_sql(alias, "mine", parks_sql(row.receiver))
    with connections[alias].cursor() as cursor:
        # No text of others is in it.
        cursor.execute(f"SELECT {superseded}, {blocked} FROM {TABLE} mine WHERE mine.number = %s", [row.number])  # noqa: S608
        seen = cursor.fetchone()
    return Standing(False, True) if seen is None else Standing(*map(bool, seen))


def parks(receiver: str) -> bool:
    """Whether a dead delivery stops those of its key that come after it (``on_dead``)."""
    try:
        return registry.get(receiver).options.on_dead == "park"
    except NotYetKnown:
        return True
