"""celery-signal-receivers: a signal of a dataclass, each receiver a Celery task, called while the sender sends."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from celery_signals import receiver_task
from unified_signals import UnifiedSignal

from ..models import Row
from ..stage import Broker
from ..stamps import stamp


@dataclasses.dataclass
class RowSaved:
    """What the signal tells."""

    id: int


def handle(sender: Any, message: RowSaved, **kwargs: Any) -> None:
    """The receiver; what it needs of the row it fetches itself."""
    stamp(Row.objects.get(pk=message.id).pk)


def connected() -> UnifiedSignal:
    """A signal with its receiver, whose task is one of the app that is current now."""
    signal = UnifiedSignal(RowSaved)
    # Not shared: each broker of a run has an app, and each app a task of this name.
    receiver_task(signal, celery_task_options={"shared": False})(handle)
    return signal


def connect_on_worker() -> None:
    """Register the task."""
    connected()


class Sender:
    """Its sender's side."""

    name = "celery-signal-receivers (before the commit)"
    by_celery = True
    rows = Row

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.signal: UnifiedSignal | None = None

    def prepare(self) -> None:
        """Connect the receiver, once for each app."""
        self.signal = self.signal or connected()

    def send(self, row: Row) -> object:
        """Have the receiver called for a row."""
        return self.signal.send(sender=Row, message=RowSaved(row.pk))

    def expect(self, count: int) -> None:
        """Remove its messages."""
        self.broker.expect(count)

    def publish(self, rows: Sequence[Row]) -> None:
        """Have the receiver called for all of them."""
        for row in rows:
            self.send(row)
