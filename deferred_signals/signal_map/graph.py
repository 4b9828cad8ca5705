"""The map as boxes and lines: what both drawings have in common.

Three columns: who sends, what, who listens. What is sent stands once for each sender, so that a line from it leads only
to those that hear of that sender's sends; who listens to any sender listens to those, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .connection import Connection

ANY_SENDER = "any sender"


@dataclass(slots=True)
class Graph:
    """Names by column, each once, in the order in which they first come; and what leads to whom."""

    senders: list[str] = field(default_factory=list)
    #: Signal and sender, both by name.
    sends: list[tuple[str, str]] = field(default_factory=list)
    receivers: list[str] = field(default_factory=list)
    lines: list[Connection] = field(default_factory=list)


def graph(connections: Sequence[Connection]) -> Graph:
    """The boxes and lines of these connections, those of one sender beside each other."""
    made = Graph()
    for one in sorted(connections, key=lambda one: (one.sender, one.signal, one.receiver)):
        for names, name in ((made.senders, one.sender), (made.receivers, one.receiver)):
            if name not in names:
                names.append(name)
        if (one.signal, one.sender) not in made.sends:
            made.sends.append((one.signal, one.sender))
        # What is connected twice, as by two names (dispatch_uid), is one line.
        if one not in made.lines:
            made.lines.append(one)
    return made


def short(name: str) -> str:
    """The last part of a dotted path, which is what people call it."""
    return name.rpartition(".")[2] if "(" not in name and "<" not in name else name


def manner(one: Connection) -> str:
    """How a receiver is called, in a word or two: for the label of a line."""
    if not one.deferred:
        return ""
    return ", ".join([one.queue or "deferred", *(["durable"] if one.durable else [])])
