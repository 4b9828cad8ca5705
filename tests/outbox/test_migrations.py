"""The tables: made, taken away and made again, on every database, whatever the project's settings for keys."""

from __future__ import annotations

import os
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, transaction

from deferred_signals import Signal
from deferred_signals.outbox.models import Attempt, Lock, OutboxDelivery
from tests import receivers

knock = Signal()

ROOT = Path(__file__).resolve().parents[2]
TABLES = {"deferred_signals_attempt", "deferred_signals_delivery", "deferred_signals_lock"}


def tables() -> set[str]:
    return {name for name in connection.introspection.table_names() if name.startswith("deferred_signals")}


def indexes() -> set[tuple[str, ...]]:
    """The columns of each index of the deliveries' table."""
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, OutboxDelivery._meta.db_table)
    return {tuple(one["columns"]) for one in found.values() if one["index"] or one["unique"] or one["primary_key"]}


@pytest.mark.parametrize("key", ["django.db.models.AutoField", "django.db.models.BigAutoField"])
def test_the_models_are_as_the_migrations_say_whatever_keys_the_project_has(key, tmp_path):
    (tmp_path / "keyed_settings.py").write_text(f"from tests.settings import *\nDEFAULT_AUTO_FIELD = {key!r}\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "django", "makemigrations", "--check", "--dry-run", "deferred_signals_outbox"],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "keyed_settings", "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No changes detected" in done.stdout


@pytest.mark.django_db
def test_the_tables_bear_our_name():
    assert tables() == TABLES
    assert {model._meta.db_table for model in (OutboxDelivery, Attempt, Lock)} == TABLES


@pytest.mark.django_db
def test_the_indexes_are_those_that_claims_the_relay_keys_pruning_and_people_need():
    assert indexes() == {
        ("number",),
        ("delivery_id",),
        ("ring_at",),
        ("finished",),
        ("order_key", "state", "number"),
        ("unique_key", "state", "number"),
        ("receiver",),
    }


@pytest.mark.django_db(transaction=True)
def test_they_can_be_taken_away_and_made_again():
    def migrate(*arguments: Any) -> None:
        call_command("migrate", "deferred_signals_outbox", *arguments, verbosity=0, stdout=StringIO())

    try:
        migrate("zero")
        assert tables() == set()
    finally:
        migrate()
    assert tables() == TABLES


@pytest.mark.django_db
def test_the_models_have_nothing_to_warn_of_on_this_database():
    out = StringIO()
    call_command("check", "deferred_signals_outbox", databases=["default"], stdout=out, stderr=out)
    assert "no issues" in out.getvalue()


@pytest.mark.skipif(connection.vendor != "postgresql", reason="schemas are of PostgreSQL: make test-postgresql")
@pytest.mark.django_db(transaction=True)
def test_a_table_in_the_public_schema_is_in_the_transaction_of_whoever_has_a_schema_of_his_own_before_it(link, memory):
    """As django-tenants sets it, with the outbox among the SHARED_APPS."""
    link(knock, receivers.first, durable=True)
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA tenant")
        try:
            cursor.execute("SET search_path = tenant, public")
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                knock.send(None)
                assert OutboxDelivery.objects.count() == 1
                1 / 0  # noqa: B018
            with transaction.atomic():
                knock.send(None)
            cursor.execute("SET search_path = public")
            assert [row.state for row in OutboxDelivery.objects.all()] == ["pending"]
        finally:
            cursor.execute("SET search_path = public")
            cursor.execute("DROP SCHEMA tenant")
    assert [end.state for _, end in memory.deliver()] == ["succeeded"]


def test_rows_say_what_they_are():
    row = OutboxDelivery(delivery_id="5b0e1c6a-0b4e-4e0f-9b7e-0f6a1f6d7c11", receiver="shop.receivers.send")
    assert str(row) == "5b0e1c6a-0b4e-4e0f-9b7e-0f6a1f6d7c11 to shop.receivers.send (pending)"
    assert str(Attempt(row_id=7, attempt=2, outcome="retry")) == "attempt 2 of #7 (retry)"
    assert str(Lock(name="relay")) == "relay"
