"""PostgreSQL's NOTIFY, by which a sender wakes the relay: the setting ``NOTIFY``.

The sender does not talk to the broker then. Nothing depends on a notification: the relay finds the row of one that is
lost by the next look that it takes anyway.
"""

from __future__ import annotations

import logging
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from deferred_signals import conf

logger = logging.getLogger("deferred_signals")

CHANNEL = "deferred_signals"


def is_on(connection: BaseDatabaseWrapper) -> bool:
    """Whether on this database the relay rings, woken by the sender, and not the sender."""
    return connection.vendor == "postgresql" and conf.current().notify


def notify(connection: BaseDatabaseWrapper) -> None:
    """Wake the relay at the commit; PostgreSQL makes one of several equal notifications of a transaction."""
    if is_on(connection):
        with connection.cursor() as cursor:
            cursor.execute(f"NOTIFY {CHANNEL}")


class Ear:
    """What the relay of one database hears of the senders; over a connection that was made anew it listens anew."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._raw: Any = None
        self._heard = False
        self._told = False

    def listen(self) -> None:
        """Begin to listen, where the setting asks for it. Raises the database's error."""
        connection = connections[self._alias]
        if not is_on(connection):
            if conf.current().notify and not self._told:
                self._told = True
                logger.warning("The database %r has no NOTIFY, so its senders ring themselves", self._alias)
            return
        connection.ensure_connection()
        raw = connection.connection
        if raw is self._raw:
            return
        with connection.cursor() as cursor:
            cursor.execute(f"LISTEN {CHANNEL}")
        # What comes along with the answer to a query psycopg 3 tells, and psycopg2 puts on a list.
        if hasattr(raw, "add_notify_handler"):
            raw.add_notify_handler(self._hear)
        self._raw = raw

    def _hear(self, notification: Any) -> None:
        self._heard = True

    def heard(self) -> bool:
        """Whether a sender has called since this was asked last, as far as the driver has read."""
        heard, self._heard = self._heard, False
        listed = getattr(self._raw, "notifies", None)
        if isinstance(listed, list) and listed:
            listed.clear()
            heard = True
        return heard

    @property
    def socket(self) -> int | None:
        """The file descriptor that can be read when a sender calls; None while nobody listens."""
        raw = connections[self._alias].connection
        return raw.fileno() if raw is not None and raw is self._raw else None
