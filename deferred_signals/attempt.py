"""One attempt at a delivery on the worker: open, resolve, decode, call, judge; it ends in an Outcome."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from contextvars import copy_context
from typing import Any

from django.db import Error as DatabaseDriverError
from django.db import InterfaceError, OperationalError

from . import conf, context, outcome, registry
from .calling import Passes, call, contain, everything
from .codec import Decoder, NotCarried
from .delivery import Delivery, begin, instance_is
from .encryption import opened
from .envelope import Envelope, unseal
from .exceptions import DecodeError, InstanceMissing, NewerWire, NotYetKnown, OpenError, UnknownName
from .outage import database_is_away
from .outcome import Outcome
from .registry import Registration
from .signals import announce, delivery_finished, delivery_started
from .suppression import suppress

logger = logging.getLogger("deferred_signals")


def run(payload: Any, *, redelivered: bool = False, passes: Passes = everything) -> tuple[Delivery | None, Outcome]:
    """Run one payload once; never raises what the receiver or the payload is to blame for.

    ``redelivered``: the broker has given it to a worker before, which did not finish it; it is counted, and not run.
    ``passes`` says of an exception that is no Exception whether it is raised here; by default all are. Returns the
    delivery (None when the payload could not be opened) and how it ended.
    """
    try:
        envelope = unseal(payload)
    except OpenError as error:
        return _end(None, Outcome("dead", error, str(error)))
    except NewerWire as error:
        return _end(None, outcome.held_up_unread(error, conf.current().release_window))
    if envelope.expires is not None and time.time() > envelope.expires:
        return _end(Delivery.of(envelope), Outcome("discarded", reason="expired"))
    if redelivered:
        # Here, at its run, and nowhere else: while a message waits, a broker may take it from one worker and give it to
        # another, as often as workers are restarted. All that is one crash at most.
        counted = envelope.after_crash()
        return _end(Delivery.of(counted), outcome.crashed(counted))
    # In a context of its own: what a receiver leaves in a context variable is not for the next delivery.
    return copy_context().run(_run, Delivery.of(envelope), envelope, passes)


def _run(delivery: Delivery, envelope: Envelope, passes: Passes) -> tuple[Delivery | None, Outcome]:
    begin(delivery)
    stack = ExitStack()
    try:
        end = _pipeline(delivery, envelope, stack, passes)
    finally:
        try:
            with contain(passes):
                stack.close()
        except Exception:
            # Too late to be an outcome: the receiver has done its work, and must not do it again.
            logger.exception("After delivery %s to %s its context could not be left", delivery.id, delivery.receiver)
    return _end(delivery, end)


def _pipeline(delivery: Delivery, envelope: Envelope, stack: ExitStack, passes: Passes) -> Outcome:
    settings = conf.current()
    if (end := outcome.too_deep(envelope)) is not None:
        return end
    try:
        registration = registry.get(envelope.receiver)
    except NotYetKnown as error:
        return outcome.held_up(error, envelope, settings.release_window, str(error))
    options = registration.options
    try:
        sender, kwargs, carried = opened(envelope)
        decode = _decoding()
        with contain(passes):
            context.enter(carried, decode, stack)
        announce(delivery_started, registration.function, delivery=delivery)
        arguments = {name: _argument(name, value, decode, registration) for name, value in kwargs.items()}
        arguments["signal"] = registry.signal_for(envelope.signal, registration)
        arguments["sender"] = _sender(sender, decode)
    except NotYetKnown as error:
        return outcome.held_up(error, envelope, settings.release_window, str(error))
    except InstanceMissing as error:
        if options.missing == "retry":
            return outcome.raised(error, envelope, options)
        return Outcome("discarded" if options.missing == "discard" else "dead", error, str(error))
    except DatabaseDriverError as error:
        database_is_away()  # for what it mends
        return outcome.held_up(error, envelope, settings.database_window, "the database did not answer")
    except (OpenError, DecodeError) as error:
        return Outcome("dead", error, str(error))
    except Exception as error:  # noqa: BLE001 - a user's carrier may raise anything
        return outcome.raised(error, envelope, options, "a context carrier or codec")
    instance_is(arguments.get("instance"))
    try:
        with contain(passes):
            call(registration.function, arguments)
    except Exception as error:  # noqa: BLE001 - judged, not swallowed
        if isinstance(error, OperationalError | InterfaceError) and database_is_away():
            return outcome.held_up(error, envelope, settings.database_window, "a database went away")
        return outcome.raised(error, envelope, options)
    return Outcome("succeeded")


def _argument(name: str, value: Any, decode: Callable[[Any], Any], registration: Registration) -> Any:
    try:
        return decode(value)
    except InstanceMissing as error:
        # As at the send: what the receiver does not ask for does not keep it from running. That it is run about its
        # instance, it need not say.
        if name == "instance" or name in registration.named:
            raise
        return NotCarried(f"kwargs[{name!r}]", "a model instance", str(error))


def _sender(value: Any, decode: Callable[[Any], Any]) -> Any:
    try:
        return decode(value)
    except UnknownName as error:
        # Of a class or function. A worker has no reason to have imported each view that sends a signal.
        if not isinstance(value, dict) or value.keys().isdisjoint(("$class", "$function")):
            raise
        return NotCarried("sender", "a class or function", str(error))


def _decoding() -> Callable[[Any], Any]:
    decoder = Decoder()

    def decode(value: Any) -> Any:
        with suppress():  # instances are made, and the signals of that are no news
            return decoder.decode(value)

    return decode


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
