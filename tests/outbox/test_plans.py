"""How PostgreSQL finds the few rows that are about to be run among the many that have been."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from deferred_signals.delivery import Delivery
from deferred_signals.outbox.batch import ring_batch
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.lease import Claim, claim
from deferred_signals.outbox.models import OutboxDelivery, State
from deferred_signals.outbox.pruning import prune
from deferred_signals.outbox.relay import Relay
from deferred_signals.outbox.rows import insert, row_of

pytestmark = [
    pytest.mark.skipif(
        connections["default"].vendor != "postgresql", reason="its plans are PostgreSQL's: make test-postgresql"
    ),
    pytest.mark.django_db,
]

TABLE = OutboxDelivery._meta.db_table
FINISHED = 5000


def write(count: int, keys: tuple[str | None, str | None] = (None, None)) -> list[uuid.UUID]:
    now = time.time()
    made = [Delivery(str(uuid.uuid4()), "nobody", "", now, own="text", keys=keys) for _ in range(count)]
    connection = connections["default"]
    insert(connection, [row_of(connection, delivery) for delivery in made])
    return [uuid.UUID(delivery.id) for delivery in made]


@pytest.fixture(autouse=True)
def _finished_rows() -> None:
    write(FINISHED)
    OutboxDelivery.objects.update(state=State.SUCCEEDED, due=None, ring_at=None, finished=DatabaseNow(-60))
    with connections["default"].cursor() as cursor:
        cursor.execute(f"ANALYZE {TABLE}")


def plans(work: Callable[[], object]) -> list[str]:
    """The plans of the statements about deliveries that the work makes."""
    connection = connections["default"]
    with CaptureQueriesContext(connection) as queries:
        work()
    asked = [query["sql"] for query in queries if query["sql"].startswith(("SELECT", "UPDATE", "DELETE"))]
    made = []
    with connection.cursor() as cursor:
        for sql in asked:
            if TABLE in sql:
                cursor.execute(f"EXPLAIN {sql}")
                made.append("\n".join(line for (line,) in cursor.fetchall()))
    return made


def assert_indexed(found: list[str], at_least: int) -> None:
    assert len(found) >= at_least
    for plan in found:
        assert "Seq Scan" not in plan, plan
        assert "Index" in plan, plan


def test_a_claim_and_its_completion_use_indexes() -> None:
    (key,) = write(1)

    def run() -> None:
        held = claim("default", key)
        assert isinstance(held, Claim)
        assert held.renew()
        assert held.complete()

    assert_indexed(plans(run), 4)


def test_a_claim_of_a_row_with_keys_uses_their_indexes() -> None:
    (key,) = write(1, ("order", "unique"))
    found = plans(lambda: claim("default", key))
    assert_indexed(found, 3)
    for name in ("deferred_signals_order", "deferred_signals_unique"):
        assert any(name in plan for plan in found)


def test_the_relay_uses_indexes() -> None:
    write(20)
    OutboxDelivery.objects.filter(state=State.PENDING).update(ring_at=DatabaseNow(-1))
    assert_indexed(plans(lambda: ring_batch("default")), 2)


def test_an_idle_relay_uses_an_index() -> None:
    found = plans(Relay("default")._seconds_to_the_next)
    assert_indexed(found, 1)


def test_pruning_uses_indexes() -> None:
    write(20)
    OutboxDelivery.objects.filter(state=State.PENDING).update(
        state=State.SUCCEEDED, due=None, ring_at=None, finished=DatabaseNow(-3600)
    )
    assert_indexed(plans(lambda: prune("default", 1800)), 2)


def test_a_statement_without_an_index_would_be_seen() -> None:
    found = plans(lambda: list(OutboxDelivery.objects.filter(worker="somebody")))
    with pytest.raises(AssertionError, match="Seq Scan"):
        assert_indexed(found, 1)
