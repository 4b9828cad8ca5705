"""Durable sends by processes that are killed at named points, that fork, and that have threads."""

import signal
from typing import Any

import pytest
from pytest_celery import CeleryTestSetup
from redis import Redis

from .conftest import Hire
from .shop import Shop, with_outbox

SENDERS = "tests.integration.project.bookkeeping.senders"

pytestmark = pytest.mark.parametrize("stack", ["redis-postgresql"], indirect=True)


@pytest.fixture
def shop_env() -> dict[str, str]:
    # No sender's work is done by the relay before the test has looked at what there is.
    return with_outbox(RING_AGAIN=1, LEASE=20)


def senders(shop: Shop, scenario: str, **arguments: Any) -> Any:
    return shop.call("elsewhere", path=f"{SENDERS}.{scenario}", **arguments)


def kill_a_sender(shop: Shop, at: str, number: int, *, in_bulk: bool) -> None:
    with pytest.raises(AssertionError, match="the sender ended in elsewhere"):
        senders(shop, "sell_and_die", at=at, number=number, in_bulk=in_bulk)
    assert shop._sender
    shop._sender.communicate()
    assert shop._sender.returncode == -signal.SIGKILL
    shop._sender = None  # the next call starts another


def receipts(shop: Shop) -> list[int]:
    return sorted(note["number"] for note in shop.notes("print_receipt"))


in_bulk_or_not = pytest.mark.parametrize("in_bulk", [False, True], ids=["one by one", "in bulk"])


@in_bulk_or_not
@pytest.mark.parametrize("at", ["sender.before_row", "sender.after_row"])
def test_a_sender_that_is_killed_before_its_commit_leaves_neither_its_data_nor_a_delivery(
    shop: Shop, hire: Hire, at: str, in_bulk: bool
):
    kill_a_sender(shop, at, 1, in_bulk=in_bulk)
    # PostgreSQL finds out by itself that the client is gone.
    assert senders(shop, "customers_and_rows") == [0, 0]
    senders(shop, "sell", number=2)
    hire("--concurrency=1")
    shop.wait_until(lambda: shop.books("states") == {"succeeded": 1}, "the other one's delivery")
    assert receipts(shop) == [2]


@in_bulk_or_not
def test_a_sender_that_is_killed_between_commit_and_doorbell_leaves_a_delivery_that_runs(
    shop: Shop, hire: Hire, celery_setup: CeleryTestSetup, in_bulk: bool
):
    celery_setup.worker.kill()
    kill_a_sender(shop, "sender.after_commit", 1, in_bulk=in_bulk)
    assert senders(shop, "customers_and_rows") == [1, 1]
    with Redis(port=celery_setup.broker.container.port) as redis:
        assert redis.llen(shop.queue) == 0, "nobody has rung"
    hire("--concurrency=1")
    shop.wait_until(lambda: shop.books("states") == {"succeeded": 1}, "the delivery of the killed sender")
    assert receipts(shop) == [1]


@in_bulk_or_not
def test_a_sender_that_is_killed_after_its_doorbell_has_done_all_of_its_work(shop: Shop, hire: Hire, in_bulk: bool):
    kill_a_sender(shop, "sender.after_doorbell", 1, in_bulk=in_bulk)
    assert senders(shop, "customers_and_rows") == [1, 1]
    hire("--concurrency=1")
    shop.wait_until(lambda: shop.books("states") == {"succeeded": 1}, "the delivery of the killed sender")
    assert receipts(shop) == [1]


def test_a_sender_and_its_forks_all_leave_deliveries_that_run(shop: Shop, hire: Hire):
    hire("--concurrency=1")
    senders(shop, "sell_in_forks", numbers=[1, 2, 3, 4])
    shop.wait_until(lambda: shop.books("states") == {"succeeded": 4}, "the deliveries of all processes")
    assert receipts(shop) == [1, 2, 3, 4]


def test_threads_have_transactions_of_their_own(shop: Shop, hire: Hire):
    hire("--concurrency=1")
    senders(shop, "sell_in_threads", numbers=[1, 2, 3, 4])
    shop.wait_until(lambda: shop.books("states") == {"succeeded": 2}, "the deliveries of those that committed")
    assert receipts(shop) == [2, 4]


def test_a_broker_that_is_away_at_the_commit_raises_nothing_and_all_is_delivered_when_it_is_back(
    shop: Shop, hire: Hire, celery_setup: CeleryTestSetup
):
    celery_setup.worker.kill()
    hire("--concurrency=1")
    celery_setup.broker.kill()
    for number in (1, 2, 3):
        senders(shop, "sell", number=number)
    assert senders(shop, "customers_and_rows") == [3, 3]
    assert not shop.notes("unpublished")
    assert "wait in the outbox for the relay" in shop.log()
    assert "Traceback" not in shop.log()
    celery_setup.broker.restart()
    shop.wait_until(lambda: receipts(shop) == [1, 2, 3], "what was sent without a broker")
    # The other receivers of these customers are not durable, and were spilled.
    shop.wait_for("send_welcome_email", 3)
    shop.wait_until(lambda: set(shop.books("states")) == {"succeeded"}, "the ends of all rows")
