"""A window on a doorbell: rows that are claimed together, run one after another, and completed together.

Nobody holds more than runs in about a moment. When a receiver takes longer, what has run is completed, and what has not
begun is given back, both by the heartbeat's thread. So a worker that is lost takes along what it ran in that moment.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from django.db import Error as DatabaseDriverError

from deferred_signals import conf
from deferred_signals.attempt import finish_kept
from deferred_signals.decoding import Fetch
from deferred_signals.delivery import Delivery
from deferred_signals.envelope import Envelope
from deferred_signals.exceptions import NewerWire, OpenError
from deferred_signals.keeping import Run
from deferred_signals.outcome import Outcome
from deferred_signals.prefetch import Rows

from . import claims, remainder
from .custody import overtaken
from .heartbeat import heartbeat
from .lease import Claim
from .persistence import persist
from .renewal import PART

logger = logging.getLogger("deferred_signals")

#: Rows of the first window of a doorbell.
FIRST = 10
#: Seconds that a window is to take.
QUICK = 0.1
#: Seconds for which an end is tried to be written down by a worker that is shut down at once.
LAST_MOMENT = 0.2


class Ran(NamedTuple):
    """A run that has succeeded, and whose row is not completed yet; its place among the ``ended``."""

    claim: Claim
    delivery: Delivery
    place: int


class Window:
    """Of so many ids of a doorbell, the rows that this process holds; of the others it knows nothing."""

    def __init__(self, made: claims.Claimed, began: float) -> None:
        #: How many of the ids it is about.
        self.size = made.size
        #: How its runs have ended, and those in between.
        self.ended: list[Run] = []
        self._began = self._renewed = began
        self._claims = made.claims
        self._held = {claim.row.delivery_id: claim for claim in made.claims}
        self._places = {claim: place for place, claim in enumerate(made.claims)}
        self._rows = Rows([_envelope(claim) for claim in made.claims])
        self._ran: list[Ran] = []
        self._overtaken: set[Claim] = set()
        #: Held for each statement, so that those of two threads do not wait for each other in a circle.
        self._lock = threading.Lock()

    def take(self, key: uuid.UUID) -> Claim | None:
        """The claim on a row whose turn it is; None if it is not held, or was for longer than a lease."""
        claim = self._held.pop(key, None)
        if claim is not None and time.monotonic() - self._renewed > conf.current().lease:
            claim.is_over = True
            return None
        return claim

    def __contains__(self, claim: Claim) -> bool:
        return claim in self._places

    def fetch_for(self, claim: Claim) -> Fetch | None:
        """By what the references of a delivery that is to be run now are fetched; None if by themselves."""
        if claim not in self:
            return None
        return self._rows.fetch_for(claim.envelope, self._places[claim])

    def keep(self, claim: Claim, delivery: Delivery) -> None:
        """Have a run that has succeeded be completed with the others."""
        self._ran.append(Ran(claim, delivery, len(self.ended)))
        self.ended.append((delivery, Outcome("succeeded")))

    def release(self, keys: Iterable[uuid.UUID], seconds: float) -> None:
        """Give back those that were not begun, for others to take; the relay rings for them in so many seconds."""
        given = [claim for key in keys if (claim := self._held.pop(key, None)) is not None]
        for claim in given:
            claim.is_over = True  # also if the answer is lost: it may be another's
        if given:
            with self._lock:
                claims.release(given, seconds)

    def next_size(self) -> int:
        """How many ids the next window should be about."""
        took = max(time.monotonic() - self._began, 1e-6)
        return max(1, min(2 * self.size, int(self.size * QUICK / took)))

    def renew(self) -> bool:
        """Hold what is not over for another lease."""
        now = time.monotonic()
        with self._lock:
            left = [claim for claim in self._claims if not claim.is_over]
            if left and claims.renew(left):
                self._renewed = now
        return True

    def complete(self) -> bool:
        """Write down what has succeeded so far; whether there is more to come."""
        with self._lock:
            ran = [one.claim for one in self._ran if not one.claim.is_over]
            if ran:
                self._overtaken.update(claims.complete(ran))
                for claim in ran:
                    claim.is_over = True
        return bool(self._held)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """In the block its rows are renewed, and completed when they have waited for a moment."""
        with ExitStack() as stack:
            stack.enter_context(self._rows.watched())
            beside = heartbeat(f"renew-{self._claims[0].alias}")
            stack.enter_context(beside.every(conf.current().lease * PART, self.renew))
            stack.enter_context(beside.every(remainder.PATIENCE, self.complete))
            try:
                yield
            except BaseException:
                self._finish(LAST_MOMENT)
                raise
            self._finish(conf.current().lease)

    def _finish(self, seconds: float) -> None:
        """Complete what has succeeded, and say so; give back what was not begun."""
        persist(self.complete, f"That {len(self._ran)} deliveries succeeded", seconds)
        try:
            self.release(list(self._held), 0.0)
        except DatabaseDriverError:
            logger.warning("Some deliveries could not be given back, and run when their leases are over")
        for claim, delivery, place in self._ran:
            end = self.ended[place][1]
            self.ended[place] = finish_kept(delivery, overtaken(end) if claim in self._overtaken else end)


def _envelope(claim: Claim) -> Envelope | None:
    try:
        return claim.envelope
    except (OpenError, NewerWire):
        return None


@contextmanager
def opened(alias: str, ids: Sequence[uuid.UUID], names: Collection[str]) -> Iterator[Window]:
    """A window on the ids, in which the rows of receivers of these names are held together."""
    began = time.monotonic()
    made = claims.Claimed([], len(ids))
    if names and len(ids) > 1:
        try:
            made = claims.claim_together(alias, ids, names)
        except DatabaseDriverError as error:
            logger.info("Deliveries are claimed one by one: %s: %s", type(error).__name__, error)
    window = Window(made, began)
    if made.claims:
        with window.watched():
            yield window
    else:
        yield window
