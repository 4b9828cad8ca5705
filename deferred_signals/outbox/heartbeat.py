"""The threads of a worker's process that do what is to be done beside its receivers, while there is something."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import Error as DatabaseDriverError
from django.db import connections

logger = logging.getLogger("deferred_signals")


#: Seconds for which a thread waits for something to do, before it ends.
LINGER = 1.0


class Plan:
    """What to do again and again, and when next, by the monotonic clock."""

    __slots__ = ("action", "pause", "when")

    def __init__(self, pause: float, action: Callable[[], bool]) -> None:
        self.pause = pause
        self.action = action
        self.when = time.monotonic() + pause


class Heartbeat:
    """A thread that does things again and again, one after another: all of one kind, for what hangs keeps the others.

    It is there while there is something to do. While all of it is quick it wakes a few times a second, not for each.
    """

    def __init__(self, key: str = "") -> None:
        self._name = f"deferred_signals-heartbeat-{key}"
        self._changed = threading.Condition()
        self._plans: set[Plan] = set()
        self._thread: threading.Thread | None = None
        #: When the thread wakes by itself.
        self._wakes_at = math.inf

    @contextmanager
    def every(self, pause: float, action: Callable[[], bool]) -> Iterator[None]:
        """While the block runs, call ``action`` every so many seconds, until it answers False."""
        plan = Plan(pause, action)
        try:
            with self._changed:
                self._plans.add(plan)
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._beat, name=self._name, daemon=True)
                    self._thread.start()
                elif plan.when < self._wakes_at:
                    self._changed.notify()
            yield
        finally:
            # Without the lock, to wait for which a time limit could interrupt: it would be renewed for ever.
            self._plans.discard(plan)

    def _beat(self) -> None:
        while due := self._due():
            for plan in due:
                if plan in self._plans:  # and has not ended while another one was done
                    goes_on = _done(plan.action)
                    plan.when = time.monotonic() + plan.pause
                    if not goes_on:
                        self._plans.discard(plan)
            # They are this thread's own, and it may sleep for long.
            for connection in connections.all(initialized_only=True):
                _close(connection.close)

    def _due(self) -> list[Plan]:
        """Wait until something is to be done; return that, or nothing when the thread is to end."""
        with self._changed:
            while True:
                plans, now = self._plans.copy(), time.monotonic()
                if due := [plan for plan in plans if plan.when <= now]:
                    return due
                self._wakes_at = min((plan.when for plan in plans), default=math.inf)
                if not self._changed.wait(self._wakes_at - now if plans else LINGER) and not (plans or self._plans):
                    self._thread = None  # who comes next makes another
                    return []


def _done(action: Callable[[], bool]) -> bool:
    try:
        return action()
    except Exception:
        logger.exception("A lease could not be renewed, or a doorbell not be passed on; it is tried again")
        return True


def _close(close: Callable[[], None]) -> None:
    try:
        close()
    except DatabaseDriverError:
        logger.debug("A connection of the heartbeat had broken before it was closed", exc_info=True)


#: By process, for a forked child has none of its parent's threads. No lock around it, which a fork could copy.
_heartbeats: dict[tuple[int, str], Heartbeat] = {}


def heartbeat(key: str) -> Heartbeat:
    """The one of this process for what may hang together, say the renewals in one database."""
    place = os.getpid(), key
    made = _heartbeats.get(place)
    return _heartbeats.setdefault(place, Heartbeat(key)) if made is None else made
