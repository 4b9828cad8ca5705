"""Doorbells for rows, and where they are rung: by the options of the rows' receivers."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from deferred_signals import handover, registry
from deferred_signals.bell import text_of
from deferred_signals.delivery import Delivery
from deferred_signals.envelope import Envelope
from deferred_signals.exceptions import NotYetKnown
from deferred_signals.options import Options
from deferred_signals.strict_json import parse

from .clock import DatabaseNow
from .models import OutboxDelivery, State
from .rows import MOST

#: Rows that one doorbell rings for: what a worker runs one after another, as long as it is quick.
AT_ONCE = 100

#: The id of a row, as it is or as text.
Key = TypeVar("Key", uuid.UUID, str)


def bells_for(alias: str, receivers: Mapping[Key, str], options: Options) -> Iterator[Delivery]:
    """The doorbells for rows of one route, by their ids; they travel as deliveries do."""
    ids = list(receivers)
    # A time limit is for one receiver's run, and Celery's are per message.
    size = 1 if options.time_limit or options.soft_time_limit else AT_ONCE
    for start in range(0, len(ids), size):
        part = ids[start : start + size]
        names = list(dict.fromkeys(receivers[one] for one in part))
        envelope = Envelope(
            id=str(uuid.uuid4()),
            created=0,
            receiver=names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more",
            signal=None,
            sender=None,
            kwargs={},
            context={},
        )
        yield Delivery.of(envelope, ("", text_of(alias, part)), options.doorbell)


class Rung(Protocol):
    """What must be known of a row to ring for it."""

    @property
    def delivery_id(self) -> uuid.UUID: ...
    @property
    def receiver(self) -> str: ...
    @property
    def signal(self) -> str: ...


Row = TypeVar("Row", bound=Rung)


def ring(alias: str, rows: Iterable[Rung]) -> bool:
    """Ring for rows by what this process knows of their receivers; False if the broker did not take all of it."""
    return not handover.ring(bells_of(alias, rows))


def bells_of(alias: str, rows: Iterable[Rung]) -> list[Delivery]:
    """The doorbells for rows, by what this process knows of their receivers."""
    return [bell for bells in bells_by_route(alias, rows) for bell in bells]


def bells_by_route(alias: str, rows: Iterable[Rung]) -> list[list[Delivery]]:
    """The same, those together that take the same way."""
    return [
        list(bells_for(alias, {row.delivery_id: row.receiver for row in some}, options))
        for options, some in by_route(rows)
    ]


def by_route(rows: Iterable[Row]) -> list[tuple[Options, list[Row]]]:
    """Rows by the way that their doorbells take, in the order of the first of each."""
    known: dict[tuple[str, str], list[Row]] = {}
    routes: dict[str, tuple[Options, list[Row]]] = {}
    for row in rows:
        connection = (row.receiver, row.signal)
        if connection not in known:
            options = options_of(*connection)
            known[connection] = routes.setdefault(route_of(options), (options, []))[1]
        known[connection].append(row)
    return list(routes.values())


def ids_of(bell: Delivery) -> list[uuid.UUID]:
    """The rows that a doorbell rings for, which was made here."""
    return [uuid.UUID(one) for one in parse(bell.own)["ids"]]


def route_of(options: Options) -> str:
    """What two doorbells must have in common to be one."""
    return repr(sorted(options.doorbell.message.items()))


def options_of(receiver: str, signal: str) -> Options:
    """The options of the connection of a receiver to a signal, both by name.

    Of an unknown receiver the default ones: a worker of a newer release may know it.
    """
    try:
        registration = registry.get(receiver)
    except NotYetKnown:
        return Options()
    return registration.options_for(signal)


def hand_to_the_relay(alias: str, ids: Sequence[str | uuid.UUID]) -> None:
    """Have the relay ring now for rows that wait. Raises the database's error."""
    rows = OutboxDelivery.objects.using(alias).filter(state=State.PENDING, due__lte=DatabaseNow())
    for start in range(0, len(ids), MOST):
        rows.filter(delivery_id__in=ids[start : start + MOST]).update(ring_at=DatabaseNow())
