"""Named points at which a test stops, kills or interleaves processes; at work nothing stands there.

Each is a moment between two steps of which a crash may see only the first. ``docs/chaos.md`` lists them.
"""

from __future__ import annotations

from collections.abc import Callable

#: What a test has a process do, by the name of the point.
actions: dict[str, Callable[[], None]] = {}


def reach(point: str) -> None:
    """Do what a test has asked for at this point."""
    if actions and (action := actions.get(point)) is not None:
        action()
