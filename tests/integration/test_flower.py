"""Flower itself, beside a real worker with ``-E``: what its API, and so its pages, show of deliveries."""

import json
import sys
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from tests.servers import Process, free_port

from .conftest import Hire, Stack
from .shop import Shop, with_outbox

CROWDS = "tests.integration.project.crowds"
SECRET = "hunter2"


See = Callable[..., list[dict[str, Any]]]


class FlowerProcess(Process):
    ready_line: ClassVar[str] = "Visit me at"

    def api(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/{path}", timeout=20) as answer:
            return json.load(answer)

    def tasks(self, name: str = "") -> list[dict[str, Any]]:
        """What it shows, or what of it has this name."""
        return [task for task in self.api("tasks").values() if name in ("", task["name"])]


@pytest.fixture
def stack() -> Stack:
    """One, for what differs here is not the broker."""
    return Stack("redis", "sqlite")


@pytest.fixture
def shop_env() -> dict[str, str]:
    return {**with_outbox(), "DJANGO_SETTINGS_MODULE": f"{CROWDS}.settings"}


@pytest.fixture
def flower(shop: Shop) -> Iterator[FlowerProcess]:
    port = free_port()
    argv = [sys.executable, "-m", "celery", "-A", f"{shop.project}.celery", "flower", "--address=127.0.0.1"]
    process = FlowerProcess(
        [*argv, f"--port={port}"],
        home=shop.home,
        env=shop.env | {"FLOWER_UNAUTHENTICATED_API": "true"},
        port=port,
    )
    yield process.wait_ready()
    process.remove()


@pytest.fixture
def see(shop: Shop, flower: FlowerProcess, hire: Hire) -> See:
    """What Flower shows under a name, once there are so many and all have ended."""
    hire("-E", "--concurrency=1")
    # What is sent before Flower listens it never hears of.
    shop.wait_until(lambda: any(flower.api("workers?status=1").values()), "the worker's heartbeat in Flower")

    def see(receiver: str, count: int = 1) -> list[dict[str, Any]]:
        name = f"tests.integration.project.{receiver}"

        def ended() -> bool:
            states = [task["state"] for task in flower.tasks(name)]
            return len(states) == count and set(states) <= {"SUCCESS", "FAILURE"}

        shop.wait_until(ended, f"{count} times {name} in {flower.tasks()}")
        return flower.tasks(name)

    return see


def test_deliveries_are_tasks_by_their_receivers_names_with_their_outcomes_and_no_values(
    shop: Shop, flower: FlowerProcess, see: See
):
    shop.call("sign_up_outside_a_transaction", name=SECRET)
    for signal in ("payment_due", "webhook_due", "newsletter_due"):
        shop.call("send", signal=signal)
    told = {
        name: see(f"shop.receivers.{name}")[0]
        for name in ("send_welcome_email", "charge_card", "call_webhook", "send_newsletter")
    }
    assert {name: (task["state"], task["retries"], task["result"]) for name, task in told.items()} == {
        "send_welcome_email": ("SUCCESS", 0, "None"),
        "charge_card": ("SUCCESS", 1, "None"),
        "call_webhook": ("FAILURE", 1, None),
        "send_newsletter": ("SUCCESS", 0, "'discarded'"),
    }
    assert {task["uuid"] for task in told.values()} == {note["delivery"] for note in shop.notes("published")}
    assert {(task["args"], task["kwargs"]) for task in flower.tasks()} == {("(<signed payload>)", "{}")}
    assert SECRET not in str(flower.api("tasks"))


def test_batches_and_doorbells_are_tasks_with_ids_of_their_own(shop: Shop, see: See):
    crowd = shop.call("elsewhere", path=f"{CROWDS}.scenarios.send", count=12)
    [batch] = see("crowds.receivers.welcome (12 deliveries)")
    assert batch["uuid"] not in crowd

    [kept] = shop.books("send", signal="refund_due")  # fails once; it is the row that is retried
    rung = see("bookkeeping.receivers.refund", 2)
    assert [(task["state"], task["retries"]) for task in rung] == [("SUCCESS", 0)] * 2
    assert kept not in {task["uuid"] for task in rung}
    assert [row["attempt"] for row in shop.books("rows")] == [2]
