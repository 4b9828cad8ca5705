"""Which rows a batch of the relay is about: those that are due are pushed into the future, and so are its own.

Nobody is waited for who has locked a row, and nothing is held meanwhile that others wait for: what is locked is passed
by.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple, TypeVar
from uuid import UUID

from django.db import OperationalError, connections, transaction
from django.db.models import F, QuerySet

from deferred_signals import conf
from deferred_signals.failpoints import reach

from . import keyed
from .clock import DatabaseNow
from .giving_way import has_given_way
from .models import OutboxDelivery

#: The longest time in seconds between two rings for one row. Those that stand in a long queue are rung for in vain; but
#: if the broker loses that queue, they wait for it.
LONGEST = 600.0
#: Rings that are counted for one row: what the column holds on every database. At one in ten minutes it comes to that.
MOST_RINGS = 32_767

Result = TypeVar("Result")


class Due(NamedTuple):
    """A row whose ``ring_at`` has passed: what a doorbell and the mark must know of it."""

    number: int
    delivery_id: UUID
    receiver: str
    signal: str
    rings: int
    order_key: str | None
    unique_key: str | None


class Marked(NamedTuple):
    """Rows that were marked, and the numbers of those that are not to be rung for: it is not their turn."""

    rows: list[Due]
    blocked: set[int]


def mark(alias: str, most: int, only: Collection[int] | None = None) -> Marked:
    """Push rows that are due into the future, so many at most, or ``only`` some. Raises the database's error."""
    due = OutboxDelivery.objects.using(alias).filter(ring_at__lte=DatabaseNow()).order_by("ring_at")
    if only is not None:
        due = due.filter(number__in=only)
    found = _of_free_rows(alias, due, most, lambda rows: _mark(alias, rows))
    return Marked([row for part in found for row in part.rows], {number for part in found for number in part.blocked})


def put_back(alias: str, numbers: Collection[int]) -> None:
    """Have rows be due again that were marked, at the end of those that are. Raises the database's error."""
    # A claim sets rings to 0, and the row is its own from then on. One that was discarded meanwhile has no ring_at.
    marked = OutboxDelivery.objects.using(alias).filter(number__in=numbers, rings__gt=0, ring_at__isnull=False)
    marked = marked.order_by()

    def act(rows: QuerySet[OutboxDelivery]) -> None:
        free = OutboxDelivery.objects.using(alias).filter(number__in=list(rows.values_list("number", flat=True)))
        free.update(ring_at=DatabaseNow(), rings=F("rings") - 1)

    _of_free_rows(alias, marked, len(numbers), act)


def _of_free_rows(
    alias: str, rows: QuerySet[OutboxDelivery], most: int, act: Callable[[QuerySet[OutboxDelivery]], Result]
) -> list[Result]:
    """Do something in a transaction with those rows that nobody has locked; or in several of them."""
    features = connections[alias].features
    if features.has_select_for_update and not features.has_select_for_update_skip_locked:
        numbers = list(rows.values_list("number", flat=True)[:most])
        return list(_by_halves(alias, rows.select_for_update(nowait=True), numbers, act))
    with transaction.atomic(using=alias):
        if not features.has_select_for_update:
            keyed.take(alias, "relay-batch")  # who writes has locked the database; so begin with that
        return [act(rows.select_for_update(skip_locked=True)[:most])]


def _by_halves(
    alias: str, rows: QuerySet[OutboxDelivery], numbers: list[int], act: Callable[[QuerySet[OutboxDelivery]], Result]
) -> Iterator[Result]:
    """Where one of them is locked, each half is tried by itself."""
    if not numbers:
        return
    try:
        with transaction.atomic(using=alias):
            done = act(rows.filter(number__in=numbers))
    except OperationalError as error:
        if not _is_locked(error):
            raise
    else:
        yield done
        return
    if len(numbers) > 1:
        half = len(numbers) // 2
        yield from _by_halves(alias, rows, numbers[:half], act)
        yield from _by_halves(alias, rows, numbers[half:], act)


#: By which databases say that a row is locked for which one does not wait: PostgreSQL's SQLSTATE, MySQL's code; what
#: MariaDB says stands for a wait as well.
_LOCKED = frozenset(["55P03", 3572])


def _is_locked(error: OperationalError) -> bool:
    said = error.__cause__
    codes = {getattr(said, "sqlstate", None), *(said.args[:1] if said else ())}
    return has_given_way(error) or bool(codes & _LOCKED)


def _mark(alias: str, due: QuerySet[OutboxDelivery]) -> Marked:
    """In a transaction: lock rows and mark them."""
    found = [Due(*values) for values in due.values_list(*Due._fields)]
    if not found:
        return Marked([], set())
    reach("relay.before_mark")
    rows = OutboxDelivery.objects.using(alias)
    keys = [row.number for row in found if row.order_key is not None or row.unique_key is not None]
    blocked = rows.filter(keyed.blocked(alias), number__in=keys).values_list("number", flat=True) if keys else ()
    marked = Marked(found, set(blocked))
    by_rings = defaultdict(list)
    for row in found:
        by_rings[row.rings].append(row.number)
    for rings, numbers in by_rings.items():
        # By number alone: by another index, InnoDB would wait for rows that others have locked.
        again = DatabaseNow(pause_after(rings))
        rows.filter(number__in=numbers).update(ring_at=again, rings=min(rings + 1, MOST_RINGS))
    return marked


def pause_after(rings: int) -> float:
    """Seconds until a row is rung for again that was rung for so often before."""
    first = conf.current().ring_again
    return max(first, min(first * 2.0 ** min(rings, 30), LONGEST))
