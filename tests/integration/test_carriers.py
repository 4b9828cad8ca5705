"""Context of a project's own on the way: the tenant of django-tenants, the trace of OpenTelemetry; on real workers."""

import json
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pytest_celery import CeleryTestBroker

from tests.servers import PostgreSQL

from .conftest import Stack, covered, need
from .local_nodes import WorkerProcess
from .shop import Shop, with_outbox

PROJECT = "tests.integration.project.carriers"
ROWS = "tests.integration.project.bookkeeping.scenarios.rows"  # called where there is no tenant


@pytest.fixture
def stack() -> Stack:
    """django-tenants is for PostgreSQL."""
    return Stack("redis", "postgresql")


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    """Empty, for the tables are in schemas."""
    need(request, PostgreSQL)
    server: PostgreSQL = request.getfixturevalue("postgresql")
    covered(request, PostgreSQL.title, server.version)
    name = f"tenants_{uuid.uuid4().hex}"
    server.execute(f'CREATE DATABASE "{name}"')
    return server.url(name)


@pytest.fixture
def shop(
    request: pytest.FixtureRequest, celery_broker: CeleryTestBroker, database_url: str, tmp_path: Path
) -> Iterator[Shop]:
    """The shop with two tenants, and a worker of it; a parameter is more of their environment."""
    env = {
        "DJANGO_SETTINGS_MODULE": f"{PROJECT}.settings",
        "SHOP_BROKER_URL": celery_broker.config()["host_url"],
        "SHOP_DATABASE_URL": database_url,
        "SHOP_QUEUE": f"carriers-{uuid.uuid4().hex[:8]}",
        **getattr(request, "param", {}),
    }
    with closing(Shop(tmp_path, **env)) as shop:
        call(shop, "create_tables", tenants=["acme", "globex"])
        program = [sys.executable, "-m", "celery", "-A", "tests.integration.project.celery", "worker"]
        options = ["--pool=solo", "--loglevel=INFO", "--without-mingle", "--without-gossip"]
        worker = WorkerProcess([*program, *options], home=tmp_path, env=shop.env | {"TMPDIR": str(tmp_path)})
        try:
            worker.wait_ready()
            yield shop
        finally:
            worker.remove()


def call(shop: Shop, scenario: str, **arguments: Any) -> Any:
    return shop.call("elsewhere", path=f"{PROJECT}.scenarios.{scenario}", **arguments)


def spans(shop: Shop) -> list[dict[str, Any]]:
    lines = Path(f"{shop.journal}.spans").read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def test_receivers_read_and_write_in_the_schema_of_the_tenant_that_sent(shop: Shop):
    pks = [call(shop, "write", schema=schema, text=f"entry of {schema}") for schema in ("acme", "globex")]
    assert pks == [1, 1], "the rows of both tenants have one number"
    call(shop, "send_outside")
    [outside] = shop.wait_for("look_around")
    assert (outside["schema"], outside["really"]) == ("public", "public"), "a tenant leaked into the next delivery"
    assert [(note["schema"], note["text"]) for note in shop.notes("write_receipt")] == [
        ("acme", "entry of acme"),
        ("globex", "entry of globex"),
    ]
    assert call(shop, "receipts", schema="acme") == ["for entry of acme"]
    assert call(shop, "receipts", schema="globex") == ["for entry of globex"]
    assert not shop.notes("retry")


@pytest.mark.parametrize("shop", [with_outbox(DURABLE=True)], indirect=True, ids=["outbox"])
def test_the_first_durable_delivery_of_a_process_may_be_a_tenants_and_its_row_is_in_the_shared_schema(shop: Shop):
    for schema in ("acme", "globex"):
        call(shop, "write", schema=schema, text=f"entry of {schema}")
    assert sorted((note["schema"], note["text"]) for note in shop.wait_for("write_receipt", 2)) == [
        ("acme", "entry of acme"),
        ("globex", "entry of globex"),
    ]
    assert call(shop, "receipts", schema="acme") == ["for entry of acme"]
    assert call(shop, "receipts", schema="globex") == ["for entry of globex"]
    shop.wait_until(
        lambda: [row["state"] for row in shop.call("elsewhere", path=ROWS)] == ["succeeded"] * 2,
        "both rows to be finished",
    )


@pytest.mark.parametrize("shop", [with_outbox(DURABLE=True)], indirect=True, ids=["outbox"])
def test_a_delivery_whose_tenant_is_deleted_is_discarded_and_runs_in_no_other_schema(shop: Shop):
    call(shop, "write_and_leave", schema="globex", text="the last entry")
    shop.wait_until(
        lambda: [row["state"] for row in shop.call("elsewhere", path=ROWS)] == ["discarded"],
        "the delivery to be discarded",
    )
    assert not shop.notes("write_receipt")


@pytest.mark.parametrize("shop", [{}, with_outbox(DURABLE=True)], indirect=True, ids=["default", "outbox"])
def test_deliveries_of_a_batch_have_the_rows_of_their_own_tenants(shop: Shop):
    """Their keys are the same in both, and in the shared schema, where the worker is between them."""
    schemas = ["public", "acme", "globex"]
    call(shop, "file", schemas=schemas, count=10)
    seen = sorted((note["schema"], note["text"]) for note in shop.wait_for("file_away", 30))
    assert seen == sorted((schema, f"{number} of {schema}") for schema in schemas for number in range(10))


def test_the_workers_spans_belong_to_the_senders_trace_and_end_with_the_delivery(shop: Shop):
    sent = call(shop, "send_traced")
    call(shop, "send_outside")
    shop.wait_until(lambda: len(spans(shop)) == 5, "the spans of a request and of two deliveries")
    traced = {span["name"]: span for span in spans(shop) if span["context"]["trace_id"] == sent}
    assert set(traced) == {"request", "deliver", "look around"}
    assert traced["deliver"]["parent_id"] == traced["request"]["context"]["span_id"]
    assert traced["look around"]["parent_id"] == traced["deliver"]["context"]["span_id"]
    [other] = [span for span in spans(shop) if span["name"] == "deliver" and span["context"]["trace_id"] != sent]
    assert other["parent_id"] is None
