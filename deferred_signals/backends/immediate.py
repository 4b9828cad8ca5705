"""A backend that runs deliveries at once in the sender's process, through the real wire form: for development."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..attempt import run
from ..batch_run import run_all
from ..delivery import Delivery
from ..envelope import seal
from ..log_lines import ending
from ..outcome import Outcome
from .base import Backend, Failure

logger = logging.getLogger("deferred_signals")


class ImmediateBackend(Backend):
    """Runs each delivery as a worker would, retries without a pause. What the receivers raise is logged, not raised."""

    def publish(self, deliveries: Sequence[Delivery]) -> list[Failure]:
        """Run them, one after another."""
        for delivery in deliveries:
            for made, outcome in run_all(delivery.payload):
                self._run_again(delivery, made, outcome)
        return []

    def _run_again(self, delivery: Delivery, made: Delivery | None, outcome: Outcome) -> None:
        attempt = 0
        while outcome.state == "retry":
            if made is None or made.attempt == attempt:
                # It waits for a database or for another release; here nobody can wait.
                what = made or delivery
                said = what.id, what.receiver, outcome.reason
                logger.error("Delivery %s to %s is given up: %s", *said, extra=ending(what, outcome))
                return
            attempt = made.attempt
            made, outcome = run(seal(outcome.text))
