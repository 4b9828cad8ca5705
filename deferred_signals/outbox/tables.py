"""Whether a database has the tables of the outbox."""

from __future__ import annotations

from django.db import connections
from django.db.models import Model

from .models import OutboxDelivery


def has_table(alias: str, model: type[Model] = OutboxDelivery) -> bool:
    """Ask the database, without a trace in the log of queries. Raises the database's error.

    Of all sends of a process only the first asks, and would fail a test that counts its queries (assertNumQueries).
    Django's introspection is asked first. That of django-tenants sees nothing but the tenant's own schema, while
    statements find a shared table by the search path: so on PostgreSQL that is asked too.
    """
    connection = connections[alias]
    connection.ensure_connection()
    with connection.wrap_database_errors, connection.make_cursor(connection.create_cursor()) as cursor:
        if model._meta.db_table in connection.introspection.table_names(cursor):
            return True
        if connection.vendor != "postgresql":
            return False
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [connection.ops.quote_name(model._meta.db_table)])
        return bool(cursor.fetchone()[0])
