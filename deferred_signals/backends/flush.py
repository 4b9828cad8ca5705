"""One flush, the hand-over of what may leave together, as the caller and the lane that does it see it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextvars import Context, copy_context
from typing import Any

from ..delivery import Delivery
from ..parts import in_parts
from .base import Failure

#: Deliveries that are published together, and characters of their texts: what may be published twice when a connection
#: breaks under them, and what must go over it for who waits to see progress.
MOST, LARGEST = 100, 1_000_000


class Flush:
    """One hand-over: deliveries in, failures out, progress visible to whoever waits.

    ``settings`` are those of Celery's by which it is done, the same object as long as they are the same. ``is_plain``:
    nobody wants to see each message on its way through Celery.
    """

    def __init__(
        self,
        deliveries: Sequence[Delivery],
        ancestry: dict[str, Any],
        *,
        settings: Any = None,
        is_plain: bool = False,
    ) -> None:
        #: By their place, those of which nothing is known yet.
        self.open = dict(enumerate(deliveries))
        self.ancestry = ancestry
        self.settings = settings
        self.is_plain = is_plain
        self.context: Context = copy_context()
        self.failures: list[Failure] = []
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

    def parts(self) -> Iterator[Sequence[int]]:
        """The places of deliveries that may be published together."""
        sizes = [len(delivery.shared) + len(delivery.own) for delivery in self.open.values()]
        return in_parts(list(self.open), sizes, MOST, LARGEST)

    def fail(self, place: int, error: Exception) -> None:
        """Note why a delivery could not be published."""
        # In this order: who reads meanwhile finds it in one of both.
        self.failures.append((self.open[place], error))
        del self.open[place]

    def wait(self, patience: float) -> bool:
        """Wait until it is finished, True, or until nothing has moved for ``patience`` seconds, False."""
        seen, since = len(self.open), time.monotonic()
        while not self._running.acquire(timeout=patience / 4):
            if len(self.open) != seen:
                seen, since = len(self.open), time.monotonic()
            elif time.monotonic() - since >= patience and self.settle():
                self.abandoned = True
                return False
        return True

    def unpublished(self, error: Exception) -> list[Failure]:
        """What has failed, and what is left over of an abandoned flush, for ``error``; the lane may yet be at work."""
        # In this order, as ``fail`` has it.
        left, failures = list(self.open.values()), list(self.failures)
        failed = {id(delivery) for delivery, _ in failures}
        return [*failures, *((delivery, error) for delivery in left if id(delivery) not in failed)]
