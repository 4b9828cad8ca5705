"""Dead deliveries in groups: of one receiver, that died of one exception at one place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from .fingerprints import fingerprint, normalised
from .models import OutboxDelivery, State

#: Dead deliveries that are looked at, the newest. A traceback may have ten thousand characters.
MOST = 2_000
#: Rows that are in memory at once.
_CHUNK = 200


@dataclass
class Group:
    """Failures of one cause; ``sample`` is the number of the newest one."""

    key: str
    receiver: str
    error_type: str
    normal: str
    sample: int
    error: str
    last: datetime | None
    numbers: list[int] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.numbers)


def groups(alias: str, most: int = MOST) -> list[Group]:
    """The groups of the newest dead deliveries, the largest first. Raises the database's error."""
    found: dict[str, Group] = {}
    for row in _dead(alias, most):
        normal = normalised(row.traceback, row.error)
        key = fingerprint(row.receiver, row.error_type, normal)
        group = found.get(key)
        if group is None:
            group = found[key] = Group(key, row.receiver, row.error_type, normal, row.number, row.error, row.finished)
        group.numbers.append(row.number)
    return sorted(found.values(), key=lambda group: -group.count)


def group(alias: str, key: str, most: int = MOST) -> Group | None:
    """One of them, as it is now."""
    return next((one for one in groups(alias, most) if one.key == key), None)


def _dead(alias: str, most: int) -> Iterator[OutboxDelivery]:
    dead = OutboxDelivery.objects.using(alias).filter(state=State.DEAD).order_by("-number")
    columns = ("number", "receiver", "error_type", "error", "traceback", "finished")
    return dead.only(*columns)[:most].iterator(chunk_size=_CHUNK)
