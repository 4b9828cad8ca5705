"""Transactions that had to give way to another one: run again, they can succeed."""

from __future__ import annotations

from typing import Any

from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

#: By which databases say so: PostgreSQL's SQLSTATEs of a serialization failure and a deadlock; MySQL's lock wait
#: timeout, and what undoes all; SQLite's busy and locked, the low byte of its codes.
_SQLSTATES = frozenset(["40001", "40P01"])
#: MySQL's deadlock, and MariaDB's "record has changed".
_UNDOES_ALL = frozenset([1213, 1020])
#: MySQL's lock wait timeout, which undoes one statement, or all where the server is told so.
_TIMEOUT = 1205
_MYSQL = frozenset([_TIMEOUT]) | _UNDOES_ALL
_SQLITE = frozenset([5, 6])


def has_given_way(error: BaseException) -> bool:
    """Whether the database has rolled a transaction back because of another one."""
    said = error.__cause__
    if not isinstance(error, OperationalError) or said is None:
        return False
    if (code := getattr(said, "sqlite_errorcode", None)) is not None:
        return code & 0xFF in _SQLITE
    return getattr(said, "sqlstate", None) in _SQLSTATES or said.args[:1] in {(number,) for number in _MYSQL}


def has_undone_all(connection: BaseDatabaseWrapper, error: BaseException) -> bool:
    """Whether the transaction is gone in which a statement has failed, and the next one silently begins another.

    MySQL and MariaDB do that. Others answer to no further statement, or undo the one that has failed. Raises the
    database's error.
    """
    said: Any = error.__cause__
    if connection.vendor != "mysql" or said is None:
        return False
    if said.args[:1] == (_TIMEOUT,):
        with connection.cursor() as cursor:
            cursor.execute("SELECT @@innodb_rollback_on_timeout")
            return bool(cursor.fetchone()[0])
    return said.args[:1] in {(one,) for one in _UNDOES_ALL}
