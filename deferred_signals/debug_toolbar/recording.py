"""What was seen during one request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.db import connections, transaction
from django.db.models import Model

from ..delivery import Delivery

#: Where a delivery's waiting has ended; before, it waits for its commit.
WAITING, PUBLISHED, UNPUBLISHED = "waiting for commit", "published", "unpublished"
KEPT, ROLLED_BACK, NONE, REFUSED = "kept in the outbox", "rolled back", "none made", "refused"


@dataclass(eq=False)
class Sent:
    """One call of a deferred receiver's stand-in."""

    receiver: str
    signal: str
    shapes: dict[str, str]
    milliseconds: float
    #: None where none was made.
    id: str | None
    size: int | None
    durable: bool
    error: str = ""
    #: Whether its transaction was committed, or there was none to wait for.
    is_committed: bool = False


@dataclass(eq=False)
class Send:
    """One send with inline receivers, and how long all of them took together."""

    signal: str
    sender: str
    receivers: list[str]
    milliseconds: float


@dataclass(eq=False)
class Recording:
    """Of one request; its threads and coroutines may add to it at once, each of them by one append."""

    sent: list[Sent] = field(default_factory=list)
    inline: list[Send] = field(default_factory=list)
    #: By the ids of deliveries, what observers were told.
    heard: dict[str, str] = field(default_factory=dict)
    is_over: bool = False

    def add(self, sent: Sent) -> None:
        """Add a call, and be told when its transaction is committed.

        By Django's own hook, which a rollback takes away, that to a savepoint too. Which of several open transactions
        it waits for is not asked; the first commit counts.
        """
        self.sent.append(sent)
        waiting = [one.alias for one in connections.all(initialized_only=True) if one.in_atomic_block]
        for alias in waiting:
            transaction.on_commit(partial(setattr, sent, "is_committed", True), using=alias)
        sent.is_committed = not waiting

    def deliveries(self) -> list[dict[str, Any]]:
        """As JSON."""
        return [
            {
                "receiver": one.receiver,
                "signal": one.signal,
                "shapes": [{"name": name, "type": kind} for name, kind in one.shapes.items()],
                "size": one.size,
                "milliseconds": round(one.milliseconds, 3),
                "state": self._state(one),
                "durable": one.durable,
                "error": one.error,
                "id": one.id,
            }
            for one in self.sent
        ]

    def sends(self, threshold: float) -> list[dict[str, Any]]:
        """Those with inline receivers as JSON, the slowest first."""
        return [
            {
                "signal": one.signal,
                "sender": one.sender,
                "receivers": one.receivers,
                "milliseconds": round(one.milliseconds, 3),
                "is_slow": one.milliseconds >= threshold,
            }
            for one in sorted(self.inline, key=lambda one: -one.milliseconds)
        ]

    def _state(self, sent: Sent) -> str:
        if sent.error:
            return REFUSED
        if sent.id is None:
            return NONE
        if sent.id in self.heard:
            return self.heard[sent.id]
        if sent.is_committed:
            return KEPT  # neither published nor lost
        is_open = any(one.in_atomic_block for one in connections.all(initialized_only=True))
        return WAITING if is_open else ROLLED_BACK


def shapes_of(named: Mapping[str, Any]) -> dict[str, str]:
    """The names of arguments and their types, and nothing of their values."""
    return {name: _shape(value) for name, value in named.items()}


def _shape(value: Any) -> str:
    kind = type(value)
    return kind._meta.label if issubclass(kind, Model) else kind.__qualname__


def size_of(delivery: Delivery) -> int | None:
    """The bytes of its envelope; None of one whose text is in the database by now."""
    return len(delivery.text.encode()) if delivery.text else None
