"""Signals about deliveries, for inline observers: logging, metrics, saving what could not be published.

Their sender is the deferred receiver's own function, so that
``delivery_finished.connect(observer, sender=send_welcome_email)`` does what it says; it is None where the
receiver is unknown in this process. An observer that raises is logged and changes nothing.
"""

from __future__ import annotations

import logging
from typing import Any

from django.dispatch import Signal

logger = logging.getLogger("deferred_signals")

#: The broker has taken a delivery, or the row of a durable one is committed and its doorbell, where the sender rings,
#: taken. Arguments: ``delivery``. Sent in the sender's process.
delivery_published = Signal()

#: A delivery could not be handed over and is lost unless you save it. Arguments: ``delivery``, ``error``. One that
#: hung in a frozen broker may arrive all the same: what you save and send again can run twice; its id tells.
#: ``delivery`` is None for what was too large to become one, where the connection says ``oversize="log"``.
delivery_unpublished = Signal()

#: An attempt begins. Arguments: ``delivery``. Sent on the worker.
delivery_started = Signal()

#: An attempt has ended. Arguments: ``delivery`` (None for a payload that cannot be opened), ``outcome``. On the worker.
delivery_finished = Signal()


def announce(signal: Signal, sender: object, **named: Any) -> None:
    """Send one of the signals above; whatever an observer does, the delivery goes on."""
    try:
        signal.send_robust(sender=sender, **named)
    except Exception:
        # send_robust itself fails while it logs an observer without __qualname__.
        logger.exception("An observer of a delivery signal failed.")
