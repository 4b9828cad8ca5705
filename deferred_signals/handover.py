"""Giving deliveries to the backend, and telling what became of that."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Sequence

from . import backends, registry
from .delivery import Delivery
from .envelope import unseal
from .exceptions import PublishError
from .signals import announce, delivery_published, delivery_unpublished

logger = logging.getLogger("deferred_signals")


def hand_over(deliveries: Sequence[Delivery]) -> list[backends.Failure]:
    """Give deliveries to the backend and tell observers; what could not be handed over is logged and returned."""
    backend = backends.current()
    try:
        failures = backend.publish(deliveries)
    except backend.interruptions as interruption:
        _log_interrupted(deliveries, interruption)
        raise
    except Exception as raised:
        # After the commit nothing may reach the caller, whatever a backend does; where it runs the receivers itself and
        # the project asked for their exceptions (Celery's task_eager_propagates), they are the caller's.
        if backend.inline:
            raise
        failures = [(delivery, raised) for delivery in deliveries]
    except BaseException as interruption:
        _log_interrupted(deliveries, interruption)
        raise
    failed = {id(delivery) for delivery, _ in failures}
    for delivery in deliveries:
        if id(delivery) not in failed:
            announce(delivery_published, delivery.function, delivery=delivery)
    if failures:
        _log(failures)
        for delivery, error in failures:
            announce(delivery_unpublished, delivery.function, delivery=delivery, error=error)
    return failures


def publish_at_once(delivery: Delivery) -> None:
    """Hand a delivery over without waiting for a commit. Raises PublishError when the broker does not take it."""
    failures = hand_over([delivery])
    if failures:
        raise PublishError(f"The delivery to {delivery.receiver} could not be published.") from failures[0][1]


def publish_again(payload: str) -> Delivery:
    """Publish at once what could not be published before: the ``payload`` of a delivery that an observer has saved.

    It keeps its id, and takes the route and the other options of the message from the receiver as it is connected now.
    Raises OpenError when the payload is not authentic or older than ``MAX_AGE``, UnknownReceiver when no such receiver
    or signal is known here, and PublishError when the broker does not take it this time either.
    """
    envelope = unseal(payload)
    registration = registry.get(envelope.receiver)
    signal = registry.signal_for(envelope.signal, registration)
    connections = sorted(registration.connections(), key=lambda one: one.signal is not signal)
    options = connections[0].options if connections else registration.options
    if envelope.encrypted is not None:
        options = dataclasses.replace(options, encrypt=False)  # it travels on as the token that it is
    delivery = Delivery.of(envelope, envelope.to_text(), options)
    publish_at_once(delivery)
    return delivery


def _log(failures: Sequence[backends.Failure]) -> None:
    logger.error(
        "Could not be published, and lost unless a receiver of delivery_unpublished keeps them: %s. "
        "The last error: %s: %s",
        _named([delivery for delivery, _ in failures]),
        type(failures[-1][1]).__name__,
        failures[-1][1],
    )


def _log_interrupted(deliveries: Sequence[Delivery], interruption: BaseException) -> None:
    logger.error(
        "Interrupted by %s while they were handed over, so nobody is told whether they have been published: %s.",
        type(interruption).__name__,
        _named(deliveries),
    )


def _named(deliveries: Sequence[Delivery]) -> str:
    receivers = Counter(delivery.receiver for delivery in deliveries)
    return "deliveries to " + ", ".join(f"{name} ({count})" for name, count in receivers.items())
