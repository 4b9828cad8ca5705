"""What the tests of rows that are read ahead have in common."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from deferred_signals import Signal, backends, prefetch
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
