"""How a run ended, as data: succeeded, retry, discarded (on purpose), dead (against our will)."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from . import conf
from .envelope import Envelope
from .exceptions import (
    Discard,
    NewerWire,
    ReceiverCancelled,
    ReceiverInterrupted,
    Retry,
    SeveralDied,
    TooDeep,
    WorkerLost,
)
from .options import Options
from .strict_json import dump

State = Literal["succeeded", "retry", "discarded", "dead"]

#: What Celery waits by default before a retry without backoff (``Task.default_retry_delay``), in seconds.
DEFAULT_RETRY_DELAY = 180

#: Longest pause between two looks whether the infrastructure is back, in seconds.
LONGEST_WAIT = 60

#: Longest countdown of a retry, in seconds: a hundred years. Clocks and timers cannot hold much later ones, and a retry
#: that cannot be published comes back at once.
LONGEST_COUNTDOWN = 100 * 365 * 86400


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one attempt.

    ``error`` is the exception behind a retry or a death, ``countdown`` the seconds until a retry, ``text`` the envelope
    that the retry carries, not yet signed.
    """

    state: State
    error: Exception | None = None
    reason: str = ""
    countdown: float = 0
    text: str = field(default="", repr=False)


#: Of most attempts; one for all, for it never changes.
SUCCEEDED = Outcome("succeeded")


def backoff(options: Options, attempt: int) -> float:
    """Seconds to wait after the failed ``attempt``, by Celery's rules for ``retry_backoff`` and its companions."""
    if not options.retry_backoff:
        return DEFAULT_RETRY_DELAY
    factor = max(1.0, float(options.retry_backoff))
    # 2 ** 1023 is the last power a float can hold; long before it every backoff is at its maximum.
    pause = min(options.retry_backoff_max, factor * 2.0 ** min(attempt - 1, 1000))
    # Full jitter, as in Celery: many failures of one moment must not come back together.
    return random.uniform(0, pause) if options.retry_jitter else pause  # noqa: S311 - not for secrets


def raised(error: Exception, envelope: Envelope, options: Options, who: str = "the receiver") -> Outcome:
    """Judge what the receiver raised: discarded if it said so, retried while ``max_retries`` allows, then dead."""
    if isinstance(error, Discard):
        return Outcome("discarded", error, _said(error) or f"{who} discarded it")
    asked = isinstance(error, Retry)
    if not asked and (not _is(error, options.autoretry_for) or _is(error, options.dont_autoretry_for)):
        return Outcome("dead", error, f"{who} raised an exception that is not in autoretry_for")
    if options.max_retries is not None and envelope.attempt > options.max_retries:
        return Outcome("dead", error, f"{who} raised in attempt {envelope.attempt}, the last (max_retries)")
    given = error.countdown if isinstance(error, Retry) else None
    countdown = backoff(options, envelope.attempt) if given is None else given
    return Outcome(
        "retry", error, f"{who} raised", min(countdown, LONGEST_COUNTDOWN), envelope.next_attempt().to_text()
    )


def _said(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a receiver's own exception may fail in its text
        return ""


def raised_text(error: Exception) -> str:
    """An exception in a line of a log: its name, and its text in brackets."""
    return f"({type(error).__name__}: {_said(error)})"


def _is(error: Exception, kinds: tuple[type[BaseException], ...]) -> bool:
    """Whether it is one of these, or stands for one of these."""
    return isinstance(error, kinds) or (
        isinstance(error, ReceiverCancelled | ReceiverInterrupted) and isinstance(error.__cause__, kinds)
    )


def crashed(envelope: Envelope) -> Outcome:
    """Judge a delivery that came back from a worker that did not finish it, which the envelope counts already.

    It is not run: its message stands at the head of the queue, and would take worker after worker with it. It leaves as
    a copy with the count, after a pause.
    """
    limit = conf.current().crash_limit
    if envelope.crashes >= limit:
        reason = (
            f"it came back {envelope.crashes} times in a row from workers that did not finish it (CRASH_LIMIT is "
            f"{limit}). A receiver that ends its process, runs out of memory or into its time_limit does that."
        )
        return Outcome("dead", WorkerLost(reason), reason)
    reason = f"a worker did not finish it, which is crash {envelope.crashes} of at most {limit}"
    # Random, so that those which only stood behind the one that ends its worker do not come back in the same order.
    pause = random.uniform(0, min(2.0 ** min(envelope.crashes - 1, 6), LONGEST_WAIT))  # noqa: S311 - not for secrets
    return Outcome("retry", WorkerLost(reason), reason, pause, envelope.to_text())


#: What the author of a receiver that causes itself can do.
_REMEDY = (
    "Let when= or update_fields tell which saves the receiver is for, write with queryset.update(), or save inside "
    "suppress()."
)


def too_deep(envelope: Envelope) -> Outcome | None:
    """The end of a delivery that is one too many of those that cause each other; None if it is not."""
    settings = conf.current()
    if envelope.repeats >= settings.self_limit:
        reason = (
            "the receiver saved the instance that it listens to, which sent the signal to it once more (SELF_LIMIT is "
            f"{settings.self_limit}). {_REMEDY}"
        )
    elif envelope.depth > settings.chain_limit:
        reason = f"{envelope.depth} deliveries caused each other (CHAIN_LIMIT is {settings.chain_limit}). {_REMEDY}"
    else:
        return None
    return Outcome("dead", TooDeep(reason), reason)


def held_up(error: Exception, envelope: Envelope, window: float, reason: str) -> Outcome:
    """Judge what is not the receiver's fault: retried for ``window`` seconds, without using up its retries."""
    since = _not_to_come(envelope.waiting_since)
    return wait(error, since, window, reason, envelope.waiting(since).to_text())


def held_up_unread(error: NewerWire, window: float) -> Outcome:
    """The same for a payload of a newer wire version: it goes on as it is, with the time since when it waits."""
    data = error.data or {}
    since = _not_to_come(data.get("waiting"))
    return wait(error, since, window, str(error), dump({**data, "waiting": since}))


def _not_to_come(since: Any) -> float:
    """A time since when something waits. Now, where that is none: of a time to come it would wait until then."""
    now = time.time()
    return since if type(since) in {int, float} and 0 < since < now else now


def wait(error: Exception, since: float, window: float, reason: str, text: str) -> Outcome:
    """Retry while ``window`` seconds since ``since`` (Unix seconds) have not passed, then dead."""
    waited = time.time() - since
    if waited > window:
        return Outcome("dead", error, f"{reason.rstrip('.')}, for more than {window:g} s")
    # As long again as it has been waited already: doubling pauses without a counter on the wire.
    return Outcome("retry", error, reason, min(max(1.0, waited), LONGEST_WAIT), text)


def summary(ends: Sequence[Outcome], what: str = "batch") -> Outcome:
    """How a message with several deliveries has ended: dead, with their errors, if one of them has died."""
    errors = [end.error for end in ends if end.state == "dead" and end.error is not None]
    if not errors:
        return SUCCEEDED
    error = errors[0] if len(errors) == 1 else SeveralDied(f"{len(errors)} deliveries of one {what} died", errors)
    return Outcome("dead", error, "; ".join(end.reason for end in ends if end.state == "dead"))
