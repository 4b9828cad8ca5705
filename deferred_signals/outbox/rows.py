"""Writing rows into the outbox, and taking back one that is written anew, in as few words to the database as can be.

A statement holds what is the same for all rows of one kind as text, and only what differs as parameters: each of them
costs more on its way than the database needs for its column.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import QuerySet

from deferred_signals import conf
from deferred_signals.delivery import Delivery
from deferred_signals.parts import in_parts
from deferred_signals.registry import LONGEST_NAME
from deferred_signals.strict_json import dump

from .clock import now_sql
from .models import Origin, OutboxDelivery, State
from .notifying import is_on

#: Rows in one statement, and characters of their payloads: SQLite takes 32,766 parameters, MariaDB 16 MB.
MOST, LARGEST = 500, 4_000_000

_meta = OutboxDelivery._meta
# In the time of every send; to look for a member of an enumeration takes long in Python 3.11.
_DURABLE = Origin.DURABLE

#: The columns that are parameters, and their types, by which PostgreSQL reads many rows out of one text.
_GIVEN = {
    "delivery_id": "uuid",
    "receiver": "text",
    "signal": "text",
    "payload": "text",
}
#: Those that few rows have.
_KEYS = {"order_key": "text", "unique_key": "text"}
_CONSTANT = {
    "state": f"'{State.PENDING.value}'",
    "rings": "0", "lease": "0", "worker": "''", "loss": "''", "crashes": "0", "error_type": "''", "error": "''",
    "traceback": "''",
}  # fmt: skip


#: By its column, what stands in the ``_GIVEN`` ones of a row, and in its ``_KEYS`` if it has any; in their order.
Given = dict[str, str | None]


class Kind(NamedTuple):
    """What stands in the text of a statement: rows that differ in it are written by statements of their own."""

    origin: Origin
    attempt: int
    #: Seconds from now until the row is due, and until the relay rings for it.
    due: float
    ring_at: float
    #: Whether it has keys.
    keyed: bool


class Row(NamedTuple):
    """A row to be written."""

    kind: Kind
    given: Given

    @property
    def payload(self) -> str:
        """The signed string."""
        return str(self.given["payload"])


_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def key_of(text: str) -> str:
    """The id of a row, as the text of a UUID, for the id of a delivery, which other senders might not make one."""
    if _UUID.fullmatch(text):
        return text
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, text))


def id_of(text: str) -> uuid.UUID:
    """The same as a UUID."""
    return uuid.UUID(key_of(text))


def row_of(connection: BaseDatabaseWrapper, delivery: Delivery, origin: Origin = _DURABLE) -> Row:
    """The row of a delivery. Raises ConfigurationError where it must be encrypted and cannot be."""
    options = delivery.options
    pause = options.debounce or options.countdown or 0
    order, unique = delivery.keys
    keyed = order is not None or unique is not None
    # A row whose sender rings is left to it for a while; what waits, or could not be published, has only the relay.
    # With autocommit off nothing tells the sender of its commit.
    is_rung = (
        origin is _DURABLE
        and not pause
        and (connection.in_atomic_block or connection.autocommit)
        and not is_on(connection)
    )
    given: Given = {
        # Durable ones are made here, by whom ids are UUIDs.
        "delivery_id": delivery.id if origin is _DURABLE else key_of(delivery.id),
        "receiver": delivery.receiver[:LONGEST_NAME],
        "signal": (delivery.signal or "")[:LONGEST_NAME],
        "payload": delivery.payload,
    }
    if keyed:
        given["order_key"], given["unique_key"] = order, unique
    return Row(Kind(origin, delivery.attempt, pause, conf.current().ring_again if is_rung else pause, keyed), given)


def insert(connection: BaseDatabaseWrapper, rows: Sequence[Row]) -> None:
    """Write rows, and give them numbers in this order. Raises the database's error."""
    for kind, some in groupby(rows, key=attrgetter("kind")):
        given = [row.given for row in some]
        for part in in_parts(given, (len(one["payload"] or "") for one in given), MOST, LARGEST):
            sql, parameters = _statement(connection, kind, part)
            with connection.cursor() as cursor:
                cursor.execute(sql, parameters)


def remove(connection: BaseDatabaseWrapper, rows: QuerySet[OutboxDelivery]) -> bool:
    """Delete the one row of a queryset, without ``pre_delete`` and ``post_delete``; False if there is none."""
    number = rows.values_list("number", flat=True).first()
    if number is not None:
        with connection.cursor() as cursor:
            cursor.execute(f"DELETE FROM {connection.ops.quote_name(_meta.db_table)} WHERE number = %s", [number])  # noqa: S608 - no text of others
    return number is not None


def _statement(connection: BaseDatabaseWrapper, kind: Kind, given: Sequence[Given]) -> tuple[str, list[Any]]:
    head, values, select = _texts(connection, kind)
    if connection.vendor == "postgresql" and len(given) > 1:
        # A fifth of what as many parameters take: psycopg looks for each in the text, and PostgreSQL parses as many
        # words.
        return select, [dump(given)]
    parameters = [value for row in given for value in row.values()]
    if not connection.features.has_native_uuid_field:
        # What UUIDField writes, without making a UUID of each.
        each = len(given[0])
        parameters[::each] = [str(key).replace("-", "") for key in parameters[::each]]
    return head + ",".join([values] * len(given)), parameters


_made: WeakKeyDictionary[BaseDatabaseWrapper, dict[Kind, tuple[str, str, str]]] = WeakKeyDictionary()


def _texts(connection: BaseDatabaseWrapper, kind: Kind) -> tuple[str, str, str]:
    """An INSERT up to its VALUES, the values of one row, and the SELECT of PostgreSQL's from one text."""
    made = _made.setdefault(connection, {})
    texts = made.get(kind)
    if texts is None:
        now, due, ring_at = (now_sql(connection, seconds) for seconds in (0, kind.due, kind.ring_at))
        constant = {
            "origin": f"'{kind.origin.value}'",
            "attempt": str(kind.attempt),
            "created": now,
            "due": due,
            "ring_at": ring_at,
            **_CONSTANT,
        }
        columns = {**_GIVEN, **_KEYS} if kind.keyed else _GIVEN
        quote = connection.ops.quote_name
        given, rest = ", ".join(map(quote, columns)), ", ".join(constant.values())
        typed = ", ".join(f"{quote(name)} {type_}" for name, type_ in columns.items())
        head = f"INSERT INTO {quote(_meta.db_table)} ({given}, {', '.join(map(quote, constant))}) "
        texts = made[kind] = (
            f"{head}VALUES ",
            f"({', '.join(['%s'] * len(columns))}, {rest})",
            f"{head}SELECT {given}, {rest} FROM JSON_TO_RECORDSET(%s) AS given({typed})",  # noqa: S608 - all of it is ours
        )
    return texts
