"""Transactions that a receiver has left open: what is written in them later would not be committed."""

from __future__ import annotations

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import TransactionManagementError


def open_transactions() -> list[BaseDatabaseWrapper]:
    """This thread's connections on which a transaction is open; not those whose ``AUTOCOMMIT`` is off in DATABASES."""
    return [one for one in connections.all(initialized_only=True) if one.in_atomic_block or _is_manual(one)]


def roll_back(connection: BaseDatabaseWrapper) -> None:
    """Undo what is open on a connection, and have it commit again what is written."""
    while connection.in_atomic_block:
        transaction.atomic(using=connection.alias).__exit__(TransactionManagementError, None, None)
    if _is_manual(connection):
        connection.rollback()
        connection.set_autocommit(True)


def _is_manual(connection: BaseDatabaseWrapper) -> bool:
    return connection.connection is not None and not connection.autocommit and connection.settings_dict["AUTOCOMMIT"]
