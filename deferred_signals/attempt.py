"""One attempt at a delivery on the worker: open, resolve, decode, call, judge; it ends in an Outcome."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from contextvars import copy_context
from functools import partial
from typing import Any, Protocol, TypeVar

from django.db import Error as DatabaseDriverError
from django.db import InterfaceError, OperationalError

from . import conf, context, keeping, outcome, registry
from .bell import is_bell
from .bell import read as read_bell
from .calling import Passes, call, contain, everything
from .decoding import Fetch, argument, decoding, sender_of
from .delivery import Delivery, begin, instance_is
from .encryption import opened
from .envelope import Envelope, unseal
from .exceptions import DecodeError, InstanceMissing, LeaseLost, NewerWire, NotYetKnown, OpenError
from .log_lines import about, say_how_it_ended
from .open_transactions import none_left_open, open_transactions
from .outage import database_is_away
from .outcome import Outcome
from .signals import announce, delivery_finished, delivery_started

logger = logging.getLogger("deferred_signals")

Seen = TypeVar("Seen", Delivery, None, Delivery | None)
#: What travelled, as it is or to be asked for: of what is in an outbox, None.
Payload = Any
#: What the receiver is called in.
Around = Callable[[], AbstractContextManager[Any]]


class Custody(Protocol):
    """What the outbox does around the run of a delivery that it keeps; see ``run_kept``."""

    def around(self) -> AbstractContextManager[Any]:
        """What the receiver is called in: a transaction, with ``atomic=True``."""

    def settle(self, end: Outcome) -> Outcome:
        """Write down how the run has ended, and return how it has ended after all."""


def run(payload: Any, *, redelivered: bool = False, passes: Passes = everything) -> tuple[Delivery | None, Outcome]:
    """Run one payload once; never raises what the receiver or the payload is to blame for.

    ``redelivered``: the broker has given it to a worker before, which did not finish it; it is counted, and not run.
    ``passes`` says of an exception that is no Exception whether it is raised here; by default all are. Returns the
    delivery (None when the payload could not be opened) and how it ended. A doorbell has no delivery of its own: each
    of those that it rings for is run, and ends for itself.
    """
    try:
        if is_bell(payload):
            return None, keeping.answer(read_bell(payload), passes)
        envelope = unseal(payload)
    except OpenError as error:
        # A doorbell is not worth keeping: the rows that it could ring for are there.
        return _end(None, Outcome("dead", error, str(error)), None if is_bell(payload) else payload)
    except NewerWire as error:
        if is_bell(payload):
            # The relay rings again for what is not run, and a worker of the newer release will hear it.
            return _end(None, Outcome("discarded", error, str(error)), payload)
        return _end(None, outcome.held_up_unread(error, conf.current().release_window), payload)
    around = partial(none_left_open, open_transactions())
    return run_opened(envelope, payload, redelivered=redelivered, passes=passes, around=around)


def run_opened(
    envelope: Envelope,
    payload: Payload,
    *,
    redelivered: bool = False,
    passes: Passes = everything,
    around: Around = nullcontext,
    fetch: Fetch | None = None,
) -> tuple[Delivery, Outcome]:
    """Run what was opened once, as ``run``; in ``around``, and with rows from ``fetch``, if not one by one."""
    if envelope.expires is not None and time.time() > envelope.expires:
        return _end(Delivery.of(envelope), Outcome("discarded", reason="expired"), payload)
    if redelivered:
        # Here, at its run, and nowhere else: while a message waits, a broker may take it from one worker and give it to
        # another, as often as workers are restarted. All that is one crash at most.
        counted = envelope.after_crash()
        return _end(Delivery.of(counted), outcome.crashed(counted), payload)
    delivery = Delivery.of(envelope)
    # In a context of its own: what a receiver leaves in a context variable is not for the next delivery.
    return _end(delivery, copy_context().run(_run, delivery, envelope, passes, around, fetch), payload)


def run_kept(
    envelope: Envelope, passes: Passes, custody: Custody, fetch: Fetch | None = None
) -> tuple[Delivery, Outcome]:
    """Run a delivery that is in an outbox once, in its ``custody``; raises as ``run``.

    How it ended is neither written down yet nor said: see ``Custody.settle`` and ``finish_kept``.
    """
    delivery = Delivery.of(envelope)
    if envelope.expires is not None and time.time() > envelope.expires:
        return delivery, Outcome("discarded", reason="expired")
    return delivery, copy_context().run(_run, delivery, envelope, passes, custody.around, fetch)


def finish_kept(delivery: Seen, end: Outcome) -> tuple[Seen, Outcome]:
    """Say how a delivery of an outbox has ended, None where it cannot be opened."""
    return _end(delivery, end)


def _run(delivery: Delivery, envelope: Envelope, passes: Passes, around: Around, fetch: Fetch | None = None) -> Outcome:
    begin(delivery)
    began = time.monotonic()
    stack = ExitStack()
    try:
        return _pipeline(delivery, envelope, stack, passes, around, fetch)
    finally:
        try:
            with contain(passes):
                stack.close()
        except Exception:
            # Too late to be an outcome: the receiver has done its work, and must not do it again.
            what = delivery.id, delivery.receiver
            logger.exception("After delivery %s to %s its context could not be left", *what, extra=about(delivery))
        delivery.seconds = time.monotonic() - began


def _pipeline(
    delivery: Delivery,
    envelope: Envelope,
    stack: ExitStack,
    passes: Passes,
    around: Around,
    fetch: Fetch | None,
) -> Outcome:
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
        decode = decoding(fetch)
        with contain(passes):
            context.enter(carried, decode, stack)
        announce(delivery_started, registration.function, delivery=delivery)
        arguments = {name: argument(name, value, decode, registration) for name, value in kwargs.items()}
        arguments["signal"] = registry.signal_for(envelope.signal, registration)
        arguments["sender"] = sender_of(sender, decode)
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
        with contain(passes), around():
            call(registration.function, arguments)
    except LeaseLost as error:
        return Outcome("discarded", error, str(error))
    except Exception as error:  # noqa: BLE001 - judged, not swallowed
        if isinstance(error, OperationalError | InterfaceError) and database_is_away():
            return outcome.held_up(error, envelope, settings.database_window, "a database went away")
        return outcome.raised(error, envelope, options)
    return outcome.SUCCEEDED


def finish_unopened(end: Outcome, payload: Payload) -> tuple[None, Outcome]:
    """Say how what could not be opened has ended."""
    return _end(None, end, payload)


def _end(delivery: Seen, end: Outcome, payload: Payload = None) -> tuple[Seen, Outcome]:
    """Say how it ended, in the log and to observers; ``payload``, where it is in no outbox yet, is kept if dead."""
    if end.state == "dead" and (outbox := keeping.current()) is not None:
        known = payload() if callable(payload) else payload
        if isinstance(known, str):
            outbox.bury(known, delivery, end)
    if end.state != "succeeded":
        say_how_it_ended(delivery, end, is_alone=payload is not None and not callable(payload))
    announce(delivery_finished, delivery.function if delivery else None, delivery=delivery, outcome=end)
    return delivery, end
