"""Renewing the lease of a row while its receiver runs."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import Error as DatabaseDriverError
from django.db import connections, transaction

from deferred_signals import conf

from .heartbeat import heartbeat
from .lease import Claim
from .row_fields import of_row

logger = logging.getLogger("deferred_signals")

#: Of its lease, the part after which a row is renewed.
PART = 1 / 3


@functools.cache
def _disturbs(alias: str) -> bool:
    """Whether to renew a row would make the transaction of a receiver fail that is to complete it.

    On SQLite nobody else can write beside it. Where transactions keep to a snapshot, they cannot write over what has
    changed since. Raises the database's error.
    """
    connection = connections[alias]
    if connection.vendor == "sqlite":
        return True
    # In a transaction, for of those alone the option isolation_level of DATABASES tells.
    with transaction.atomic(using=alias), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SHOW transaction_isolation")
            return str(cursor.fetchone()[0]) not in {"read committed", "read uncommitted"}
        # MariaDB's, from 11.6 on by default; it is about the levels from REPEATABLE READ on.
        cursor.execute("SHOW VARIABLES LIKE 'innodb_snapshot_isolation'")
        if not (found := cursor.fetchone()) or found[1] != "ON":
            return False
        cursor.execute("SHOW VARIABLES WHERE Variable_name IN ('tx_isolation', 'transaction_isolation')")
        return not any(level.startswith("READ-") for _, level in cursor.fetchall())


def _may_renew(alias: str) -> bool:
    try:
        return not _disturbs(alias)
    except DatabaseDriverError:
        return False


@contextmanager
def renewing(claim: Claim, *, atomic: bool) -> Iterator[None]:
    """Renew a claim while the block runs; not where the block is a transaction that it would make fail."""
    if atomic and not _may_renew(claim.alias):
        yield
        return

    def renew() -> bool:
        if claim.renew():
            return True
        if not claim.is_over:
            text = "The lease of delivery %s ran out, and another worker has it"
            logger.warning(text, claim.row.delivery_id, extra=of_row(claim.row, "overtaken"))
        return False

    with heartbeat(f"renew-{claim.alias}").every(conf.current().lease * PART, renew):
        yield
