"""Lines of the log about deliveries, and their ``extra``: what they are about, for logs that machines read.

No value of an argument is among them. The names begin with ``delivery_``: the logging module refuses a record whose
extra has a name that it has already, and a project's own record factory may have given it a ``signal`` or a ``queue``.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

from . import registry
from .delivery import Delivery
from .exceptions import NotYetKnown
from .outcome import Outcome, raised_text
from .references import type_name

logger = logging.getLogger("deferred_signals")

#: How many ids a line about several deliveries has.
MOST = 20


def say_how_it_ended(delivery: Delivery | None, end: Outcome, *, is_alone: bool) -> None:
    """Log the end of an attempt that has not succeeded; ``delivery`` is None for a payload that cannot be opened.

    ``is_alone``: it has a message of its own, of which Celery says what was raised; of another nobody else would.
    """
    what = f"Delivery {delivery.id} to {delivery.receiver}, attempt {delivery.attempt}," if delivery else "A payload"
    if end.state == "dead":
        logger.error("%s is dead: %s", what, end.reason, extra=ending(delivery, end))
    elif end.state == "retry":
        why = "" if is_alone or end.error is None else f" {raised_text(end.error)}"
        text = "%s will be retried in %.3g s: %s%s"
        logger.warning(text, what, end.countdown, end.reason, why, extra=ending(delivery, end))
    else:
        logger.info("%s is discarded: %s", what, end.reason, extra=ending(delivery, end))


def about(delivery: Delivery) -> dict[str, Any]:
    """Of a line about one delivery."""
    fields = {
        "delivery_id": delivery.id,
        "delivery_receiver": delivery.receiver,
        "delivery_signal": delivery.signal,
        "delivery_attempt": delivery.attempt,
    }
    queue = _queue(delivery)
    return fields if queue is None else {**fields, "delivery_queue": queue}


def ending(delivery: Delivery | None, end: Outcome) -> dict[str, Any]:
    """Of a line about how an attempt has ended."""
    fields = {} if delivery is None else about(delivery)
    fields["delivery_outcome"] = end.state
    if delivery is not None and delivery.seconds is not None:
        fields["delivery_seconds"] = round(delivery.seconds, 6)
    if delivery is not None and delivery.crashes:
        fields["delivery_crashes"] = delivery.crashes
    if end.state == "retry":
        fields["delivery_countdown"] = round(end.countdown, 3)
    return fields | _error(end.error)


def several(deliveries: Sequence[Delivery], outcome: str, error: BaseException | None = None) -> dict[str, Any]:
    """Of a line about deliveries that were to be published together."""
    return {
        "delivery_outcome": outcome,
        "delivery_count": len(deliveries),
        "delivery_ids": [delivery.id for delivery in deliveries[:MOST]],
        "delivery_receivers": dict(Counter(delivery.receiver for delivery in deliveries)),
        **_error(error),
    }


def _queue(delivery: Delivery) -> str | None:
    """The option ``queue``; where it is not given, Celery's routes decide, and to ask them is too much for a line."""
    if delivery.options.queue is not None:
        return delivery.options.queue
    try:
        return registry.get(delivery.receiver).options_for(delivery.signal).queue
    except NotYetKnown:
        return None


def _error(error: BaseException | None) -> dict[str, Any]:
    return {} if error is None else {"delivery_error": type_name(error)}
