"""Rows of the outbox in the kit; imported only where it is installed."""

from __future__ import annotations

from django.db.models import QuerySet

from .. import bell, keeping
from ..calling import Passes
from ..delivery import Delivery
from ..keeping import Run
from ..outbox.clock import DatabaseNow
from ..outbox.models import OutboxDelivery, State
from ..outbox.rows import id_of
from ..outcome import Outcome
from ..outcome import State as Ending

_ENDS: dict[str, Ending] = {"succeeded": "succeeded", "discarded": "discarded", "dead": "dead"}


def _rows(delivery: Delivery) -> QuerySet[OutboxDelivery]:
    return OutboxDelivery.objects.using(delivery.kept).filter(delivery_id=id_of(delivery.id))


def payload_of(delivery: Delivery) -> str:
    """What the row of a delivery holds; "" if there is none any more."""
    return _rows(delivery).values_list("payload", flat=True).first() or ""


def answer(delivery: Delivery, passes: Passes) -> list[Run]:
    """Ring for the row, as if all its time to wait were over; return what that has ended.

    The row may not be among it: others of its key come first.
    """
    _rows(delivery).filter(state=State.PENDING).update(due=DatabaseNow())
    payload = bell.Bell(str(delivery.kept), (id_of(delivery.id),)).payload
    return keeping.required().answer(bell.read(payload), passes)


def lose_worker(delivery: Delivery) -> None:
    """Leave the row as a worker does that was killed, when its lease is over."""
    _rows(delivery).update(state=State.RUNNING, due=DatabaseNow(), worker="a worker that a test has killed")


def end_of(delivery: Delivery) -> Outcome | None:
    """How the row has ended otherwise than by a run here; None if it waits."""
    row = _rows(delivery).first()
    if row is None:
        return Outcome("discarded", reason="its row is gone")
    if row.state in {State.PENDING, State.RUNNING}:
        return None
    return Outcome(_ENDS[row.state], reason=row.error)


def complete(delivery: Delivery) -> None:
    """Leave the row as it was before ``revive``."""
    _rows(delivery).update(state=State.SUCCEEDED, due=None, ring_at=None, finished=DatabaseNow())


def revive(delivery: Delivery) -> None:
    """Leave a finished row as if its completion had been lost together with the worker."""
    _rows(delivery).update(finished=None)
    lose_worker(delivery)
