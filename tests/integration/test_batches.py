"""Batches between real senders and workers, through real brokers."""

from collections import Counter
from typing import Any

import pytest
from pytest_celery import CeleryTestSetup

from .conftest import Hire
from .shop import Shop, with_outbox

CROWDS = "tests.integration.project.crowds"
SETTINGS = {"DJANGO_SETTINGS_MODULE": f"{CROWDS}.settings"}


@pytest.fixture
def shop_env() -> dict[str, str]:
    return SETTINGS


def send(shop: Shop, count: int, **arguments: Any) -> list[str]:
    sent: list[str] = shop.call("elsewhere", path=f"{CROWDS}.scenarios.send", count=count, **arguments)
    return sent


def runs_by_number(shop: Shop, what: str = "welcome") -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for note in shop.notes(what):
        found.setdefault(note["number"], []).append(note)
    return found


def all_succeed(shop: Shop, ids: list[str]) -> None:
    shop.wait_until(
        lambda: {note["delivery"] for note in shop.notes("succeeded")} >= set(ids), f"the success of {len(ids)}"
    )


@pytest.mark.parametrize("options", [["--pool=prefork", "--concurrency=2"], ["--pool=threads", "--concurrency=2"]])
def test_a_crowd_is_welcomed_in_a_few_messages_and_who_fails_is_retried_alone(
    shop: Shop, hire: Hire, options: list[str]
):
    ids = send(shop, 100, guests=True, failing=42)
    worker = hire(*options)
    all_succeed(shop, ids)
    runs = runs_by_number(shop)
    assert runs.keys() == set(range(100))
    assert [run["attempt"] for run in runs[42]] == [1, 2]
    assert {len(found) for number, found in runs.items() if number != 42} == {1}
    assert all(run["name"] == f"guest {number}" for number, found in runs.items() for run in found)
    assert [runs[number][0]["delivery"] for number in range(100)] == ids
    assert runs[42][1]["delivery"] == ids[42]
    assert shop.call("elsewhere", path=f"{CROWDS}.scenarios.welcomed") == 100
    received = worker.logs().decode().count("deferred_signals.deliver[") or worker.logs().decode().count(" received")
    assert received < 100
    assert not shop.notes("dead")


@pytest.mark.parametrize("stack", ["redis-sqlite", "rabbitmq-sqlite"], indirect=True)
def test_who_ends_the_process_meets_nobody_twice_and_all_others_succeed(shop: Shop, hire: Hire):
    ids = send(shop, 20, poison=7)
    hire("--pool=prefork", "--concurrency=1")
    all_succeed(shop, [*ids[:7], *ids[8:]])
    shop.wait_for("dead", delivery=ids[7])
    runs = runs_by_number(shop)
    assert [run["crashes"] for run in runs[7]] == [0, 1, 2]
    assert len({run["pid"] for run in runs[7]}) == 3
    for number, found in runs.items():
        if number != 7:
            # Those before it had finished, and run once more; those behind it run once. None is in its company again.
            assert [run["crashes"] for run in found] == ([0, 1] if number < 7 else [1])
    beside = Counter(run["pid"] for number, found in runs.items() for run in found if number != 7)
    first, *later = (run["pid"] for run in runs[7])
    assert beside[first] == 7
    assert [note["delivery"] for note in shop.notes("dead")] == [ids[7]]
    assert later


@pytest.mark.parametrize("stack", ["redis-sqlite", "rabbitmq-sqlite"], indirect=True)
class TestWithTheOutbox:
    @pytest.fixture
    def shop_env(self) -> dict[str, str]:
        return {**with_outbox(RING_AGAIN=1), **SETTINGS}

    def test_a_batch_that_no_broker_takes_is_spilled_and_delivered_later(
        self, shop: Shop, hire: Hire, celery_setup: CeleryTestSetup
    ):
        celery_setup.worker.kill()
        send(shop, 1)  # over a connection that is then broken
        celery_setup.broker.kill()
        ids = send(shop, 20)
        celery_setup.broker.restart()
        hire("--concurrency=1")
        all_succeed(shop, ids)
        assert {note["delivery"] for note in shop.notes("welcome")} >= set(ids)
        assert not shop.notes("unpublished")
        assert not shop.notes("dead")

    def test_durable_ones_are_rung_for_together_and_who_fails_is_retried_alone(self, shop: Shop, hire: Hire):
        ids = send(shop, 150, signal="kept_crowd_came", failing=42)
        hire("--concurrency=2")
        all_succeed(shop, ids)
        runs = runs_by_number(shop, "welcome_for_sure")
        assert [run["attempt"] for run in runs[42]] == [1, 2]
        assert {len(found) for number, found in runs.items() if number != 42} == {1}
        shop.wait_until(lambda: shop.books("states") == {"succeeded": 150}, "the ends of all rows")
