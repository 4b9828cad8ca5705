"""The page of one delivery: all that its row says, and what became of each attempt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.utils.html import format_html
from django.utils.safestring import SafeString

from deferred_signals.outbox import attempts
from deferred_signals.outbox.models import OutboxDelivery, State

from .payloads import shown

FIELDSETS: tuple[Any, ...] = (
    (None, {"fields": ("delivery_id", "state", "receiver", "signal", "origin", "database")}),
    ("Times", {"fields": ("created", "due", "ring_at", "rings", "finished")}),
    ("Runs", {"fields": ("attempt", "crashes", "worker", "loss", "lease", "order_key", "unique_key")}),
    ("Last error", {"fields": ("error_type", "error_text", "traceback_text")}),
    ("Payload", {"fields": ("payload_text",)}),
)


class Facts:
    """The columns of that page which are no fields of the model. All texts of others are escaped."""

    @admin.display(description="database")
    def database(self, row: OutboxDelivery) -> str:
        """The alias in which the row is."""
        return str(row._state.db)

    @admin.display(description="error")
    def error_text(self, row: OutboxDelivery) -> SafeString | str:
        """The text of the last error, in which secrets were hidden when it was written down."""
        return _text(row.error)

    @admin.display(description="traceback")
    def traceback_text(self, row: OutboxDelivery) -> SafeString | str:
        """The traceback of the last error, as above."""
        return _text(row.traceback)

    @admin.display(description="payload")
    def payload_text(self, row: OutboxDelivery) -> SafeString | str:
        """What the delivery carries."""
        return _text(shown(row.payload))


def _text(text: str) -> SafeString | str:
    return format_html('<pre class="ds-text">{}</pre>', text) if text else "-"


@dataclass(frozen=True)
class Event:
    """A line of the timeline; ``kind`` is that of a state or of a failed attempt."""

    kind: str
    what: str
    began: datetime | None = None
    at: datetime | None = None
    worker: str = ""
    error_type: str = ""
    error: str = ""


def timeline(row: OutboxDelivery) -> list[Event]:
    """What has become of a delivery, from its sending to how it stands now."""
    return list(_events(row))


def _events(row: OutboxDelivery) -> Iterator[Event]:
    alias = str(row._state.db)
    yield Event("created", f"written ({row.get_origin_display()})", at=row.created)
    lines: Any = row.attempts.using(alias).order_by("number") if attempts.are_kept(alias) else ()
    last = None
    for one in lines:
        what = f"attempt {one.attempt}: {one.get_outcome_display()}"
        last = Event(one.outcome, what, one.started, one.ended, one.worker, one.error_type, one.error)
        yield last
    now = _standing(row)
    # What it died of is not said twice.
    yield replace(now, error_type="", error="") if last is not None and last.error == now.error else now


def _standing(row: OutboxDelivery) -> Event:
    match row.state:
        case State.PENDING:
            return Event(row.state, f"waits for attempt {row.attempt}, which may begin", at=row.due)
        case State.RUNNING:
            return Event(row.state, f"attempt {row.attempt} runs; its lease ends", at=row.due, worker=row.worker)
        case State.SUCCEEDED:
            return Event(row.state, f"attempt {row.attempt} succeeded", at=row.finished, worker=row.worker)
    what = f"{row.state} in attempt {row.attempt}"
    return Event(row.state, what, None, row.finished, row.worker, row.error_type, row.error)
