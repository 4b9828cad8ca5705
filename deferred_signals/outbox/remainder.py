"""What is left of a doorbell: it is passed on to other workers when a receiver keeps it waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from deferred_signals.handing_on import take

from .heartbeat import heartbeat

Item = TypeVar("Item")

#: Seconds that a receiver may keep those waiting which stand behind it in its doorbell.
PATIENCE = 0.1


@contextmanager
def passing_on(alias: str, rest: deque[Item], ring: Callable[[list[Item]], bool]) -> Iterator[None]:
    """Ring for what is left of a doorbell as soon as the block has kept it waiting for a moment.

    In two halves, each of which may be passed on again. ``ring`` asks the database of ``alias`` and the broker; what it
    answers False for, or raises for, comes back.
    """

    def pass_on() -> bool:
        taken = take(rest)
        half = (len(taken) + 1) // 2
        for part in (taken[:half], taken[half:]):
            is_rung = False
            try:
                is_rung = not part or ring(part)
            finally:
                if not is_rung:
                    rest.extend(part)
        return False

    if not rest:
        yield
        return
    with heartbeat(f"ring-{alias}").every(PATIENCE, pass_on):
        yield
