"""Every error of the library, and the receiver's two words back to us.

What is raised where, and what becomes of the delivery::

    Exception
    ├── DeferredSignalsError
    │   ├── ConnectError          connect, @receiver     nothing is connected
    │   ├── ConfigurationError    settings, Celery app   no delivery is made
    │   ├── EncodeError           send()                 no delivery is made
    │   │   └── TooLarge          send()                 the receiver's ``oversize`` option
    │   ├── PublishError          hand-over to broker    unpublished: logged and signalled
    │   ├── OpenError             worker                 dead, never executed
    │   ├── DecodeError           worker                 dead
    │   ├── NotYetKnown           worker                 retried for RELEASE_WINDOW, then dead
    │   │   ├── NewerWire         … made by a newer release of this library
    │   │   ├── UnknownReceiver   … for a receiver this release does not have
    │   │   ├── UnknownKey        … encrypted with a key this process does not have
    │   │   └── UnknownName       … with a model, field, class or function this release does not have
    │   ├── InstanceMissing       worker                 the receiver's ``missing`` option
    │   ├── TooDeep               worker                 dead
    │   ├── WorkerLost            worker                 run again; dead at CRASH_LIMIT
    │   ├── LeaseLost             worker                 discarded: another run has taken the delivery over
    │   ├── SeveralDied           worker                 dead, each of them; what Celery is told
    │   ├── ReceiverCancelled     in the receiver        as anything the receiver raises
    │   ├── ReceiverInterrupted   in the receiver        as anything the receiver raises
    │   ├── NotCarriedError       in the receiver        as anything the receiver raises
    │   └── SnapshotSaved         in the receiver        as anything the receiver raises
    ├── Retry                     by the receiver        retried while ``max_retries`` allows, then dead
    └── Discard                   by the receiver        discarded

No message of ours contains a value that a signal carried: they end up in logs and trackers.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

from django.core.exceptions import ImproperlyConfigured


class DeferredSignalsError(Exception):
    """Base of every error that this library raises."""


class ConnectError(DeferredSignalsError, TypeError):
    """A receiver cannot be connected as asked; the text says why and what to do."""


class ConfigurationError(DeferredSignalsError, ImproperlyConfigured):
    """A setting is wrong, or the process has no Celery app."""


class EncodeError(DeferredSignalsError, ValueError):
    """A value cannot travel to the worker.

    ``path`` names where it stands (``kwargs['items'][2]``), ``type_name`` its type, ``reason`` why it cannot
    travel and what to do. ``receiver`` is the name of the receiver it was meant for.
    """

    def __init__(self, reason: str, type_name: str = "") -> None:
        super().__init__(reason, type_name)
        self.reason = reason
        self.type_name = type_name
        self.path = ""
        self.receiver = ""

    def under(self, step: str) -> EncodeError:
        """Say that the value stands below ``step``; called by each container on the way out."""
        self.path = step + self.path
        return self

    def __str__(self) -> str:
        where = f"{self.path} " if self.path else ""
        what = f"({self.type_name}) " if self.type_name else ""
        to = f" to {self.receiver}" if self.receiver else ""
        return f"{where}{what}cannot travel{to}: {self.reason}"


class TooLarge(EncodeError):
    """The delivery, or one argument of it, is larger than ``MAX_SIZE``."""


class PublishError(DeferredSignalsError):
    """A delivery could not be handed over to the broker; ``__cause__`` is the broker's error."""


class OpenError(DeferredSignalsError):
    """The payload is unreadable, or its signature is wrong."""


class DecodeError(DeferredSignalsError):
    """A value of an authentic payload cannot be made again in this process."""


class NotYetKnown(DeferredSignalsError):
    """Something that a newer release may know: during a rolling release the next worker may deliver it."""


class NewerWire(NotYetKnown):
    """The payload is authentic but of a newer wire version (then ``data`` is its JSON), or carries a newer type tag."""

    def __init__(self, reason: str, data: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.data = data


class UnknownReceiver(NotYetKnown):
    """No receiver of that name is connected in this process."""


class UnknownKey(NotYetKnown):
    """The delivery is encrypted and this process cannot decrypt it: the key, or cryptography, is missing."""


class UnknownName(NotYetKnown, DecodeError):
    """A model, field, class, function, enum member or database that a value names is not in this process."""


class InstanceMissing(DeferredSignalsError):
    """The row that a reference names is gone."""


class TooDeep(DeferredSignalsError):
    """A chain of deliveries that cause each other has reached ``CHAIN_LIMIT``, or of one receiver ``SELF_LIMIT``."""


class WorkerLost(DeferredSignalsError):
    """The delivery came back from a worker that did not finish it, for the ``CRASH_LIMIT``-th time in a row."""


class LeaseLost(DeferredSignalsError):
    """The lease of a durable delivery ran out while its receiver was running, and another run has taken it over."""


class SeveralDied(DeferredSignalsError, ExceptionGroup[Exception]):
    """Several deliveries of one doorbell are dead: what Celery, which hears of each message once, is told."""


class ReceiverInterrupted(DeferredSignalsError):
    """The receiver raised what Python or Celery take for an order to themselves; ``__cause__`` is what it raised.

    SystemExit, KeyboardInterrupt and other exceptions that are no Exception. For Celery, which gets it for a dead
    delivery, also MemoryError, exceptions of Celery's own control (``Ignore``, ``Reject``, ``Retry``) and of its pool.
    """


class ReceiverCancelled(DeferredSignalsError):
    """An async receiver was cancelled, or awaited what was; ``__cause__`` is asyncio's CancelledError."""


class NotCarriedError(DeferredSignalsError):
    """The receiver used an argument that could not travel; see ``NotCarried``.

    Not an AttributeError, which ``getattr(argument, "user", None)`` would turn into a silent None.
    """


class SnapshotSaved(DeferredSignalsError):
    """The receiver saved a model instance that is a snapshot, over newer data or as a row that was deleted."""


class Retry(Exception):
    """Raised by a deferred receiver: run me again.

    ``countdown`` is in seconds, or a timedelta; without one the receiver's backoff decides, and less than none is none.
    Counts against ``max_retries``. Raises TypeError or ValueError for what is no time.
    """

    def __init__(self, reason: str = "", *, countdown: float | timedelta | None = None) -> None:
        super().__init__(reason)
        if isinstance(countdown, timedelta):
            countdown = countdown.total_seconds()
        if countdown is not None:
            if isinstance(countdown, bool) or not isinstance(countdown, int | float):
                raise TypeError(f"Retry(countdown=) takes seconds or a timedelta, not {type(countdown).__name__}")
            if not math.isfinite(countdown):
                raise ValueError("Retry(countdown=) takes a finite number of seconds")
            countdown = max(0, countdown)
        self.countdown = countdown


class Discard(Exception):
    """Raised by a deferred receiver: nothing to do here; not an error, not retried."""
