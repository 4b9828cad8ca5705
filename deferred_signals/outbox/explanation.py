"""What is known of one delivery of the outbox, for people and machines; ``explaining`` finds it out."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .models import Origin, OutboxDelivery

_ORIGINS: dict[str, str] = {
    Origin.DURABLE: "durable: it was written in its sender's transaction",
    Origin.SPILLED: "spilled: the broker could not be had when it was sent",
    Origin.BURIED: "buried: it was a message, and is here because it died",
}


@dataclass(slots=True)
class Explanation:
    """What is known of a row; ``now`` and all times are of the database's clock."""

    database: str
    row: OutboxDelivery
    now: datetime
    #: Where it is, and why it was not delivered yet.
    why: list[str] = field(default_factory=list)
    next: str = ""
    #: When that is, if it is known.
    at: datetime | None = None
    cures: list[str] = field(default_factory=list)

    @property
    def origin(self) -> str:
        """How it has come here."""
        return _ORIGINS.get(self.row.origin, self.row.origin)  # a newer release may have another one

    def as_json(self) -> dict[str, Any]:
        """For a machine; without what it carries."""
        row = self.row
        names = (
            "state", "origin", "receiver", "signal", "attempt", "crashes", "rings", "worker", "loss", "order_key",
            "unique_key", "error_type", "error",
        )  # fmt: skip
        times = {name: getattr(row, name) for name in ("created", "due", "ring_at", "finished")}
        return {
            "found": True,
            "database": self.database,
            "id": str(row.delivery_id),
            **{name: getattr(row, name) for name in names},
            **{name: None if time is None else time.isoformat() for name, time in times.items()},
            "why": self.why,
            "next": self.next,
            "at": None if self.at is None else self.at.isoformat(),
            "cures": self.cures,
        }
