"""A backend that keeps payloads in this process until they are delivered: for tests that look at them."""

from __future__ import annotations

from collections.abc import Sequence

from ..batch_run import run_all
from ..delivery import Delivery
from ..envelope import seal
from ..outcome import Outcome
from .base import Backend, Failure


class MemoryBackend(Backend):
    """Published deliveries wait in ``payloads``, in wire form, until ``deliver()`` runs them."""

    def __init__(self) -> None:
        self.payloads: list[tuple[Delivery, str]] = []

    def publish(self, deliveries: Sequence[Delivery]) -> list[Failure]:
        """Keep them."""
        self.payloads += [(delivery, delivery.payload) for delivery in deliveries]
        return []

    def deliver(self) -> list[tuple[Delivery | None, Outcome]]:
        """Run what waits, once each, in order; return how each ended. A retry waits for the next call."""
        waiting, self.payloads = self.payloads, []
        ended = []
        for delivery, payload in waiting:
            for made, outcome in run_all(payload):
                if outcome.state == "retry":
                    self.payloads.append((made or delivery, seal(outcome.text)))
                ended.append((made, outcome))
        return ended
