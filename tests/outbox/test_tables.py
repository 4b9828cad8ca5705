"""Whether a database has the outbox's tables. With django-tenants itself: ``tests/integration/test_carriers.py``."""

from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection

from deferred_signals.outbox.models import OutboxDelivery
from deferred_signals.outbox.tables import has_table

pytestmark = pytest.mark.django_db

NOWHERE: Any = SimpleNamespace(_meta=SimpleNamespace(db_table="deferred_signals_nowhere"))


def test_a_database_with_the_table_has_it_and_one_without_has_not():
    assert has_table("default")
    assert not has_table("default", NOWHERE)


@pytest.mark.skipif(connection.vendor == "mysql", reason="it has no to_regclass, and cannot be given one")
def test_on_postgresql_a_table_of_another_schema_on_the_search_path_is_there_too(monkeypatch):
    table = OutboxDelivery._meta.db_table
    monkeypatch.setattr(connection.introspection, "table_names", lambda cursor: ["a_table_of_the_tenants"])
    if connection.vendor == "sqlite":
        monkeypatch.setattr(connection, "vendor", "postgresql")
        connection.ensure_connection()
        connection.connection.create_function("to_regclass", 1, lambda name: name if name == f'"{table}"' else None)
    assert has_table("default")
    assert not has_table("default", NOWHERE)
