"""What the tests of claims share: sending durable deliveries, ringing for them, and moving the time of rows."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from django.db import transaction

from deferred_signals import Signal
from deferred_signals.bell import Bell
from deferred_signals.calling import Passes, everything
from deferred_signals.keeping import Run
from deferred_signals.outbox.answering import answer
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.models import OutboxDelivery

parcel_sent = Signal()


def send(count: int = 1, **kwargs: Any) -> list[uuid.UUID]:
    """Send so often in one transaction; the ids of the deliveries, in order."""
    with transaction.atomic():
        responses = [parcel_sent.send(sender=None, number=number, **kwargs) for number in range(count)]
    return [uuid.UUID(response.id) for sent in responses for _, response in sent if hasattr(response, "id")]


def ring(*ids: uuid.UUID, passes: Passes = everything) -> list[Run]:
    """Do what a worker does that is rung for these, by default for all rows there are."""
    named = ids or tuple(OutboxDelivery.objects.order_by("number").values_list("delivery_id", flat=True))
    return answer(Bell("default", named), passes)


def states(ended: list[Run]) -> list[str]:
    return [end.state for _, end in ended]


def expire() -> None:
    """Let the leases and pauses of all rows be over."""
    unfinished = OutboxDelivery.objects.exclude(due=None)
    unfinished.update(due=DatabaseNow(-60), ring_at=DatabaseNow(-60))


def once(action: Callable[[], Any]) -> Callable[..., None]:
    """An inquiry for ``receivers.curious``: does it in the first run only."""
    done: list[bool] = []

    def ask(**kwargs: Any) -> None:
        if not done:
            done.append(True)
            action()

    return ask
