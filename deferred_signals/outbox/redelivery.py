"""What people do about deliveries that are dead, or wait: redeliver them, or discard them.

Never about one that runs: a row is only changed as it was read, and its ``lease`` is counted up, so that a worker which
had it once, and wakes, writes nothing.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from django.db import IntegrityError, transaction
from django.db.models import F, QuerySet

from deferred_signals import conf
from deferred_signals.envelope import Envelope, seal, unseal
from deferred_signals.exceptions import NewerWire, OpenError
from deferred_signals.registry import LONGEST_NAME

from . import keyed, succession
from .clock import DatabaseNow
from .models import OutboxDelivery, State
from .ringing import ring
from .rows import id_of

#: Rows that are changed in one transaction.
BATCH = 100

#: Told after each batch how many rows it has looked at.
Progress = Callable[[int], None]


class Left(NamedTuple):
    """A row that was left as it is, and why."""

    delivery_id: uuid.UUID
    receiver: str
    reason: str


@dataclass
class Account:
    """What became of the rows: how many were changed, their numbers, and which were not."""

    changed: int = 0
    left: list[Left] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    def change(self, rows: list[OutboxDelivery]) -> None:
        """Note that rows were changed."""
        self.changed += len(rows)
        self.numbers += [row.number for row in rows]

    def leave(self, row: OutboxDelivery, reason: str) -> None:
        """Note that a row was left as it is."""
        self.left.append(Left(row.delivery_id, row.receiver, reason))


def redeliver(rows: QuerySet[OutboxDelivery], progress: Progress | None = None) -> Account:
    """Have dead deliveries run again, as if for the first time; of the rows, those that are dead.

    The database is the one that the queryset says with ``using()``.
    They are rung for at once, after the commit, and by the relay if the broker is away. One whose payload cannot be
    verified, or whose ``expires`` has passed, is left as it is. Raises the database's error.
    """
    account = Account()
    for batch in _batches(rows.filter(state=State.DEAD)):
        with transaction.atomic(using=rows.db):
            revived = [row for row in batch if _revive(rows.db, row, account)]
            _ring_after_commit(rows.db, revived)
        account.change(revived)
        if progress is not None:
            progress(len(batch))
    return account


def discard(rows: QuerySet[OutboxDelivery], progress: Progress | None = None) -> Account:
    """End deliveries that are dead or wait, without running them; of the rows, those that are one or the other.

    What waited for them by its ``order_by`` key is rung for. Raises the database's error.
    """
    account = Account()
    for batch in _batches(rows.filter(state__in=(State.DEAD, State.PENDING)).defer("payload", "traceback")):
        with transaction.atomic(using=rows.db):
            ended = [row for row in batch if _end(rows.db, row, account)]
            _ring_after_commit(rows.db, [], ended)
        account.change(ended)
        if progress is not None:
            progress(len(batch))
    return account


def _batches(rows: QuerySet[OutboxDelivery]) -> Iterator[list[OutboxDelivery]]:
    """All rows, in the order of their numbers; what dies again meanwhile is not met again."""
    last = 0
    while batch := list(rows.filter(number__gt=last).order_by("number")[:BATCH]):
        last = batch[-1].number
        yield batch


def _as_read(alias: str, row: OutboxDelivery) -> QuerySet[OutboxDelivery]:
    return OutboxDelivery.objects.using(alias).filter(number=row.number, lease=row.lease, state=row.state)


def _revive(alias: str, row: OutboxDelivery, account: Account) -> bool:
    try:
        # Who asks for it has judged its age.
        envelope = unseal(row.payload, of_any_age=True)
    except (OpenError, NewerWire) as error:
        account.leave(row, str(error))
        return False
    if envelope.expires is not None and time.time() > envelope.expires:
        account.leave(row, "Its expires has passed.")
        return False
    columns = {} if row.receiver else _opened(envelope)
    try:
        # A savepoint takes as long as two more rows, and only a row that gets another id needs one.
        with transaction.atomic(using=alias, savepoint=bool(columns)):
            changed = _as_read(alias, row).update(
                **columns,
                state=State.PENDING,
                payload=seal(_anew(envelope).to_text()),
                lease=F("lease") + 1,
                attempt=1,
                crashes=0,
                due=DatabaseNow(),
                # As a sender's: it is rung for, and the relay rings where that was in vain.
                ring_at=DatabaseNow(conf.current().ring_again),
                rings=0,
                worker="",
                loss="",
                finished=None,
            )
    except IntegrityError:
        account.leave(row, "Its delivery has another row, which it can be redelivered by if it is dead.")
        return False
    if not changed:
        account.leave(row, "Somebody else has changed it meanwhile.")
        return False
    for name, value in columns.items():
        setattr(row, name, value)
    return True


def _anew(envelope: Envelope) -> Envelope:
    """The delivery as if for the first time, and caused by nothing but whoever redelivers it."""
    return replace(envelope, attempt=1, crashes=0, depth=0, repeats=0, waiting_since=None)


def _opened(envelope: Envelope) -> dict[str, Any]:
    """What the row of a payload lacks that could not be opened when it was kept."""
    return {
        "delivery_id": id_of(envelope.id),
        "receiver": envelope.receiver[:LONGEST_NAME],
        "signal": (envelope.signal or "")[:LONGEST_NAME],
    }


def _end(alias: str, row: OutboxDelivery, account: Account) -> bool:
    # What a dead one died of stays to be read.
    columns = {} if row.state == State.DEAD else {"error": "discarded by hand"}
    changed = _as_read(alias, row).update(
        **columns, state=State.DISCARDED, lease=F("lease") + 1, due=None, ring_at=None, finished=DatabaseNow()
    )
    if not changed:
        account.leave(row, "Somebody else has changed it meanwhile.")
    return bool(changed)


def _ring_after_commit(alias: str, rows: list[OutboxDelivery], ended: Iterable[OutboxDelivery] = ()) -> None:
    """Ring for rows, and for those that come after others which have ended."""
    keys = list({(row.order_key, row.unique_key): row for row in ended if keyed.has_key(row)}.values())

    def act() -> None:
        due = [*rows, *(following for row in keys for following in succession.following(alias, row))]
        if due and not ring(alias, due):
            waiting = OutboxDelivery.objects.using(alias).filter(number__in=[row.number for row in due])
            waiting.filter(state=State.PENDING).update(ring_at=DatabaseNow(), rings=0)

    transaction.on_commit(act, using=alias)
