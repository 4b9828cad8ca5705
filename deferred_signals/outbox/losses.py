"""Ending the leases of a process that is known to be gone, so that nobody waits until they run out."""

from __future__ import annotations

import os
import time
from collections import deque

from . import leader
from .clock import DatabaseNow
from .models import OutboxDelivery, State
from .processes import name_of

#: Seconds between two looks for whether a process is gone yet, and after how many it is believed to stay.
PAUSE, PATIENCE = 0.1, 60.0
#: The longest pause before a row runs again that ends one process after another.
LONGEST_PAUSE = 30.0


class Losses:
    """The processes that one relay was told of, until it has told its database."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._told: deque[tuple[int, str, bool, float]] = deque()

    def __bool__(self) -> bool:
        return bool(self._told)

    def add(self, pid: int, how: str, *, is_gone: bool = False) -> None:
        """Note that a process of this host was lost, and how; ``is_gone`` where that needs no look."""
        self._told.append((pid, how, is_gone, time.monotonic()))

    def settle(self) -> float:
        """End the leases of those that are gone; return seconds until it is worth to look again.

        One that is still there, as after a time limit, could still be at work. Raises the database's error.
        """
        for _ in range(len(self._told)):
            pid, how, gone, since = self._told[0]
            if gone or is_gone(pid):
                end_leases(self.alias, pid, how)
            elif time.monotonic() - since < PATIENCE:
                self._told.append((pid, how, gone, since))
            self._told.popleft()
        return PAUSE if self._told else float("inf")


def is_gone(pid: int) -> bool:
    """Whether no process of this host has that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # somebody else's by now
        return True
    return False


def end_leases(alias: str, pid: int, how: str) -> int:
    """Have what a process of this host was running be claimed and rung for at once; return how many rows.

    The claim counts the crash, and tells of ``how``. What has ended a process before waits a while, as it would without
    this: what ends them, say a lack of memory, may pass. If the process was the relay, another one may lead. Raises the
    database's error.
    """
    leader.depose(alias, pid)
    rows = OutboxDelivery.objects.using(alias).filter(worker=name_of(pid), state=State.RUNNING)
    # The end of its lease is in the future: of a table full of finished rows, that is all that an index leaves.
    rows = rows.filter(ring_at__gt=DatabaseNow())
    longest = OutboxDelivery._meta.get_field("loss").max_length
    ended = 0
    for crashes in set(rows.values_list("crashes", flat=True)):
        due = DatabaseNow(pause_after(crashes))
        ended += rows.filter(crashes=crashes).update(due=due, ring_at=due, rings=0, loss=how[:longest])
    return ended


def pause_after(crashes: int) -> float:
    """Seconds until a row runs again that has ended so many processes before this one."""
    return min(2.0 ** min(crashes - 1, 6), LONGEST_PAUSE) if crashes else 0.0
