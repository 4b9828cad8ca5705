"""Several claims at once: made, renewed, given back and completed, each by few statements for all of them.

The fence is that of one claim: what is written is written only ``WHERE lease`` is the claim's own.
"""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from typing import NamedTuple

from django.db import connections, transaction
from django.db.models import Q, QuerySet

from deferred_signals import conf, registry
from deferred_signals.failpoints import reach
from deferred_signals.options import Options

from .clock import DatabaseNow
from .lease import Claim, over, taken_by_me
from .models import OutboxDelivery, State
from .ringing import options_of


class Claimed(NamedTuple):
    """Rows that were claimed together, in the order of their doorbell, and of how many of its ids they are."""

    claims: list[Claim]
    size: int


def receivers(alias: str) -> list[str]:
    """The names of those whose rows may be claimed together; none where what is locked cannot be passed by."""
    if not connections[alias].features.has_select_for_update_skip_locked:
        return []
    found = registry.registrations(lambda one: one.batch_size > 1 and not one.options.atomic)
    now = [one for one in found if any(_most(stand_in.options) > 1 for stand_in in one.connections())]
    return [name for one in now for name in (one.name, *one.options.aliases)]


def claim_together(alias: str, ids: Sequence[uuid.UUID], names: Collection[str]) -> Claimed:
    """Claim those rows of receivers of these names that may run together: they are due, and have no key.

    A row that has lost a worker, or is losing one, is not among them: it may be what ends the worker, and the others
    would be counted with it as often. Raises the database's error.
    """
    reach("worker.before_claim")
    with transaction.atomic(using=alias):
        due = OutboxDelivery.objects.using(alias).filter(
            delivery_id__in=ids,
            receiver__in=names,
            state=State.PENDING,
            crashes=0,
            due__lte=DatabaseNow(),
            order_key=None,
            unique_key=None,
        )
        rows, size = _together({row.delivery_id: row for row in due.select_for_update(skip_locked=True)}, ids)
        if rows:
            # By number alone: by another index, InnoDB would wait for rows that others have locked.
            numbers = [row.number for row in rows]
            OutboxDelivery.objects.using(alias).filter(number__in=numbers).update(**taken_by_me())
    if rows:
        reach("worker.after_claim")
    return Claimed([Claim(alias, row, row.lease + 1) for row in rows], size)


def _together(rows: dict[uuid.UUID, OutboxDelivery], ids: Sequence[uuid.UUID]) -> tuple[list[OutboxDelivery], int]:
    """Of the rows, in the order of the ids, as many as each connection says; and up to which of the ids they are."""
    found: list[OutboxDelivery] = []
    counts: Counter[tuple[str, str]] = Counter()
    most: dict[tuple[str, str], int] = {}
    size = len(ids)
    for place, key in enumerate(ids):
        if (row := rows.pop(key, None)) is None:
            continue
        connection = (row.receiver, row.signal)
        if connection not in most:
            most[connection] = _most(options_of(*connection))
        if most[connection] == 1:
            continue
        if counts[connection] == most[connection]:
            size = place
            break
        counts[connection] += 1
        found.append(row)
    return found, size


def _most(options: Options) -> int:
    # A time limit is for one receiver's run, so such rows come one by one.
    return 1 if options.time_limit or options.soft_time_limit else options.batch_size


def renew(claims: Sequence[Claim]) -> bool:
    """Hold them for another lease; whether all of them are still held."""
    until = DatabaseNow(conf.current().lease)
    return _held(claims).update(due=until, ring_at=until) == len(claims)


def release(claims: Sequence[Claim], seconds: float) -> None:
    """Give back what was not begun; the relay rings for it in so many seconds."""
    _held(claims).update(state=State.PENDING, due=DatabaseNow(), ring_at=DatabaseNow(seconds))


def complete(claims: Sequence[Claim]) -> list[Claim]:
    """Write down that they have succeeded; return those whose rows are another run's by now."""
    reach("worker.before_completion")
    count = _held(claims).update(**over(State.SUCCEEDED))
    reach("worker.after_completion")
    if count == len(claims):
        return []
    # Those that are completed already were so by a statement whose answer was lost.
    completed = set(_of(claims).filter(state=State.SUCCEEDED).values_list("number", flat=True))
    return [claim for claim in claims if claim.row.number not in completed]


def _held(claims: Sequence[Claim]) -> QuerySet[OutboxDelivery]:
    return _of(claims).filter(state=State.RUNNING)


def _of(claims: Sequence[Claim]) -> QuerySet[OutboxDelivery]:
    """Their rows, but for those that were claimed anew since."""
    by_lease: dict[int, list[int]] = defaultdict(list)
    for claim in claims:
        by_lease[claim.lease].append(claim.row.number)
    fence = Q()
    for lease, numbers in by_lease.items():
        fence |= Q(lease=lease, number__in=numbers)
    return OutboxDelivery.objects.using(claims[0].alias).filter(fence)
