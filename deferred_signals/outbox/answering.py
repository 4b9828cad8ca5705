"""What a worker does when it is rung: claim each row, and run it."""

from __future__ import annotations

import logging
import time
import uuid
from collections import deque
from contextlib import nullcontext

from django.db import Error as DatabaseDriverError
from django.db import InterfaceError, OperationalError, connections

from deferred_signals import conf, handover
from deferred_signals.attempt import finish_kept, run_kept
from deferred_signals.bell import Bell
from deferred_signals.calling import Passes
from deferred_signals.delivery import Delivery
from deferred_signals.envelope import unseal
from deferred_signals.exceptions import NewerWire, OpenError, WorkerLost
from deferred_signals.handing_on import next_of
from deferred_signals.keeping import Run
from deferred_signals.outage import database_is_away
from deferred_signals.outcome import Outcome, held_up_unread
from deferred_signals.tasks import deliver

from . import claims, keyed, succession, windows
from .custody import Custody, settle
from .lease import Claim, Superseded, claim
from .models import OutboxDelivery
from .remainder import passing_on
from .renewal import renewing
from .ringing import bells_for, options_of, ring
from .row_fields import of_row
from .windows import Window

logger = logging.getLogger("deferred_signals")

#: How often a claim is tried that gave way to another transaction, or came over a connection that had broken.
TRIES = 3
#: Seconds after which no further row of a doorbell is begun with; the rest is rung for anew.
LONGEST = 1.0


def answer(bell: Bell, passes: Passes) -> list[Run]:
    """Run what may be run of the rows that a doorbell names, in order; what may not, somebody else has, or will."""
    if bell.alias not in connections:
        logger.error("A doorbell rings for the database alias %r, which this process does not have", bell.alias)
        return []
    ended: list[Run] = []
    began = time.monotonic()
    rest = deque(bell.ids)
    names = claims.receivers(bell.alias) if len(rest) > 1 else []
    size = windows.FIRST if names else len(rest)
    goes_on = True
    while rest and goes_on:
        with windows.opened(bell.alias, list(rest.copy())[:size], names) as window:
            goes_on = _run_those_of(window, bell.alias, rest, passes, began)
        ended += window.ended
        size = window.next_size()
    return ended


def _run_those_of(window: Window, alias: str, rest: deque[uuid.UUID], passes: Passes, began: float) -> bool:
    """Run what a window holds, and what can be claimed in between; whether to go on with the rest."""
    for _ in range(window.size):
        if (key := next_of(rest)) is None:
            break
        try:
            held = window.take(key) or _claimed(alias, key)
        except DatabaseDriverError as error:
            logger.warning(
                "A delivery could not be claimed, and is rung for again: %s: %s", type(error).__name__, error
            )
            if database_is_away():
                return False
            continue
        if isinstance(held, Claim):
            window.ended += [_superseded(payload) for payload in held.superseded]
            _run(held, rest, passes, began, window)
            _ring_for_the_next(alias, held.row, rest)
            # A project's time limit is for the message, so it should be about one receiver.
            if rest and time.monotonic() - began > LONGEST and _rung_for(held, list(rest.copy()), window):
                return False
        elif isinstance(held, Superseded):
            window.ended.append(_superseded(held.row.payload))
            _ring_for_the_next(alias, held.row, rest)
    return True


def _rung_for(held: Claim, ids: list[uuid.UUID], window: Window) -> bool:
    """Ring for others of the doorbell with which a row has come; whether the broker has taken that."""
    window.release(ids, conf.current().ring_again)
    row = held.row
    receivers = dict.fromkeys(ids, row.receiver)
    return not handover.ring(list(bells_for(held.alias, receivers, options_of(row.receiver, row.signal))))


def _claimed(alias: str, key: uuid.UUID) -> Claim | Superseded | None:
    for _ in range(TRIES - 1):
        try:
            return claim(alias, key)
        except (OperationalError, InterfaceError):
            database_is_away()  # for what it mends
    return claim(alias, key)


def _superseded(payload: str) -> Run:
    try:
        delivery = Delivery.of(unseal(payload, of_any_age=True))
    except (OpenError, NewerWire):
        delivery = None
    return finish_kept(delivery, Outcome("discarded", reason="superseded by a later one of its unique key"))


def _run(held: Claim, rest: deque[uuid.UUID], passes: Passes, began: float, window: Window) -> None:
    row = held.row

    def ring_for(ids: list[uuid.UUID]) -> bool:
        return _rung_for(held, succession.beside(held.alias, row, ids), window)

    try:
        if (custody := _custody(held, window)) is None:
            return
        is_kept = held in window and not custody.atomic
        renewed = nullcontext() if is_kept else renewing(held, atomic=custody.atomic)
        with renewed, passing_on(held.alias, rest, ring_for):
            delivery, end = run_kept(held.envelope, passes, custody, window.fetch_for(held))
            if is_kept and end.state == "succeeded":
                window.keep(held, delivery)
            else:
                window.ended.append(finish_kept(delivery, custody.settle(end)))
    except Exception:
        # Of ours. Not released: it would come back at once, and for ever. When its lease is over, it counts as a crash.
        raise
    except BaseException:
        if not _may_be_over_its_limit(began):
            _release(held)
        raise


def _may_be_over_its_limit(began: float) -> bool:
    """Whether a run may have been broken off by a hard time limit, which its process hears of as of a shutdown.

    Released, it would come back at once and for ever. When its lease is over instead, it counts as a crash.
    """
    limit = (deliver.request.timelimit or [None])[0] or deliver.time_limit
    # Half of it: its clock began earlier, and a shutdown that is taken for it costs one crash of many. What ``celery
    # worker --time-limit`` says is not known here; it is most likely longer than a lease.
    return time.monotonic() - began > (limit / 2 if limit else conf.current().lease)


def _custody(held: Claim, window: Window) -> Custody | None:
    """Of a row that may be run; None, with its end, of one that may not."""
    delivery = None
    try:
        envelope = held.envelope
    except OpenError as error:
        end = Outcome("dead", error, str(error))
    except NewerWire as error:
        end = held_up_unread(error, conf.current().release_window)
    else:
        if held.row.crashes < conf.current().crash_limit:
            return Custody(held, envelope)
        reason = (
            f"its worker was lost {held.row.crashes} times in a row (CRASH_LIMIT), the last one was {held.lost}. A "
            "receiver that ends its process, runs out of memory or into its time_limit does that; so does one that "
            "takes longer than LEASE where it cannot be renewed (see atomic)."
        )
        delivery, end = Delivery.of(envelope), Outcome("dead", WorkerLost(reason), reason)
    window.ended.append(finish_kept(delivery, settle(held, end)))
    return None


def _release(held: Claim) -> None:
    """Give back what was broken off from outside: by a worker that is shut down at once."""
    try:
        held.release()
    except DatabaseDriverError:
        database_is_away()  # for what it mends: the connection may have been broken off as well
        try:
            held.release()
        except DatabaseDriverError:
            text = "Delivery %s was broken off, and runs again when its lease is over"
            logger.warning(text, held.row.delivery_id, extra=of_row(held.row, "interrupted"))


def _ring_for_the_next(alias: str, row: OutboxDelivery, rest: deque[uuid.UUID]) -> None:
    """Ring for the rows that waited for this one, but for those of the ``rest``, which come next anyway."""
    if not keyed.has_key(row):
        return
    try:
        following = succession.following(alias, row)
    except DatabaseDriverError:
        return  # the relay finds them
    behind = {*rest.copy()}  # as it is now; the heartbeat takes from it as well
    ring(alias, [one for one in following if one.delivery_id not in behind])
