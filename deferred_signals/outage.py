"""Telling a database that is away from an error of the receiver's own."""

from __future__ import annotations

from django.db import Error as DatabaseDriverError
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper


def database_is_away() -> bool:
    """Whether one of the connections in use has broken or can no longer be made; makes those anew that have broken."""
    away = False
    for connection in connections.all(initialized_only=True):
        try:
            if _has_broken(connection):
                away = True  # even if the server is back by now
                connection.close()
            connection.close_if_unusable_or_obsolete()
            connection.ensure_connection()
        except DatabaseDriverError:
            away = True
        except AssertionError:
            continue  # so Django's test cases forbid those databases that they do not name
    return away


def _has_broken(connection: BaseDatabaseWrapper) -> bool:
    """Whether a connection that has seen an error is of no more use.

    After a transaction it cannot be seen: Django has connected anew by then, if the server is there.
    """
    # Within a transaction nobody can ask: one that has failed answers to nothing.
    asked = connection.connection is not None and connection.errors_occurred and not connection.in_atomic_block
    return asked and not connection.is_usable()
