"""Workers that are asked to stop, in each of Celery's ways, while they run, hold and wait: nothing is lost."""

import json
import re
from collections import Counter
from typing import Any

import pytest
from celery import Celery
from kombu import Connection

from .conftest import Hire
from .local_nodes import WorkerProcess
from .shop import Shop

WORKSHOP = "tests.integration.project.workshop"
#: Takes all of a test's deliveries at once, and runs one.
GREEDY = ["--concurrency=1", "--prefetch-multiplier=20"]


@pytest.fixture
def settings() -> dict[str, Any]:
    """The Django settings that a test adds."""
    return {}


@pytest.fixture
def shop_env(settings: dict[str, Any]) -> dict[str, str]:
    return {"DJANGO_SETTINGS_MODULE": f"{WORKSHOP}.settings", "SHOP_SETTINGS": json.dumps(settings)}


def send(shop: Shop, signal: str, numbers: list[int]) -> None:
    shop.call("elsewhere", path=f"{WORKSHOP}.scenarios.send_all", signal=signal, numbers=numbers)


def runs(shop: Shop, what: str) -> dict[int, int]:
    return dict(Counter(note["number"] for note in shop.notes(what)))


def waiting(shop: Shop) -> int:
    """How many messages are in the shop's queue, and with no worker."""
    with Connection(shop.env["SHOP_BROKER_URL"]) as connection:
        try:
            channel: Any = connection.default_channel
            return int(channel.queue_declare(shop.queue, passive=True).message_count)
        except connection.channel_errors:
            if shop.env["SHOP_BROKER_URL"].startswith("redis"):
                return 0  # Redis has no empty lists
            raise


def holds_all(shop: Shop, worker: WorkerProcess) -> None:
    # A line for each: they are the worker's now, and the broker waits for what it says of them.
    shop.wait_until(lambda: len(re.findall(r"\] received", worker.logs().decode())) == 6, "the worker holds all")


def occupy(shop: Shop, worker: WorkerProcess) -> None:
    """One delivery is running (until the gate opens), three stand behind it, two wait for their countdown."""
    send(shop, "later", [1, 2])
    send(shop, "held", [1, 2, 3, 4])
    shop.wait_for("hold started")
    holds_all(shop, worker)
    assert not shop.notes("remind"), "the countdown is too short for this machine"


def wait_for_the_end(shop: Shop, worker: WorkerProcess) -> None:
    shop.wait_until(lambda: worker.status == "exited", "the worker's end")


def all_acknowledged(shop: Shop) -> None:
    """The only worker there is has nothing more in hand: a receiver's end is told before its message is done with."""
    with Celery(set_as_current=False, fixups=[], broker=shop.env["SHOP_BROKER_URL"]) as app:
        with app.connection_for_write() as connection:
            inspect = app.control.inspect(timeout=20, limit=1, connection=connection)
            asked = (inspect.active, inspect.reserved, inspect.scheduled)
            shop.wait_until(lambda: all(list((ask() or {}).values()) == [[]] for ask in asked), "idle workers")


def assert_nothing_is_lost(shop: Shop, hire: Hire, *options: str) -> None:
    """Another worker runs what is left, and then nothing is left."""
    worker = hire(*options or ["--concurrency=2"])
    shop.wait_for("succeeded", 4, receiver="hold")
    shop.wait_for("succeeded", 2, receiver="remind")
    all_acknowledged(shop)
    worker.stop()  # gives back what it holds
    assert waiting(shop) == 0, shop.story()
    assert not shop.notes("dead")
    assert runs(shop, "hold finished") == {1: 1, 2: 1, 3: 1, 4: 1}
    assert runs(shop, "remind") == {1: 1, 2: 1}


def test_a_warm_shutdown_finishes_what_runs_and_gives_the_rest_back(shop: Shop, hire: Hire):
    worker = hire(*GREEDY)
    occupy(shop, worker)
    worker.kill("SIGTERM")
    shop.wait_until(lambda: b"Warm shutdown" in worker.logs(), "the beginning of the shutdown")
    shop.open_gate()
    wait_for_the_end(shop, worker)
    assert_nothing_is_lost(shop, hire)
    assert runs(shop, "hold started") == {1: 1, 2: 1, 3: 1, 4: 1}


@pytest.mark.parametrize(
    ("signal", "env"), [("SIGQUIT", {}), ("SIGTERM", {"REMAP_SIGTERM": "SIGQUIT"})], ids=["SIGQUIT", "remapped SIGTERM"]
)
def test_a_cold_shutdown_breaks_off_what_runs_which_runs_again_and_uses_up_no_retry(
    shop: Shop, hire: Hire, signal, env
):
    worker = hire(*GREEDY, **env)
    occupy(shop, worker)
    worker.kill(signal)
    wait_for_the_end(shop, worker)
    assert not shop.notes("hold finished")
    shop.open_gate()
    assert_nothing_is_lost(shop, hire)
    assert runs(shop, "hold started") == {1: 2, 2: 1, 3: 1, 4: 1}
    assert {note["attempt"] for note in shop.notes("hold started")} == {1}


@pytest.mark.parametrize("settings", [{"CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT": 2}], ids=["2 s"])
@pytest.mark.parametrize("in_time", [True, False])
def test_a_soft_shutdown_lets_it_finish_in_time_and_otherwise_runs_it_again(shop: Shop, hire: Hire, in_time):
    worker = hire(*GREEDY)
    occupy(shop, worker)
    worker.kill("SIGQUIT")
    shop.wait_until(lambda: b"Initiating Soft Shutdown" in worker.logs(), "the beginning of the shutdown")
    if in_time:
        shop.open_gate()
        shop.wait_for("hold finished", number=1)
    wait_for_the_end(shop, worker)
    if not in_time:
        assert not shop.notes("hold finished")
        shop.open_gate()
    assert_nothing_is_lost(shop, hire)
    assert runs(shop, "hold started") == {1: 1 if in_time else 2, 2: 1, 3: 1, 4: 1}


@pytest.mark.parametrize(
    ("pool", "signal", "says"),
    [
        ("threads", "SIGTERM", b"Warm shutdown"),
        ("gevent", "SIGTERM", b"Warm shutdown"),
        ("solo", "SIGTERM", b"Warm shutdown"),
        # Celery cannot break off a thread, fails at that, and waits for it all the same.
        ("threads", "SIGQUIT", b"does not implement kill_job"),
    ],
    ids=["threads", "gevent", "solo", "threads, cold"],
)
def test_the_other_pools_finish_what_runs_and_give_the_rest_back(shop: Shop, hire: Hire, pool, signal, says):
    worker = hire(f"--pool={pool}", *GREEDY)
    send(shop, "held", [1])
    shop.wait_for("hold started")
    send(shop, "later", [1, 2])
    send(shop, "held", [2, 3, 4])
    if (pool, signal) == ("threads", "SIGQUIT"):
        # Celery's failure in the midst of a line of the log can keep that locked, and the worker from ending.
        holds_all(shop, worker)
    worker.kill(signal)
    shop.wait_until(lambda: says in worker.logs(), "the beginning of the shutdown")
    shop.open_gate()
    wait_for_the_end(shop, worker)
    assert shop.notes("succeeded", receiver="hold")
    assert_nothing_is_lost(shop, hire)
    assert runs(shop, "hold started") == {1: 1, 2: 1, 3: 1, 4: 1}


def test_in_the_solo_pool_a_cold_shutdown_raises_in_the_receiver_and_counts_as_a_retry(shop: Shop, hire: Hire):
    """Celery's signal handler fails in the middle of the receiver (NotImplementedError), and its worker goes on."""
    worker = hire("--pool=solo")
    send(shop, "held_patiently", [1])
    shop.wait_for("hold_patiently started")
    worker.kill("SIGQUIT")
    shop.wait_for("retry", receiver="hold_patiently")
    shop.open_gate()
    wait_for_the_end(shop, worker)
    if not shop.notes("hold_patiently finished"):
        hire("--pool=solo")
    shop.wait_for("succeeded", receiver="hold_patiently")
    assert [note["attempt"] for note in shop.notes("hold_patiently started")] == [1, 2]


class TestChildrenThatComeAndGo:
    """Prefork replaces its processes while deliveries are on their way to them."""

    @pytest.mark.parametrize(
        "option", ["--max-tasks-per-child=2", "--max-memory-per-child=1"], ids=["after two", "too large"]
    )
    def test_a_child_that_is_replaced_takes_nothing_with_it(self, shop: Shop, hire: Hire, option):
        hire("--concurrency=2", option)
        numbers = list(range(10))
        send(shop, "counted", numbers)
        shop.wait_for("succeeded", 20)
        assert runs(shop, "count") == dict.fromkeys(numbers, 1)
        assert runs(shop, "count_async") == dict.fromkeys(numbers, 1)
        assert len({note["pid"] for note in shop.notes("count")}) > 2
        assert not shop.notes("retry")

    def test_autoscale_ends_only_children_that_have_nothing_to_do(self, shop: Shop, hire: Hire):
        worker = hire("--autoscale=4,1", AUTOSCALE_KEEPALIVE="1")
        send(shop, "held", [1, 2, 3, 4])
        shop.wait_for("hold started", 4)
        assert b"Scaling up" in worker.logs()
        send(shop, "counted", list(range(20)))
        shop.open_gate()
        shop.wait_until(lambda: b"Scaling down" in worker.logs(), "fewer children")
        send(shop, "counted", list(range(20, 40)))
        shop.wait_for("succeeded", 84)
        assert runs(shop, "hold finished") == {1: 1, 2: 1, 3: 1, 4: 1}
        assert runs(shop, "count") == runs(shop, "count_async") == dict.fromkeys(range(40), 1)
        assert not shop.notes("retry")


def test_in_the_gevent_pool_a_cold_shutdown_loses_nothing_though_celery_fails_at_it(shop: Shop, hire: Hire):
    """It kills the greenlet, which its pool reports as a success, and then stumbles over itself."""
    worker = hire("--pool=gevent", "--concurrency=4")
    send(shop, "held", [1])
    shop.wait_for("hold started")
    worker.kill("SIGQUIT")
    shop.wait_until(lambda: b"Ctrl+C again" in worker.logs(), "the beginning of the shutdown")
    shop.open_gate()
    wait_for_the_end(shop, worker)
    hire("--concurrency=1")
    shop.wait_for("succeeded", receiver="hold")
    assert not shop.notes("dead")
    assert len(shop.notes("hold started")) <= 2
