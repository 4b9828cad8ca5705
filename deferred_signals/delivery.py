"""A delivery on the worker: one pipeline, open, resolve, decode, call, judge, that ends in an Outcome."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.db import Error as DatabaseDriverError
from django.db import InterfaceError, OperationalError, connections

from . import conf, context, outcome, registry
from .calling import call
from .codec import Decoder
from .envelope import Envelope, seal, unseal
from .exceptions import DecodeError, Discard, InstanceMissing, NewerWire, NotYetKnown, OpenError, TooDeep
from .options import Options
from .outcome import Outcome
from .registry import Registration
from .signals import announce, delivery_finished, delivery_started
from .suppression import suppress

logger = logging.getLogger("deferred_signals")


@dataclass(frozen=True, eq=False, slots=True)
class Delivery:
    """One send to one deferred receiver.

    ``send()`` returns it as that receiver's response; on the worker ``current_delivery()`` is the one being run. The id
    stays the same over retries and is the id of the Celery task. ``receiver`` and ``signal`` are names, ``attempt``
    counts the runs from 1, ``depth`` the deliveries that caused this one.
    """

    id: str
    receiver: str
    signal: str | None
    created: datetime
    attempt: int = 1
    depth: int = 0
    #: The envelope's text, in the sender's process only.
    text: str = field(default="", repr=False)
    #: The options of the connection, in the sender's process only.
    options: Options = field(default_factory=Options, repr=False)

    @classmethod
    def of(cls, envelope: Envelope, text: str = "", options: Options | None = None) -> Delivery:
        """The delivery that an envelope carries."""
        created = datetime.fromtimestamp(envelope.created, UTC)
        return cls(
            envelope.id,
            envelope.receiver,
            envelope.signal,
            created,
            envelope.attempt,
            envelope.depth,
            text,
            options or Options(),
        )

    @property
    def payload(self) -> str:
        """The signed string for the wire; empty on the worker, which has it already."""
        return seal(self.text) if self.text else ""

    @property
    def function(self) -> Any:
        """The receiver's function, None where it is unknown: the sender of the ``delivery_*`` signals."""
        try:
            return registry.get(self.receiver).function
        except NotYetKnown:
            return None


_current: ContextVar[Delivery | None] = ContextVar("deferred_signals_current", default=None)


def current_delivery() -> Delivery | None:
    """The delivery that is being run here; None outside a deferred receiver."""
    return _current.get()


def run(payload: Any) -> tuple[Delivery | None, Outcome]:
    """Run one payload once; never raises what the receiver or the payload is to blame for.

    Returns the delivery (None when the payload could not be opened) and how it ended.
    """
    try:
        envelope = unseal(payload)
    except OpenError as error:
        return _end(None, Outcome("dead", error, str(error)))
    except NewerWire as error:
        return _end(None, outcome.held_up_unread(error, conf.current().release_window))
    delivery = Delivery.of(envelope)
    token = _current.set(delivery)
    try:
        return _end(delivery, _run(delivery, envelope))
    finally:
        _current.reset(token)


def _run(delivery: Delivery, envelope: Envelope) -> Outcome:
    settings = conf.current()
    if envelope.depth > settings.chain_limit:
        error = TooDeep(
            f"{envelope.depth} deliveries caused each other (CHAIN_LIMIT is {settings.chain_limit}): does a receiver "
            "save the instance that it listens to? Use update_fields with when=, queryset.update(), or suppress()."
        )
        return Outcome("dead", error, str(error))
    try:
        registration = registry.get(envelope.receiver)
    except NotYetKnown as error:
        return outcome.held_up(error, envelope, settings.release_window, str(error))
    with ExitStack() as stack:
        try:
            stack.enter_context(context.restored(envelope.context))
        except Exception as error:  # noqa: BLE001 - a user's carrier may raise anything
            return Outcome("dead", error, f"the context cannot be restored ({type(error).__name__})")
        announce(delivery_started, registration.function, delivery=delivery)
        return _deliver(registration, envelope)


def _deliver(registration: Registration, envelope: Envelope) -> Outcome:
    settings, options = conf.current(), registration.options
    try:
        with suppress():
            arguments = _decode(registration, envelope)
    except NotYetKnown as error:
        return outcome.held_up(error, envelope, settings.release_window, str(error))
    except InstanceMissing as error:
        if options.missing == "retry":
            return outcome.raised(error, envelope, options)
        return Outcome("discarded" if options.missing == "discard" else "dead", error, str(error))
    except DatabaseDriverError as error:
        _database_is_away()  # and makes the connection anew where only that was broken
        return outcome.held_up(error, envelope, settings.database_window, "the database did not answer")
    except DecodeError as error:
        return Outcome("dead", error, str(error))
    except Exception as error:  # noqa: BLE001 - a user's codec may raise anything
        return Outcome("dead", error, f"an argument cannot be decoded ({type(error).__name__})")
    try:
        call(registration.function, arguments)
    except Discard as error:
        return Outcome("discarded", error, str(error) or "the receiver discarded it")
    except Exception as error:  # noqa: BLE001 - judged, not swallowed
        if isinstance(error, OperationalError | InterfaceError) and _database_is_away():
            return outcome.held_up(error, envelope, settings.database_window, "a database went away")
        return outcome.raised(error, envelope, options)
    return Outcome("succeeded")


def _decode(registration: Registration, envelope: Envelope) -> dict[str, Any]:
    decoder = Decoder()
    arguments = {name: decoder.decode(value) for name, value in envelope.kwargs.items()}
    arguments["signal"] = registry.signal_for(envelope.signal, registration)
    arguments["sender"] = decoder.decode(envelope.sender)
    return arguments


def _database_is_away() -> bool:
    """Whether one of the connections in use can no longer be made: an outage, and not the receiver's own error."""
    for connection in connections.all(initialized_only=True):
        try:
            connection.close_if_unusable_or_obsolete()
            connection.ensure_connection()
        except DatabaseDriverError:
            return True
    return False


def _end(delivery: Delivery | None, end: Outcome) -> tuple[Delivery | None, Outcome]:
    """Say how it ended, in the log and to observers."""
    what = f"Delivery {delivery.id} to {delivery.receiver}, attempt {delivery.attempt}," if delivery else "A payload"
    if end.state == "dead":
        logger.error("%s is dead: %s", what, end.reason)
    elif end.state == "retry":
        logger.warning("%s will be retried in %.3g s: %s", what, end.countdown, end.reason)
    elif end.state == "discarded":
        logger.info("%s is discarded: %s", what, end.reason)
    announce(delivery_finished, delivery.function if delivery else None, delivery=delivery, outcome=end)
    return delivery, end
