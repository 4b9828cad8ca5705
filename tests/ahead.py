"""What the tests of rows that are read ahead have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import translation

from deferred_signals import Signal, backends, context, prefetch, register_carrier, rows
from deferred_signals.backends.memory import MemoryBackend
from deferred_signals.batch_run import Run

from .receivers import curious
from .shop.models import Customer

bell: Any = Signal()


@pytest.fixture
def reads_ahead(settings: Any, link: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of ``bell`` are not divided."""
    settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "PARALLELISM": 1}
    link(bell, curious, batch_size=1000)
    # On a busy machine no row gets too old between two receivers.
    monkeypatch.setattr(prefetch, "FRESH", 3600.0)


def send(*values: Any, name: str = "instance") -> str:
    """Send a delivery for each of these values, in one transaction; their payload."""
    memory = backends.current()
    assert isinstance(memory, MemoryBackend)
    with transaction.atomic():
        for value in values:
            bell.send(sender=None, **{name: value})
    ((_, payload),) = memory.payloads
    memory.payloads.clear()
    return payload


def customers(count: int) -> list[Customer]:
    return Customer.objects.bulk_create(Customer(name=str(number)) for number in range(count))


def selects(queries: CaptureQueriesContext) -> list[str]:
    return [query["sql"] for query in queries.captured_queries if query["sql"].startswith("SELECT")]


def got(calls: Any, name: str = "instance") -> list[Any]:
    """What the receivers got, of one argument."""
    return [kwargs[name] for _, _, kwargs in calls]


def succeeded(ended: list[Run]) -> bool:
    return {outcome.state for _, outcome in ended} == {"succeeded"}


def elsewhere(pk: int) -> None:
    """Change a row as another process does: nobody here sees the statement."""
    with connection.cursor() as cursor:
        cursor.cursor.execute(f"UPDATE shop_customer SET name = 'changed' WHERE id = {pk}")


_tenant = ContextVar("tenant", default="")


@contextmanager
def in_schema(name: str) -> Iterator[None]:
    """In the block statements find the tables of a tenant, as by the search path of PostgreSQL; "" has its own."""

    def found(execute: Any, sql: str, *args: Any) -> Any:
        return execute(sql.replace("shop_customer", f"{name}_customer") if name else sql, *args)

    token = _tenant.set(name)
    try:
        with connection.execute_wrapper(found):
            yield
    finally:
        _tenant.reset(token)


@pytest.fixture
def tenants() -> Iterator[list[Customer]]:
    """Three rows, of which acme and globex have others under the same numbers; where they are travels."""
    found = customers(3)
    try:
        with connection.cursor() as cursor:
            for name in ("acme", "globex"):
                cursor.execute(f"CREATE TABLE {name}_customer AS SELECT id, email, name FROM shop_customer")
                cursor.execute(f"UPDATE {name}_customer SET name = '{name}'")
        register_carrier("tenant", capture=_tenant.get, restore=in_schema)
        yield found
    finally:
        context._carriers.pop("tenant", None)
        with connection.cursor() as cursor:
            for name in ("acme", "globex"):
                cursor.execute(f"DROP TABLE IF EXISTS {name}_customer")


@pytest.fixture
def translated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A field of customers that is made as the language says."""

    def name(value: str, *how: Any) -> str:
        return f"{value} {translation.get_language()}"

    monkeypatch.setattr(Customer._meta.get_field("name"), "from_db_value", name, raising=False)
    rows._statement.cache_clear()
    yield
    rows._statement.cache_clear()
