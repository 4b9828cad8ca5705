"""Giving deliveries to the backend, and telling what became of that."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from django.db import DEFAULT_DB_ALIAS

from . import backends, keeping, registry
from .batching import batched
from .bell import is_bell
from .delivery import Delivery
from .envelope import unseal
from .exceptions import OpenError, PublishError
from .failpoints import reach
from .log_lines import several
from .signals import announce, delivery_published, delivery_unpublished
from .strict_json import parse

logger = logging.getLogger("deferred_signals")

#: Deliveries that are handed over at once, of a commit that has very many.
AT_ONCE = 10_000


def hand_over(deliveries: Sequence[Delivery], alias: str = DEFAULT_DB_ALIAS) -> list[backends.Failure]:
    """Give deliveries to the backend and tell observers; what could not be handed over is logged and returned.

    For those that are in an outbox, its doorbells are published; their rows stay, whatever becomes of these. With an
    outbox, the others that cannot be published are kept in that of ``alias``.
    """
    reach("sender.after_commit")
    kept = [delivery for delivery in deliveries if delivery.kept is not None]
    if not kept:
        return _publish(deliveries, alias)
    others = [delivery for delivery in deliveries if delivery.kept is None]
    failures = _publish(others, alias) if others else []
    _ring(kept)
    return failures


def hand_over_all(deliveries: Iterator[Delivery], alias: str) -> None:
    """Hand over so many that they are not all made at once."""
    while part := list(islice(deliveries, AT_ONCE)):
        try:
            hand_over(part, alias)
        except BaseException as interruption:
            if left := list(deliveries):
                _log_interrupted(left, interruption)
            raise


def _ring(kept: Sequence[Delivery]) -> None:
    # One to which several sends were made one stands in each savepoint in which they were; the last of them counts.
    kept = list({one.id: one for one in reversed(kept)}.values())[::-1]
    try:
        bells = keeping.required().bells(kept)
    except Exception:
        # After the commit nothing may reach the caller, and nothing is lost.
        text = "Doorbells could not be made for durable %s: the relay rings for them"
        logger.exception(text, named(kept), extra=several(kept, "waiting"))
        return
    failures = ring(bells)
    # Of doorbells; the text of each says for which rows it is.
    waiting = {one for bell, _ in failures for one in parse(bell.own)["ids"]}
    _tell([delivery for delivery in kept if delivery.id not in waiting] if waiting else kept)
    if failures:
        left = [delivery for delivery in kept if delivery.id in waiting]
        keeping.required().unrung(left)
        _, error = failures[-1]
        logger.warning(
            "Durable %s wait in the outbox for the relay, for their doorbells could not be published: %s: %s",
            named(left),
            type(error).__name__,
            error,
            extra=several(left, "waiting", error),
        )
    reach("sender.after_doorbell")


def ring(bells: Sequence[Delivery]) -> list[backends.Failure]:
    """Publish doorbells; return those that the broker did not take. Nothing is lost with one."""
    return _give(bells) if bells else []


def _publish(deliveries: Sequence[Delivery], alias: str) -> list[backends.Failure]:
    failures = _give(deliveries)
    failed = {id(delivery) for delivery, _ in failures}
    _tell([delivery for delivery in deliveries if id(delivery) not in failed] if failed else deliveries)
    if failures and (outbox := keeping.current()) is not None:
        failures = outbox.spill(failures, alias)
    if failures:
        _log(failures)
        for delivery, error in failures:
            announce(delivery_unpublished, delivery.function, delivery=delivery, error=error)
    return failures


def _tell(published: Sequence[Delivery]) -> None:
    """Announce deliveries that are published, of those receivers of whose deliveries anybody wants to hear."""
    heard: dict[str, tuple[Any, bool]] = {}
    for delivery in published:
        found = heard.get(delivery.receiver)
        if found is None:
            function = delivery.function
            found = heard[delivery.receiver] = function, delivery_published.has_listeners(function)
        function, is_heard = found
        if is_heard:
            announce(delivery_published, function, delivery=delivery)


def _give(deliveries: Sequence[Delivery]) -> list[backends.Failure]:
    backend = backends.current()
    try:
        failures = backend.publish(deliveries if backend.inline else batched(deliveries))
    except backend.interruptions as interruption:
        _log_interrupted(deliveries, interruption)
        raise
    except Exception as raised:
        # After the commit nothing may reach the caller, whatever a backend does; where it runs the receivers itself and
        # the project asked for their exceptions (Celery's task_eager_propagates), they are the caller's.
        if backend.inline:
            raise
        return [(delivery, raised) for delivery in deliveries]
    except BaseException as interruption:
        _log_interrupted(deliveries, interruption)
        raise
    return [(one, error) for delivery, error in failures for one in delivery.members or (delivery,)]


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
    if is_bell(payload):
        raise OpenError("The payload is a doorbell, which carries no delivery.")
    envelope = unseal(payload)
    registration = registry.get(envelope.receiver)
    registry.signal_for(envelope.signal, registration)
    options = registration.options_for(envelope.signal)
    if envelope.encrypted is not None:
        options = dataclasses.replace(options, encrypt=False)  # it travels on as the token that it is
    delivery = Delivery.of(envelope, envelope.texts(), options)
    publish_at_once(delivery)
    return delivery


def _log(failures: Sequence[backends.Failure]) -> None:
    lost, error = [delivery for delivery, _ in failures], failures[-1][1]
    logger.error(
        "Could not be published, and lost unless a receiver of delivery_unpublished keeps them: %s. "
        "The last error: %s: %s",
        named(lost),
        type(error).__name__,
        error,
        extra=several(lost, "unpublished", error),
    )


def _log_interrupted(deliveries: Sequence[Delivery], interruption: BaseException) -> None:
    logger.error(
        "Interrupted by %s while they were handed over, so nobody is told whether they have been published: %s.",
        type(interruption).__name__,
        named(deliveries),
        extra=several(deliveries, "unknown", interruption),
    )


def named(deliveries: Sequence[Delivery]) -> str:
    """Deliveries in a line of a log: to whom, and how many."""
    receivers = Counter(delivery.receiver for delivery in deliveries)
    return "deliveries to " + ", ".join(f"{name} ({count})" for name, count in receivers.items())
