"""Telling a database that is away from an error of the receiver's own."""

from __future__ import annotations

from django.db import Error as DatabaseDriverError
from django.db import connections


def database_is_away() -> bool:
    """Whether one of the connections in use can no longer be made; makes those anew that were only broken."""
    for connection in connections.all(initialized_only=True):
        try:
            connection.close_if_unusable_or_obsolete()
            connection.ensure_connection()
        except DatabaseDriverError:
            return True
    return False
