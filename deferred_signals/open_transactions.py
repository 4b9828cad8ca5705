"""Transactions that a receiver has left open: what is written in them later would not be committed."""

from __future__ import annotations

from collections.abc import Collection

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import TransactionManagementError


def open_transactions() -> list[BaseDatabaseWrapper]:
    """This thread's connections on which a transaction is open; not those whose ``AUTOCOMMIT`` is off in DATABASES."""
    return [one for one in connections.all(initialized_only=True) if one.in_atomic_block or _is_manual(one)]


def undo_all_but(before: Collection[BaseDatabaseWrapper]) -> list[BaseDatabaseWrapper]:
    """Roll back what is open, but for what was open ``before``; return the connections on which it was."""
    left = [one for one in open_transactions() if one not in before]
    for one in left:
        _roll_back(one)
    return left


def _roll_back(connection: BaseDatabaseWrapper) -> None:
    while connection.in_atomic_block:
        transaction.atomic(using=connection.alias).__exit__(TransactionManagementError, None, None)
    if _is_manual(connection):
        connection.rollback()
        connection.set_autocommit(True)


def complaint(left: Collection[BaseDatabaseWrapper]) -> TransactionManagementError:
    """What a receiver is told that has left transactions open."""
    aliases = ", ".join(repr(one.alias) for one in left)
    return TransactionManagementError(f"The receiver has left a transaction open on {aliases}. It is rolled back.")


class none_left_open:  # noqa: N801 - a block, as those of contextlib
    """Around a receiver: what it leaves open, but for what was open ``before``, is rolled back.

    Raises TransactionManagementError: nothing of that was committed, and of the next receiver nothing would be.
    """

    __slots__ = ("_before",)

    def __init__(self, before: Collection[BaseDatabaseWrapper]) -> None:
        self._before = before

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        left = undo_all_but(self._before)
        if left and error is None:
            raise complaint(left)


def _is_manual(connection: BaseDatabaseWrapper) -> bool:
    return connection.connection is not None and not connection.autocommit and connection.settings_dict["AUTOCOMMIT"]
