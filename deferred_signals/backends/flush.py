"""One flush, the hand-over of what may leave together, as the caller and the lane that does it see it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextvars import Context, copy_context
from typing import Any

from ..delivery import Delivery
from .base import Failure


class Flush:
    """One hand-over: deliveries in, failures out, progress visible to whoever waits."""

    def __init__(self, deliveries: Sequence[Delivery], ancestry: dict[str, Any]) -> None:
        self.deliveries = deliveries
        self.ancestry = ancestry
        self.context: Context = copy_context()
        self.failures: list[Failure] = []
        self.done = 0
        self.abandoned = False
        #: Why the broker could not be had.
        self.away: BaseException | None = None
        #: Messages that have broken their connections.
        self.strikes = 0
        #: Routes for which everything was declared anew.
        self.renewed: set[Any] = set()
        self._claim = threading.Lock()
        # Held until it is finished. A lock and not an Event: one waits, once, and this is in the time of every commit.
        self._running = threading.Lock()
        self._running.acquire()

    def finish(self) -> None:
        """Let the caller go on."""
        self._running.release()

    def settle(self) -> bool:
        """Called once by either side, lane and caller: True for the one that comes first."""
        return self._claim.acquire(blocking=False)

    def wait(self, patience: float) -> bool:
        """Wait until it is finished, True, or until nothing has moved for ``patience`` seconds, False."""
        seen, since = 0, time.monotonic()
        while not self._running.acquire(timeout=patience / 4):
            if self.done != seen:
                seen, since = self.done, time.monotonic()
            elif time.monotonic() - since >= patience and self.settle():
                self.abandoned = True
                return False
        return True

    def unpublished(self, error: Exception) -> list[Failure]:
        """What has failed, and what is left over of an abandoned flush, for ``error``; the lane may yet be at work."""
        # In this order: a delivery fails before it is done, so none can be neither.
        done, failures = self.done, list(self.failures)
        failed = {id(delivery) for delivery, _ in failures}
        left = [(delivery, error) for delivery in self.deliveries[done:] if id(delivery) not in failed]
        return [*failures, *left]
