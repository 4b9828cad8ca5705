"""Leases with real workers: who is killed, stalled, rung for twice or shut down leaves one finished run behind."""

from __future__ import annotations

import os
import signal
import time
import uuid
from typing import Any

import pytest
from celery import Celery
from django.core.signing import Signer

from deferred_signals.bell import Bell
from deferred_signals.signature import SALT

from .conftest import Hire
from .shop import Shop, with_outbox

LEASE = 4
BROKERS = pytest.mark.parametrize("stack", ["redis-postgresql", "rabbitmq-postgresql"], indirect=True)
REDIS = pytest.mark.parametrize("stack", ["redis-postgresql"], indirect=True)
#: A durable receiver that takes its time, and an atomic one: the signal, and the name in the journal.
KINDS = pytest.mark.parametrize(("sent", "name"), [("audit_due", "audit"), ("atomic_audit_due", "book_audit")])


@pytest.fixture
def settings() -> dict[str, Any]:
    """DEFERRED_SIGNALS of the shop."""
    return {"LEASE": LEASE, "RING_AGAIN": 1}


@pytest.fixture
def shop_env(settings: dict[str, Any]) -> dict[str, str]:
    return with_outbox(**settings)


def running(shop: Shop, name: str, count: int = 1) -> int:
    """Wait until so many runs have begun; the process of the last."""
    pid: int = shop.wait_for(f"{name} started", count)[-1]["pid"]
    return pid


def finished(shop: Shop) -> dict[str, Any]:
    """The one row, as soon as it has succeeded."""
    shop.wait_until(lambda: shop.books("states") == {"succeeded": 1}, "a delivery that has succeeded")
    row: dict[str, Any] = shop.books("rows")[0]
    return row


@BROKERS
@KINDS
class TestAProcessIsKilledInTheReceiver:
    def test_of_the_pool(self, shop: Shop, hire: Hire, sent: str, name: str):
        hire("--concurrency=1")
        shop.books("send", signal=sent, seconds=60)
        os.kill(running(shop, name), signal.SIGKILL)
        running(shop, name, 2)
        shop.open_gate()
        row = finished(shop)
        assert (row["crashes"], row["attempt"]) == (1, 1)
        assert [note["crashes"] for note in shop.notes(f"{name} started")] == [0, 1]
        assert shop.books("bookings") == ([1] if name == "book_audit" else [])

    def test_and_the_whole_worker_with_it(self, shop: Shop, hire: Hire, sent: str, name: str):
        worker = hire("--concurrency=1")
        shop.books("send", signal=sent, seconds=60)
        running(shop, name)
        worker.kill()
        hire("--concurrency=1")
        running(shop, name, 2)
        shop.open_gate()
        assert finished(shop)["crashes"] == 1
        assert shop.books("bookings") == ([1] if name == "book_audit" else [])


@BROKERS
@KINDS
def test_a_process_that_stalls_for_longer_than_its_lease_and_wakes_counts_for_nothing(
    shop: Shop, hire: Hire, sent: str, name: str
):
    hire("--concurrency=1")
    shop.books("send", signal=sent, seconds=60)
    stalled = running(shop, name)
    os.kill(stalled, signal.SIGSTOP)
    hire("--concurrency=1")
    other = running(shop, name, 2)
    assert other != stalled
    os.kill(stalled, signal.SIGCONT)
    shop.open_gate()
    assert finished(shop)["crashes"] == 1
    shop.wait_for(f"{name} finished", 2)  # both come to their end
    shop.wait_for("discarded", receiver=name)
    assert shop.books("states") == {"succeeded": 1}
    assert shop.books("bookings") == ([1] if name == "book_audit" else []), "the effect that counts is there once"


@BROKERS
def test_a_doorbell_that_comes_five_times_to_two_workers_has_the_receiver_run_once(shop: Shop, hire: Hire):
    workers = [hire("--concurrency=2"), hire("--concurrency=2")]
    ids = shop.books("send", signal="audit_due", seconds=60)
    running(shop, "audit")
    payload = Signer(key="integration", salt=SALT).sign(Bell("default", tuple(map(uuid.UUID, ids))).to_text())
    # Not the current app: the tests that run in this process have theirs.
    with Celery(broker=shop.env["SHOP_BROKER_URL"], set_as_current=False) as celery:
        for _ in range(5):
            celery.send_task("deferred_signals.deliver", args=[payload], queue=shop.queue)
    shop.wait_until(
        lambda: sum(worker.logs().count(b"deferred_signals.deliver[") for worker in workers) >= 2 * 5,
        "all to be answered",
    )
    shop.open_gate()
    finished(shop)
    assert len(shop.notes("audit started")) == len(shop.notes("audit finished")) == 1


@REDIS
@pytest.mark.parametrize("visibility_timeout", [1], ids=["1 s"])
@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "solo"])
def test_a_receiver_that_takes_longer_than_its_lease_and_the_visibility_timeout_runs_once(
    shop: Shop, hire: Hire, pool: str
):
    """Redis gives the doorbell to the other worker; the heartbeat renews the lease."""
    workers = [hire(f"--pool={pool}", "--concurrency=2")]
    shop.books("send", signal="audit_due", seconds=60)
    running(shop, "audit")
    began = time.monotonic()
    workers.append(hire("--concurrency=1"))
    shop.wait_until(lambda: sum(one.logs().count(b"] received") for one in workers) >= 2, "Redis to give it out again")
    shop.wait_until(lambda: time.monotonic() > began + 2 * LEASE, "two leases to pass")
    shop.open_gate()
    assert finished(shop)["crashes"] == 0
    assert len(shop.notes("audit started")) == 1


@BROKERS
@KINDS
@pytest.mark.parametrize("settings", [{"LEASE": 300, "RING_AGAIN": 1}], ids=["a long lease"])
class TestAWorkerIsShutDown:
    def test_warm_and_finishes_what_runs(self, shop: Shop, hire: Hire, sent: str, name: str):
        worker = hire("--concurrency=1")
        shop.books("send", signal=sent, seconds=60)
        running(shop, name)
        worker.kill("SIGTERM")
        shop.wait_until(lambda: b"Warm shutdown" in worker.logs(), "the beginning of the shutdown")
        shop.open_gate()
        shop.wait_until(lambda: worker.status == "exited", "the worker's end")
        assert finished(shop)["crashes"] == 0
        assert len(shop.notes(f"{name} started")) == 1

    def test_cold_and_gives_the_row_back_with_no_attempt_and_no_crash_used_up(
        self, shop: Shop, hire: Hire, sent: str, name: str
    ):
        worker = hire("--concurrency=1")
        shop.books("send", signal=sent, seconds=60)
        running(shop, name)
        worker.kill("SIGQUIT")
        shop.wait_until(lambda: worker.status == "exited", "the worker's end")
        assert shop.books("states") == {"pending": 1}
        hire("--concurrency=1")
        running(shop, name, 2)  # at once: its lease would have been five minutes
        shop.open_gate()
        row = finished(shop)
        assert (row["attempt"], row["crashes"]) == (1, 0)
        assert shop.books("bookings") == ([1] if name == "book_audit" else [])


@REDIS
class TestATimeLimit:
    @pytest.mark.parametrize("settings", [{"LEASE": 2, "RING_AGAIN": 1, "CRASH_LIMIT": 2}], ids=["two crashes"])
    def test_that_ends_the_process_is_a_crash_and_at_the_limit_of_these_it_is_dead_and_kept(
        self, shop: Shop, hire: Hire
    ):
        hire("--concurrency=1")
        shop.books("send", signal="limit_due")
        shop.wait_until(lambda: shop.books("states") == {"dead": 1}, "its death")
        assert [note["crashes"] for note in shop.notes("run_into_the_limit")] == [0, 1]
        (error,) = shop.books("errors")
        assert "lost 2 times in a row" in error

    def test_that_raises_is_for_one_delivery_though_several_are_sent_together(self, shop: Shop, hire: Hire):
        hire("--concurrency=1")
        shop.books("send", signal="soft_limit_due", count=3)
        shop.wait_until(lambda: shop.books("states") == {"dead": 1, "succeeded": 2}, "the end of all")
        assert [note["number"] for note in shop.notes("run_into_the_soft_limit")] == [2, 3]
        (error,) = shop.books("errors")
        assert "SoftTimeLimitExceeded" in error
