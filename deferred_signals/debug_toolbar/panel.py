"""The panel: what a request has sent to deferred receivers, and which inline ones have kept it waiting."""

from __future__ import annotations

from typing import Any

from debug_toolbar.panels import Panel
from debug_toolbar.settings import get_config
from django.http import HttpRequest, HttpResponse

from . import watching
from .recording import Recording

#: Key of DEBUG_TOOLBAR_CONFIG: from how many milliseconds on inline receivers are said to be slow.
THRESHOLD = "DEFERRED_SIGNALS_INLINE_THRESHOLD"
DEFAULT_THRESHOLD = 100
#: Rows that are shown; the toolbar keeps what is shown of many requests.
MOST = 200


class DeferredSignalsPanel(Panel):
    """Deliveries of this request: to whom, with what shapes of arguments, how large, how costly, and what became of it.

    Nothing is measured while no request has the panel, and no value of an argument is shown.
    """

    title = "Deferred signals"
    nav_title = "Deferred signals"
    template = "deferred_signals/debug_toolbar.html"
    is_async = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._recording: Recording | None = None

    @property
    def nav_subtitle(self) -> str:
        """How many there are, below the panel's name."""
        stats = self.get_stats()
        text = _count(stats.get("count", 0), "delivery", "deliveries")
        slow = sum(send["is_slow"] for send in stats.get("sends", ()))
        return f"{text}, {_count(slow, 'slow send', 'slow sends')}" if slow else text

    def enable_instrumentation(self) -> None:
        """Called by the toolbar before the view; idempotent."""
        if self._recording is None:
            self._recording = Recording()
            watching.begin(self._recording)

    def disable_instrumentation(self) -> None:
        """Called by the toolbar after the view, also if that has raised."""
        if self._recording is not None and not self._recording.is_over:
            watching.end(self._recording)

    def generate_stats(self, request: HttpRequest, response: HttpResponse) -> None:
        """Store what is shown: numbers and names only, for it is kept as JSON."""
        if self._recording is None:
            return
        threshold = get_config().get(THRESHOLD, DEFAULT_THRESHOLD)
        deliveries, sends = self._recording.deliveries(), self._recording.sends(threshold)
        self.record_stats(
            {
                "count": len(deliveries),
                "deliveries": deliveries[:MOST],
                "more": max(0, len(deliveries) - MOST),
                "bytes": sum(one["size"] or 0 for one in deliveries),
                "milliseconds": sum(one["milliseconds"] for one in deliveries),
                "sends": sends[:MOST],
                "threshold": threshold,
            }
        )

    def generate_server_timing(self, request: HttpRequest, response: HttpResponse) -> None:
        """What the sends have cost, for the browser's own tools."""
        stats = self.get_stats()
        if stats:
            text = _count(stats["count"], "delivery", "deliveries")
            self.record_server_timing("send", f"Deferred signals: {text}", stats["milliseconds"])


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
