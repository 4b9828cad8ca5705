"""What the outbox keeps of deliveries in the default mode: those that nobody could publish, and those that died."""

import json
from typing import Any

import pytest
from pytest_celery import CeleryTestBroker

from tests.servers import Process

from .conftest import Hire
from .shop import Shop, with_outbox
from .test_relay import manage


@pytest.fixture
def settings() -> dict[str, Any]:
    return {"LEASE": 300, "RING_AGAIN": 1, "PUBLISH_TIMEOUT": 1}


@pytest.fixture
def shop_env(settings: dict[str, Any]) -> dict[str, str]:
    return with_outbox(**settings)


@pytest.fixture
def broker(celery_broker: CeleryTestBroker) -> Process:
    server: Process = celery_broker.container._container
    return server


def kept(shop: Shop, *columns: str, **filters: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = shop.books("kept", columns=columns, **filters)
    return found


@pytest.mark.parametrize("stack", ["redis-sqlite", "rabbitmq-postgresql"], indirect=True)
def test_what_could_not_be_published_is_kept_and_delivered_when_the_broker_is_back(
    shop: Shop, hire: Hire, broker: Process
):
    broker.stop()
    shop.call("sign_up", name="Ada", count=3)
    assert [row["origin"] for row in kept(shop, "origin", "state")] == ["spilled"] * 3
    assert "Could not be published, and are kept until the relay can ring for them: deliveries to " in shop.log()
    assert shop.notes("unpublished") == []
    broker.start()
    broker.wait_ready()
    hire("--concurrency=1")
    shop.wait_for("send_welcome_email", 3)
    shop.wait_until(lambda: shop.books("states") == {"succeeded": 3}, "three that have succeeded")
    assert len({note["delivery"] for note in shop.notes("send_welcome_email")}) == 3
    assert len(shop.notes("send_welcome_email")) == 3


@pytest.mark.parametrize("stack", ["redis-postgresql"], indirect=True)
def test_what_hung_in_a_frozen_broker_is_delivered_at_least_once_and_at_most_twice(
    shop: Shop, hire: Hire, broker: Process
):
    hire("--concurrency=1")
    shop.call("sign_up", name="Ada")
    shop.wait_for("send_welcome_email")
    broker.kill("SIGSTOP")
    try:
        shop.call("sign_up", name="Grace", count=3)
        shop.wait_until(lambda: len(kept(shop, "origin", origin="spilled")) == 3, "three that are kept")
    finally:
        broker.kill("SIGCONT")
    shop.wait_until(lambda: shop.books("states") == {"succeeded": 3}, "three that have succeeded")
    runs = [note["delivery"] for note in shop.notes("send_welcome_email", name="Grace")]
    assert len(set(runs)) == 3
    assert all(runs.count(delivery) <= 2 for delivery in runs)


def test_a_dead_delivery_is_kept_and_runs_again_when_it_is_redelivered(shop: Shop, hire: Hire):
    hire("--concurrency=1")
    shop.call("send", signal="webhook_due")
    [end] = shop.wait_for("dead", receiver="call_webhook")
    shop.wait_until(lambda: shop.books("states") == {"dead": 1}, "a dead one")
    [row] = kept(shop, "delivery_id", "origin", "attempt", "error_type", "error", "traceback")
    assert (row["delivery_id"], row["origin"], row["attempt"]) == (end["delivery"], "buried", 2)
    assert (row["error_type"], "nobody there" in row["error"]) == ("ConnectionError", True)
    assert "in call_webhook" in row["traceback"]
    done = manage(shop, "redeliver", "--receiver", "tests.integration.project.shop.receivers.call_webhook", "--json")
    assert json.loads(done.stdout) == {"redelivered": 1, "left": []}, done.stderr
    shop.wait_for("call_webhook", 4)  # it has its retry again
    shop.wait_until(lambda: shop.books("states") == {"dead": 1}, "it is dead again")
    assert [note["delivery"] for note in shop.notes("dead")] == [end["delivery"]] * 2


@pytest.mark.parametrize("stack", ["redis-sqlite"], indirect=True)
def test_what_a_worker_rejected_for_its_signature_is_verified_again_when_the_key_is_back(
    shop: Shop, hire: Hire, settings: dict[str, Any]
):
    astray = hire("--concurrency=1", **with_outbox(**settings, SIGNING_KEYS=["a key that nobody else has"]))
    shop.call("sign_up", name="Ada", count=2)
    shop.wait_until(lambda: shop.books("states") == {"dead": 2}, "two that are rejected")
    assert {row["receiver"] for row in kept(shop, "receiver")} == {""}
    astray.remove()
    hire("--concurrency=1")
    refused = manage(shop, "redeliver", "--unopened", **with_outbox(**settings, SIGNING_KEYS=["another one"]))
    assert (refused.returncode, refused.stdout) == (1, "Redelivered 0 deliveries.\n")
    assert refused.stderr.count("signature is wrong") == 2
    done = manage(shop, "redeliver", "--unopened")
    assert (done.returncode, done.stdout) == (0, "Redelivered 2 deliveries.\n"), done.stderr
    shop.wait_for("send_welcome_email", 2)
    shop.wait_until(lambda: shop.books("states") == {"succeeded": 2}, "two that have succeeded")


class TestDeathOfItsWorkers:
    PERILS = "tests.integration.project.perils"
    LIMIT = 2

    @pytest.fixture
    def shop_env(self, settings: dict[str, Any]) -> dict[str, str]:
        return {
            **with_outbox(**settings),
            "DJANGO_SETTINGS_MODULE": f"{self.PERILS}.settings",
            "SHOP_CRASH_LIMIT": str(self.LIMIT),
        }

    @pytest.mark.parametrize("stack", ["redis-sqlite"], indirect=True)
    @pytest.mark.parametrize(
        ("named", "asked"),
        [("peril_due", {"how": "be_killed"}), ("slowness_due", {})],
        ids=["killed", "time limit"],
    )
    def test_a_delivery_that_ends_every_process_is_kept_with_its_crashes(
        self, shop: Shop, hire: Hire, named: str, asked: dict[str, Any]
    ):
        hire("--pool=prefork", "--concurrency=1")
        sent = shop.call("elsewhere", path=f"{self.PERILS}.scenarios.send", signal=named, **asked)
        [delivery] = sent.values()
        shop.wait_for("dead", delivery=delivery)
        shop.wait_until(lambda: len(kept(shop, "state", state="dead")) == 1, "a dead one that is kept")
        [row] = kept(shop, "delivery_id", "origin", "crashes", "error_type")
        assert (row["delivery_id"], row["origin"], row["crashes"]) == (delivery, "buried", self.LIMIT)
        assert row["error_type"].endswith(".WorkerLost")
