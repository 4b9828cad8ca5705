"""The ``extra`` of log lines about one row; the names are those of ``log_lines``."""

from __future__ import annotations

from typing import Any

from .models import OutboxDelivery


def of_row(row: OutboxDelivery, outcome: str) -> dict[str, Any]:
    """What the line is about."""
    return {
        "delivery_id": str(row.delivery_id),
        "delivery_receiver": row.receiver,
        "delivery_signal": row.signal or None,
        "delivery_attempt": row.attempt,
        "delivery_outcome": outcome,
    }
