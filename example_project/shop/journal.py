"""The journal that the pages and the demo show.

What becomes of a delivery is written by observers of its lifecycle, so the deferred receivers need not know of it.
"""

import os
from typing import Any

from django.db import transaction
from django.utils import timezone

from deferred_signals import Delivery, current_delivery, receiver
from deferred_signals.signals import delivery_finished, delivery_started, delivery_unpublished

from .models import Activity


def write(what: str, **fields: Any) -> Activity:
    """Note that something happens here and now."""
    process = Activity.Process.WORKER if current_delivery() else Activity.Process.WEB
    return Activity.objects.create(what=what, process=process, pid=os.getpid(), **fields)


def write_on_commit(what: str) -> None:
    """Note the moment of the commit. Call it first: hooks run in order, and ours publish deliveries.

    Robust, because Django drops all later hooks of the transaction when one fails.
    """
    transaction.on_commit(lambda: write(what), robust=True)


@receiver(delivery_started)
def attempt_started(sender: Any, delivery: Delivery, **kwargs: Any) -> None:
    write(delivery.receiver, delivery=delivery.id, attempt=delivery.attempt, state="running")


@receiver(delivery_finished)
def attempt_finished(sender: Any, delivery: Delivery | None, outcome: Any, **kwargs: Any) -> None:
    if delivery is not None:
        # The line that is open: a delivery that is redelivered counts its attempts anew.
        mine = Activity.objects.filter(delivery=delivery.id, attempt=delivery.attempt, pid=os.getpid(), state="running")
        mine.update(finished=timezone.now(), state=outcome.state, note=str(outcome.error or outcome.reason)[:500])


@receiver(delivery_unpublished)
def not_published(sender: Any, delivery: Delivery, error: Exception, **kwargs: Any) -> None:
    write(delivery.receiver, delivery=delivery.id, state="lost", note=str(error)[:500])
