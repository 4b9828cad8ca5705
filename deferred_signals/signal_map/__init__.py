"""The map of signals: who sends, who listens, inline or deferred, on which queue, durable or not.

``collect()`` looks at this process, and at nothing else: it asks no broker and no database. What it returns can be
listed, or drawn with ``mermaid()`` and ``svg()``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .as_mermaid import draw as draw_mermaid
from .as_svg import draw as draw_svg
from .collecting import everything
from .connection import Connection

__all__ = ["Connection", "SignalMap", "collect"]


@dataclass(frozen=True, slots=True)
class SignalMap:
    """Connections, in the order of their names. ``unread`` counts what this release of Django hides from us."""

    connections: tuple[Connection, ...]
    unread: int = 0

    def as_json(self) -> dict[str, Any]:
        """For a machine."""
        return {"connections": [one.as_json() for one in self.connections], "unread": self.unread}

    def mermaid(self) -> str:
        """A flowchart in Mermaid's language."""
        return draw_mermaid(self.connections)

    def svg(self, *, style: bool = True) -> str:
        """A picture, light or dark as its reader prefers. Without ``style`` the page has to bring ``as_svg.STYLE``."""
        return draw_svg(self.connections, style=style)


def collect(
    *,
    signal: str = "",
    sender: str = "",
    receiver: str = "",
    deferred: bool | None = None,
    app: str = "",
) -> SignalMap:
    """The connections of this process, or those of them that fit all that is given.

    ``signal``, ``sender`` and ``receiver`` are parts of names, in any case of letters; ``deferred`` is True for
    the deferred ones, False for the inline ones; ``app`` is the label of an app whose signal, sender or receiver it is.
    """
    found = everything()
    fit = [
        one
        for one in found.connections
        if signal.lower() in one.signal.lower()
        and sender.lower() in one.sender.lower()
        and receiver.lower() in one.receiver.lower()
        and deferred in {None, one.deferred}
        and (not app or app in one.apps)
    ]
    return SignalMap(tuple(fit), found.unread)
