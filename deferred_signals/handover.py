"""Giving deliveries to the backend, and telling what became of that."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from . import backends
from .delivery import Delivery
from .signals import announce, delivery_published, delivery_unpublished

logger = logging.getLogger("deferred_signals")


def hand_over(deliveries: Sequence[Delivery]) -> list[backends.Failure]:
    """Give deliveries to the backend and tell observers; what could not be handed over is logged and returned."""
    backend = backends.current()
    try:
        failures = backend.publish(deliveries)
    except backend.interruptions:
        raise
    except Exception as raised:
        # After the commit nothing may reach the caller, whatever a backend does; where it runs the receivers itself and
        # the project asked for their exceptions (Celery's task_eager_propagates), they are the caller's.
        if backend.inline:
            raise
        failures = [(delivery, raised) for delivery in deliveries]
    failed = {id(delivery) for delivery, _ in failures}
    for delivery in deliveries:
        if id(delivery) not in failed:
            announce(delivery_published, delivery.function, delivery=delivery)
    if failures:
        _log(failures)
        for delivery, error in failures:
            announce(delivery_unpublished, delivery.function, delivery=delivery, error=error)
    return failures


def _log(failures: Sequence[backends.Failure]) -> None:
    receivers = Counter(delivery.receiver for delivery, _ in failures)
    logger.error(
        "Could not be published, and lost unless a receiver of delivery_unpublished keeps them: deliveries to %s. "
        "The last error: %s: %s",
        ", ".join(f"{name} ({count})" for name, count in receivers.items()),
        type(failures[-1][1]).__name__,
        failures[-1][1],
    )
