"""A backend that runs deliveries at once in the sender's process, through the real wire form: for development."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..attempt import run
from ..delivery import Delivery
from ..envelope import seal
from .base import Backend, Failure

logger = logging.getLogger("deferred_signals")


class ImmediateBackend(Backend):
    """Runs each delivery as a worker would, retries without a pause. What the receivers raise is logged, not raised."""

    def publish(self, deliveries: Sequence[Delivery]) -> list[Failure]:
        """Run them, one after another."""
        for delivery in deliveries:
            self._run(delivery)
        return []

    def _run(self, delivery: Delivery) -> None:
        payload = delivery.payload
        attempt = 0
        while True:
            made, outcome = run(payload)
            if outcome.state != "retry":
                return
            if made is None or made.attempt == attempt:
                # It waits for a database or for another release; here nobody can wait.
                logger.error("Delivery %s to %s is given up: %s", delivery.id, delivery.receiver, outcome.reason)
                return
            attempt = made.attempt
            payload = seal(outcome.text)
