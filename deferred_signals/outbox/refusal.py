"""Why a broker has not taken a doorbell: it is away, or one queue is at fault, and others go on."""

from __future__ import annotations

import re

from celery.app import app_or_default
from kombu.exceptions import OperationalError

from deferred_signals.backends.producer import Refused, Unroutable
from deferred_signals.exceptions import ConfigurationError, PublishError

#: What a Redis answers that takes nothing for any list: it is out of memory, a replica, busy, or cannot save.
_FOR_ALL = re.compile(r"(OutOfMemory|ReadOnly|MasterDown|ClusterDown)Error\b|\w+ (MISCONF|NOREPLICAS|BUSY)\b")


def may_be_outage(error: Exception) -> bool:
    """Whether the broker, and not one queue or a receiver's options, may be why it did not take a doorbell."""
    if isinstance(error, Refused | Unroutable):
        return False
    if isinstance(error, OperationalError) and error.__cause__ is not None and _is_answer(error.__cause__):
        return _FOR_ALL.match(f"{type(error.__cause__).__name__} {error.__cause__}") is not None
    return isinstance(error, PublishError | OperationalError | ConfigurationError | OSError)


def _is_answer(cause: BaseException) -> bool:
    """Whether the broker has said it, about the message or its queue, over a connection that holds."""
    connection = app_or_default().connection_for_write()  # made, and not connected
    return isinstance(cause, connection.channel_errors) and not isinstance(cause, connection.connection_errors)
