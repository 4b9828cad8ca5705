"""What a row with a key means for the others of its keys: those that it ends, and those whose turn comes after it.

Whoever waits for a row is rung for by the worker that has ended it. Should that worker be lost just then, the relay
looks at them a lease after the claim.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from typing import Any

from django.db import connections
from django.db.models import Q, QuerySet

from deferred_signals import conf

from .clock import DatabaseNow, now_sql
from .keyed import TABLE, blocked_sql, first_sql, last_sql, parks_sql
from .models import OutboxDelivery, State
from .ringing import options_of

#: Rows named in one statement.
MOST = 500


def supersede(alias: str, row: OutboxDelivery) -> list[str]:
    """In the turn of a row that was claimed, discard those for which it counts; return their payloads."""
    if row.unique_key is None:
        return []
    rows = OutboxDelivery.objects.using(alias).filter(state=State.PENDING)
    earlier = rows.filter(unique_key=row.unique_key, number__lt=row.number)
    found = list(earlier.values_list("number", "order_key", "payload"))
    for start in range(0, len(found), MOST):
        # By number alone: by the key, InnoDB would wait for what other senders have not committed yet.
        discard(rows.filter(number__in=[number for number, _, _ in found[start : start + MOST]]), row.number)
    for key in {key for _, key, _ in found} - {None, row.order_key}:
        attend(alias, OutboxDelivery(order_key=key), 0)
    return [payload for _, _, payload in found]


def discard(rows: QuerySet[OutboxDelivery], by: int | None = None) -> int:
    """End rows for which a later one counts; return how many."""
    later = "a later one" if by is None else f"#{by}"
    return rows.update(
        state=State.DISCARDED, due=None, ring_at=None, finished=DatabaseNow(), error=f"superseded by {later}"
    )


def hurry(alias: str, row: OutboxDelivery) -> None:
    """Have the one that counts for a superseded row run as soon as that was to: ``countdown`` counts from the first.

    Not with ``debounce``, which counts from the last; nor if it waits for a retry.
    """
    if options_of(row.receiver, row.signal).debounce is None:
        now = now_sql(connections[alias])
        found = _heads(alias, OutboxDelivery(unique_key=row.unique_key), f"head.attempt = 1 AND head.due > {now}")
        _change(alias, found, due=DatabaseNow(), ring_at=DatabaseNow())


def attend(alias: str, row: OutboxDelivery, seconds: float | None = None) -> None:
    """Have the relay look in so many seconds, by default a lease, at what comes after a row.

    It may have put that off for longer, and a worker that is lost after the end of a run does not ring for the next.
    """
    seconds = conf.current().lease if seconds is None else seconds
    connection = connections[alias]
    late = f"head.ring_at > {now_sql(connection, seconds)} AND head.due <= {now_sql(connection)}"
    _change(alias, _heads(alias, row, late), ring_at=DatabaseNow(seconds), rings=0)


def _change(alias: str, numbers: list[int], **columns: Any) -> None:
    # By number alone; most often there are none, and MySQL does not update what it also reads.
    for number in numbers:
        OutboxDelivery.objects.using(alias).filter(number=number, state=State.PENDING).update(**columns)


def beside(alias: str, row: OutboxDelivery, ids: Collection[uuid.UUID]) -> list[uuid.UUID]:
    """Of some deliveries those that a row which runs does not keep waiting, in their order."""
    behind = Q()
    if row.order_key is not None:
        behind |= Q(order_key=row.order_key)
    if row.unique_key is not None:
        behind |= Q(unique_key=row.unique_key)
    if not behind:
        return list(ids)
    named = OutboxDelivery.objects.using(alias).filter(behind, delivery_id__in=ids)
    waiting = set(named.values_list("delivery_id", flat=True))
    return [one for one in ids if one not in waiting]


def following(alias: str, row: OutboxDelivery) -> list[OutboxDelivery]:
    """The rows whose turn it is after a row has ended: of each of its keys at most one, without payload."""
    free = f"head.due <= {now_sql(connections[alias])} AND NOT {blocked_sql(alias, 'head', parks_sql(row.receiver))}"
    numbers = _heads(alias, row, free)
    if not numbers:
        return []
    return list(OutboxDelivery.objects.using(alias).filter(number__in=numbers).order_by("number").defer("payload"))


def _heads(alias: str, row: OutboxDelivery, condition: str) -> list[int]:
    """Of those that wait, the first one of a row's ``order_by`` key and the last one of its ``unique`` key: numbers."""
    ends, keys = [], []
    for sql, key in ((first_sql(alias, "%s"), row.order_key), (last_sql(alias, "%s"), row.unique_key)):
        if key is not None:
            ends.append(f"head.number = {sql}")
            keys += [key] * sql.count("%s")
    if not ends:
        return []
    with connections[alias].cursor() as cursor:
        # No text of others is in it.
        cursor.execute(
            f"SELECT head.number FROM {TABLE} head WHERE ({' OR '.join(ends)}) AND {condition}",  # noqa: S608
            keys,
        )
        return [number for (number,) in cursor.fetchall()]
