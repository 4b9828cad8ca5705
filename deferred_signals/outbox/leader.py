"""Who rings: of all relays of one database one at a time, the one that has the row ``relay`` of ``models.Lock``.

It is a lease by the database's clock, and no lock of a session: it works behind a pooler, and ends by itself when its
holder is killed. Two that believe to be the leader do no harm, they only do work twice that one could do.
"""

from __future__ import annotations

import os
import time
import uuid

from django.db.models import F, Q, QuerySet

from .clock import DatabaseNow
from .models import Lock
from .processes import name_of

#: The row's name.
NAME = "relay"
#: Seconds for which a leader leads without a sign of life.
LEASE = 15.0
#: Seconds between two signs of life; and between two looks of those who wait for its end.
RENEWAL = 5.0


class Leadership:
    """One relay's part in it. Not for several threads."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        #: Unlike a worker's, a name of one relay: a process may have had another one before.
        self.me = f"{_holder(os.getpid())}{uuid.uuid4().hex[:12]}"
        self.leads = False
        self._looked = float("-inf")

    def is_mine(self) -> bool:
        """Whether this relay leads now; asks the database when it is time to. Raises the database's error."""
        if time.monotonic() - self._looked >= RENEWAL:
            self._looked = time.monotonic()
            led, self.leads = self.leads, False  # if the database does not answer
            self.leads = self._take(led=led)
        return self.leads

    def look_again(self) -> None:
        """Have the next ``is_mine`` ask the database."""
        self._looked = float("-inf")

    def give_up(self) -> None:
        """Let another one lead at once. Raises the database's error."""
        if self.leads:
            self.leads = False
            self._rows.filter(holder=self.me).update(holder="", until=None)

    @property
    def _rows(self) -> QuerySet[Lock]:
        return Lock.objects.using(self.alias).filter(name=NAME)

    def _take(self, *, led: bool) -> bool:
        others = ~Q(holder=self.me) & Q(until__gt=DatabaseNow())
        if not led and self._rows.filter(others).exists():
            return False  # those who wait write nothing
        mine = {"holder": self.me, "until": DatabaseNow(LEASE), "turns": F("turns") + 1}
        if self._rows.exclude(others).update(**mine):
            return True
        Lock.objects.using(self.alias).bulk_create([Lock(name=NAME)], ignore_conflicts=True)
        return bool(self._rows.exclude(others).update(**mine))


def depose(alias: str, pid: int) -> None:
    """End the lease of a process of this host that is gone, if it leads. Raises the database's error."""
    Lock.objects.using(alias).filter(name=NAME, holder__startswith=_holder(pid)).update(holder="", until=None)


def _holder(pid: int) -> str:
    return f"{name_of(pid)[:200]} "
