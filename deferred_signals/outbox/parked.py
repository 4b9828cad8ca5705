"""Keys that are parked: a dead delivery stops those of its ``order_by`` key that come after it (``on_dead="park"``).

Both ways out are in ``redelivery``: to redeliver the dead one, or to discard it. What waits is rung for then.
"""

from __future__ import annotations

from typing import NamedTuple

from django.db.models import Min

from .keyed import passing
from .models import OutboxDelivery, State


class Parked(NamedTuple):
    """A parked key: the dead delivery by which it is, the first one if there are several, and how many wait for it."""

    key: str
    dead: OutboxDelivery
    waiting: int


def parked(alias: str, most: int | None = None) -> list[Parked]:
    """The parked keys of a database, those first that were parked first, or so many of them; rows without payload."""
    rows = OutboxDelivery.objects.using(alias).order_by()
    dead = rows.filter(state=State.DEAD, order_key__isnull=False).exclude(receiver__in=passing())
    first = dead.values("order_key").annotate(first=Min("number")).values("first")
    # Counted one key after another, each by its index: that there are many of them is rare, that many wait is not.
    return [
        Parked(
            str(one.order_key),
            one,
            rows.filter(order_key=one.order_key, state=State.PENDING, number__gt=one.number).count(),
        )
        for one in rows.filter(number__in=first).order_by("number").defer("payload", "traceback")[:most]
    ]
