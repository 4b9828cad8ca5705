"""What workers run: tasks and receivers of ``working.py``. Each fetches a row of PostgreSQL, and may take a while."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from celery import shared_task

from deferred_signals import Signal

from . import peers
from .deferred import connect_batch
from .models import Row
from .stamps import stamp

#: What a receiver takes besides its row, by the end of the comparison's key. It sleeps: no CPU, as most receivers.
COSTS = {"": 0.0, "_600us": 0.0006, "_5ms": 0.005}


def _take(row: Row, cost: float) -> None:
    if cost:
        time.sleep(cost)
    stamp(row.pk)


@shared_task
def by_hand(pk: int, cost: float = 0.0) -> None:
    """The task that everybody writes."""
    _take(Row.objects.get(pk=pk), cost)


@shared_task(acks_late=True, reject_on_worker_lost=True, ignore_result=True)
def by_hand_safe(pk: int) -> None:
    """The same, but what a deferred delivery does by default: whose worker dies is run again."""
    _take(Row.objects.get(pk=pk), 0.0)


@shared_task
def many_by_hand(pks: list[int], cost: float = 0.0) -> None:
    """The same for many: without a retry, an outcome or an exception of each by itself."""
    rows = Row.objects.in_bulk(pks)
    for pk in pks:
        _take(rows[pk], cost)


one_sent = Signal()


@one_sent.connect(deferred=True)
def one(sender: Any, instance: Row, **kwargs: Any) -> None:
    """A deferred receiver with a message for each delivery."""
    _take(instance, 0.0)


def batch(sender: Any, instance: Row, **kwargs: Any) -> None:
    """A deferred receiver with ``batch_size``."""
    _take(instance, COSTS[""])


def batch_600us(sender: Any, instance: Row, **kwargs: Any) -> None:
    """One that costs something."""
    _take(instance, COSTS["_600us"])


def batch_5ms(sender: Any, instance: Row, **kwargs: Any) -> None:
    """One that costs more."""
    _take(instance, COSTS["_5ms"])


batch_sent, batch_600us_sent, batch_5ms_sent = Signal(), Signal(), Signal()
#: By cost, the signal whose receiver has ``batch_size=100``; None where this version has no batches.
BATCHES: dict[str, Signal | None] = {}


def _connect(suffix: str, signal: Signal, function: Callable[..., None]) -> None:
    BATCHES[suffix] = signal if connect_batch(signal, function, batch_size=100) else None


_connect("", batch_sent, batch)
_connect("_600us", batch_600us_sent, batch_600us)
_connect("_5ms", batch_5ms_sent, batch_5ms)

if os.environ.get("BENCH_WORKER"):
    peers.connect_on_worker()
