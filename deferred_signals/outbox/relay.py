"""The relay: it rings for every row that nobody has finished in time, as often as it takes.

For each database there is one that leads; ``batch`` is what it does, here is when. It asks one question a second while
there is nothing to do.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from multiprocessing.connection import wait

from django.db import Error as DatabaseDriverError
from django.db import connections

from .batch import ring_batch
from .clock import DatabaseNow, SecondsFromNow
from .leader import RENEWAL, Leadership
from .losses import Losses
from .models import OutboxDelivery
from .notifying import Ear
from .probing import Probe
from .pruning import Pruning
from .tables import has_table

logger = logging.getLogger("deferred_signals")

#: Seconds between two looks at the table, where nothing is known to be due sooner.
POLL = 1.0
#: Seconds until the broker is tried again that has refused, with a row for each route.
REFUSED_PAUSE = 0.5
#: Seconds between two looks for a database that is away: at first and at most; and for a table that is not there.
AWAY_PAUSE, LONGEST_AWAY_PAUSE, NO_TABLE_PAUSE = 1.0, 10.0, 60.0


class Relay:
    """The relay of one database, to be run by one thread; the other methods are for all threads."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.leadership = Leadership(alias)
        #: Rows rung for so far.
        self.rung = 0
        self._losses = Losses(alias)
        self._pruning = Pruning(alias)
        self._ear = Ear(alias)
        self._probe = Probe(alias)
        self._woken, self._wake = os.pipe()
        self._stopping = False
        self._has_table = False
        self._refused = False
        self._away = 0.0

    def stop(self) -> None:
        """Have it finish its batch and end."""
        self._stopping = True
        self.wake()

    def wake(self) -> None:
        """Have it look at the table now."""
        os.write(self._wake, b"w")

    def lost(self, pid: int, how: str, *, is_gone: bool = False) -> None:
        """Have what a process of this host was running run again, as soon as that process is gone."""
        self._losses.add(pid, how, is_gone=is_gone)
        self.wake()

    def run(self) -> None:
        """Ring until it is stopped. A database that is away is waited for."""
        while not self._stopping:
            self._wait(self._turn_or_trouble())
        try:
            self._losses.settle()
            self.leadership.give_up()
        except DatabaseDriverError:
            logger.info("The relay of %r could not say that it ends; another one takes over soon", self.alias)
        connections[self.alias].close()

    def turn(self) -> float:
        """Do what is to be done now; return for how long there is nothing to do. Raises the database's error."""
        if not self._has_table:
            self._has_table = has_table(self.alias)
            if not self._has_table:
                connections[self.alias].close()
                return NO_TABLE_PAUSE
        pause = min(POLL, self._settle())
        led = self.leadership.leads
        if not self.leadership.is_mine():
            # Others may be hundreds, and the server's connections are few.
            connections[self.alias].close()
            return min(RENEWAL, pause) if self._losses else RENEWAL
        if not led:
            logger.info("The relay of %r is %s from now on", self.alias, self.leadership.me)
        self._ear.listen()
        soonest = self._ring()
        goes_on = self._pruning.goes_on() or self._ear.heard()
        return 0 if goes_on and not self._refused else min(pause, soonest)

    def _settle(self) -> float:
        if not self._losses:
            return POLL
        pause = self._losses.settle()
        self.leadership.look_again()
        return pause

    def _seconds_to_the_next(self, *, due: bool = True) -> float:
        """Until a row is due; of those that are not yet, where others have all that is."""
        rows = OutboxDelivery.objects.using(self.alias).filter(ring_at__isnull=False).order_by("ring_at")
        if not due:
            rows = rows.filter(ring_at__gt=DatabaseNow())
        found = rows.values_list(SecondsFromNow("ring_at"), flat=True).first()
        return POLL if found is None else float(found)

    def _ring(self) -> float:
        """Ring for a batch of what is due; return for how long there is nothing more to ring for."""
        soonest = self._seconds_to_the_next()
        if soonest > 0:
            return soonest
        batch = ring_batch(self.alias, only=self._probe.numbers() if self._refused else None)
        self.rung += batch.rung
        error = batch.outage
        if error is not None:
            if not self._refused:
                name = type(error).__name__
                logger.warning("The broker does not take doorbells, and is tried again: %s: %s", name, error)
            self._refused = True
            return REFUSED_PAUSE
        if self._refused and batch.rung:
            logger.info("The broker takes doorbells again")
            self._refused = False
        return 0 if batch.due else self._seconds_to_the_next(due=False)

    def _turn_or_trouble(self) -> float:
        try:
            pause = self.turn()
        except Exception as error:
            if not self._away:
                # What is no error of the database is one of ours, or of the settings. Nobody else would go on either.
                show = None if isinstance(error, DatabaseDriverError) else error
                said = "The relay of %r cannot work, and tries again: %s: %s"
                logger.warning(said, self.alias, type(error).__name__, error, exc_info=show)
            self._away = min(LONGEST_AWAY_PAUSE, self._away * 2 or AWAY_PAUSE)
            with suppress(DatabaseDriverError):
                connections[self.alias].close()
            return self._away
        if self._away:
            self._away = 0.0
            logger.info("The relay of %r works again", self.alias)
        return pause

    def _wait(self, seconds: float) -> None:
        """Wait for so many seconds, until a sender calls or until somebody wakes it."""
        heard = [self._woken] if (socket := self._ear.socket) is None else [self._woken, socket]
        ready = wait(heard, max(0.0, seconds))
        if self._woken in ready:
            os.read(self._woken, 1024)
