"""What the page of the signal map shows: the connections of this web process, as a picture and as a table."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.utils.safestring import mark_safe

from deferred_signals.management.map_filters import unread_note
from deferred_signals.signal_map import SignalMap, collect

#: Connections that are drawn; of more, no picture can be read.
MOST = 300

#: How a receiver is called, by what the URL says; as the options of ``manage.py signal_map``.
_MANNERS: dict[str, tuple[str, bool | None]] = {
    "": ("Inline and deferred", None),
    "deferred": ("Only deferred", True),
    "inline": ("Only inline", False),
}


def mapped(request: HttpRequest) -> dict[str, Any]:
    """What the template shows. A choice that there is not is none."""
    every = collect()
    apps = sorted({label for one in every.connections for label in one.apps})
    app, manner = request.GET.get("app", ""), request.GET.get("manner", "")
    app, manner = app if app in apps else "", manner if manner in _MANNERS else ""
    signal = request.GET.get("signal", "").strip()
    found = collect(app=app, signal=signal, deferred=_MANNERS[manner][1]) if app or signal or manner else every
    drawn = SignalMap(found.connections[:MOST])
    return {
        "apps": apps,
        "manners": [(key, title) for key, (title, _) in _MANNERS.items()],
        "chosen": {"app": app, "manner": manner, "signal": signal},
        "is_filtered": found is not every,
        # A drawing of ours, in which each text is escaped and no attribute holds one.
        "svg": mark_safe(drawn.svg(style=False)),  # noqa: S308
        "connections": drawn.connections,
        "count": len(found.connections),
        "left_out": len(found.connections) - len(drawn.connections),
        "unread": unread_note(found),
    }
