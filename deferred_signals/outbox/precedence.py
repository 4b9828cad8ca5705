"""Which other delivery of its keys keeps a row waiting, for people: ``keyed`` only knows that one does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from django.db.models import QuerySet

from . import keyed
from .models import OutboxDelivery, State


class Before(NamedTuple):
    """A row that comes before another one, by which key, and what it does."""

    row: OutboxDelivery
    key: str
    does: str


def before(alias: str, row: OutboxDelivery) -> Before | None:
    """The row that keeps another one waiting, without its payload; None if it has ended meanwhile."""
    rows = OutboxDelivery.objects.using(alias).order_by("number").defer("payload", "traceback")
    for key, does, some in _candidates(rows, row):
        if (other := some.first()) is not None:
            return Before(other, key, does)
    return None


def waiting_behind(alias: str, row: OutboxDelivery) -> int:
    """How many wait for a dead row to be redelivered or discarded; 0 where it stops nobody."""
    if row.order_key is None or not keyed.parks(row.receiver):
        return 0
    rows = OutboxDelivery.objects.using(alias).filter(order_key=row.order_key, state=State.PENDING)
    return rows.filter(number__gt=row.number).count()


def _candidates(
    rows: QuerySet[OutboxDelivery], row: OutboxDelivery
) -> Iterator[tuple[str, str, QuerySet[OutboxDelivery]]]:
    """Those that ``keyed`` asks for, in its order."""
    for column, key in (("order_key", row.order_key), ("unique_key", row.unique_key)):
        if key is not None:
            yield key, "runs now", rows.filter(**{column: key}, state=State.RUNNING)
    if row.order_key is None:
        return
    earlier = rows.filter(order_key=row.order_key, number__lt=row.number)
    # Those for which it counts itself do not keep it waiting.
    others = earlier if row.unique_key is None else earlier.exclude(unique_key=row.unique_key)
    yield row.order_key, "waits before it", others.filter(state=State.PENDING)
    if keyed.parks(row.receiver):
        yield row.order_key, "is dead, and parks the key", earlier.filter(state=State.DEAD)
