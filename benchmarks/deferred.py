"""Our receivers of the benchmarks; which options this version of the library takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models.signals import post_save
from django.dispatch import Signal

from deferred_signals import connect, receiver
from deferred_signals.exceptions import ConnectError

from .models import BatchRow, DeferredRow, DurableRow, Row

#: Names in the table.
DEFERRED, BATCH = "deferred receiver", "deferred receiver, batch_size=500"

#: What this version cannot do, with the reason.
missing: dict[str, str] = {}


@receiver(post_save, sender=DeferredRow, deferred=True)
def deferred(sender: Any, instance: Row, **kwargs: Any) -> None:
    """What this package recommends."""


@receiver(post_save, sender=DurableRow, deferred=True, durable=True)
def durable(sender: Any, instance: Row, **kwargs: Any) -> None:
    """What this package recommends for what must not be lost."""


def batch(sender: Any, instance: Row, **kwargs: Any) -> None:
    """What this package recommends for many at once."""


def connect_batch(signal: Signal, function: Callable[..., Any], sender: Any = None, *, batch_size: int) -> bool:
    """Connect a receiver with ``batch_size``; whether this version of the library has it."""
    try:
        connect(signal, function, sender, deferred=True, batch_size=batch_size)
    except ConnectError as error:
        missing["batch_size"] = str(error)
        return False
    return True


HAS_BATCH = connect_batch(post_save, batch, BatchRow, batch_size=500)
