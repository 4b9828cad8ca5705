"""Who sends: forks, threads, coroutines, greenlets, in real servers; and who runs it: each of Celery's pools."""

import json
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, ClassVar, Self

import psutil
import pytest
from pytest_celery import CeleryTestBroker

from tests.servers import Process, free_port

from .conftest import Hire
from .shop import Shop

WORKSHOP = "tests.integration.project.workshop"
SCENARIOS = f"{WORKSHOP}.scenarios"
#: What ``workshop.wsgi`` sends while it is loaded.
WITHOUT_ROW = 0
#: Seconds; longer than what the event loop may be kept, so that the two cannot be mistaken for each other.
PATIENCE = 2.0
#: Requests side by side.
CLIENTS = 10
POOLS = {
    "prefork": ["--pool=prefork", "--concurrency=2"],
    "threads": ["--pool=threads", "--concurrency=4"],
    "gevent": ["--pool=gevent", "--concurrency=4"],
    "solo": ["--pool=solo"],
}


@pytest.fixture
def settings() -> dict[str, Any]:
    """The Django settings that a test adds."""
    return {}


@pytest.fixture
def shop_env(settings: dict[str, Any]) -> dict[str, str]:
    return {"DJANGO_SETTINGS_MODULE": f"{WORKSHOP}.settings", "SHOP_SETTINGS": json.dumps(settings)}


@pytest.fixture
def worker(hire: Hire) -> Process:
    return hire("--concurrency=2")


def call(shop: Shop, scenario: str, **arguments: Any) -> Any:
    return shop.call("elsewhere", path=f"{SCENARIOS}.{scenario}", **arguments)


def assert_each_arrived_once(shop: Shop, numbers: Iterable[int]) -> None:
    """At the receiver, and at the async one, which finds the row that was committed."""
    sent = Counter(numbers)
    for what in ("count", "count_async"):
        for some in [*range(50, sent.total(), 50), sent.total()]:  # as long as it goes on, on a slow machine too
            shop.wait_for("succeeded", some, receiver=what)
        assert Counter(note["number"] for note in shop.notes(what)) == sent, what
    assert {note["number"] for note in shop.notes("count_async", customer=None)} <= {WITHOUT_ROW}
    assert not shop.notes("unpublished")
    assert not shop.notes("retry")


class TestForks:
    def test_children_of_both_moments_and_their_parent_send_at_once_and_lose_nothing(self, shop: Shop, worker: Process):
        said = call(shop, "count_in_forks", children=3, each=10)
        assert said["ended"] == [0] * 6
        assert_each_arrived_once(shop, range(said["sent"]))

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_a_multiprocessing_pool_loses_nothing(self, shop: Shop, worker: Process, method):
        sent = call(shop, "count_in_a_pool", method=method, processes=3, each=20)
        assert_each_arrived_once(shop, range(sent))


def test_twenty_threads_lose_nothing(shop: Shop, worker: Process):
    sent = call(shop, "count_in_threads", threads=20, each=20)
    assert_each_arrived_once(shop, range(sent))


class Server(Process):
    """A web server of the workshop."""

    def __init__(self, shop: Shop, *argv: str) -> None:
        self.shop = shop
        port = free_port()
        words = [word.format(port=port) for word in argv]
        super().__init__([sys.executable, "-m", *words], home=shop.home, env=shop.env, port=port)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}/", timeout=30) as response:
            return json.load(response)

    def get_all(self, paths: list[str]) -> list[Any]:
        with ThreadPoolExecutor(CLIENTS) as pool:
            return list(pool.map(self.get, paths))


class Gunicorn(Server):
    ready_line: ClassVar[str] = "Booting worker"

    @classmethod
    def of(cls, shop: Shop, *options: str) -> Self:
        return cls(shop, "gunicorn", "--bind=127.0.0.1:{port}", *options, f"{WORKSHOP}.wsgi:application")


class Uvicorn(Server):
    ready_line: ClassVar[str] = "Uvicorn running on"

    @classmethod
    def of(cls, shop: Shop) -> Self:
        return cls(shop, "uvicorn", "--port={port}", "--lifespan=off", f"{WORKSHOP}.asgi:application")


Serve = Callable[[Server], Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as ending:

        def serve(server: Server) -> Server:
            ending.callback(server.remove)
            return server.wait_ready()

        yield serve


def connections_to(broker: CeleryTestBroker, pid: int) -> int:
    """How many connections a process has to the broker."""
    connections = psutil.Process(pid).net_connections("tcp")
    return sum(bool(one.raddr) and one.raddr.port == broker.container.port for one in connections)


#: As gunicorn's documentation has it, for what is loaded before its workers patch themselves.
PATCHED = "from gevent import monkey\n\nmonkey.patch_all()\n"


@pytest.mark.parametrize(
    ("options", "config", "side_by_side"),
    [
        (["--preload", "--workers=4", "--worker-class=sync"], "", 1),
        (["--preload", "--workers=2", "--worker-class=gthread", "--threads=8"], "", 8),
        (["--preload", "--workers=2", "--worker-class=gevent"], PATCHED, CLIENTS),
        (["--workers=2", "--worker-class=gevent"], "", CLIENTS),
    ],
    ids=["sync", "gthread", "gevent", "gevent-not-preloaded"],
)
def test_every_request_to_gunicorn_is_delivered_once_also_when_it_has_published_before_the_fork(
    shop: Shop, worker: Process, serve: Serve, celery_broker: CeleryTestBroker, options, config, side_by_side
):
    (shop.home / "gunicorn.conf.py").write_text(config)
    server = serve(Gunicorn.of(shop, *options))
    answers = server.get_all([f"count/{number}" for number in range(1, 300)])
    pids = {answer["pid"] for answer in answers}
    assert len(pids) > 1
    loaded = {note["pid"] for note in shop.notes("loaded")}
    assert ("--preload" in options) is loaded.isdisjoint(pids)
    assert_each_arrived_once(shop, [*[WITHOUT_ROW] * len(loaded), *range(1, 300)])
    # They are kept: as many as there are senders side by side, and what the loader had and the child does not use.
    inherited = max(connections_to(celery_broker, pid) for pid in loaded)
    assert all(1 <= connections_to(celery_broker, pid) <= inherited + 2 * side_by_side for pid in pids)


class TestASGI:
    @pytest.fixture
    def server(self, shop: Shop, serve: Serve) -> Server:
        return serve(Uvicorn.of(shop))

    def test_what_async_views_send_is_delivered(self, shop: Shop, worker: Process, server: Server):
        views = ["acount", "acount-robust", "acount-in-a-transaction"]
        answers = server.get_all([f"{views[number % 3]}/{number}" for number in range(90)])
        assert_each_arrived_once(shop, range(90))
        returned = {delivery for answer in answers for delivery in answer.get("deliveries", ())}
        assert len(returned) == 60
        assert returned <= {note["delivery"] for note in shop.notes("succeeded")}

    @pytest.mark.parametrize("settings", [{"DEFERRED_SIGNALS": {"PUBLISH_TIMEOUT": PATIENCE}}], ids=["patient"])
    @pytest.mark.parametrize("view", ["acount", "acount-robust", "acount-in-a-transaction"])
    def test_a_frozen_broker_makes_the_view_wait_and_not_the_event_loop(
        self, shop: Shop, server: Server, celery_broker: CeleryTestBroker, view
    ):
        server.get(f"{view}/0")
        server.get("longest-pause")
        celery_broker.kill("SIGSTOP")
        try:
            server.get_all([f"{view}/{number}" for number in range(1, 6)])
            lost = shop.wait_for("unpublished", 10)
        finally:
            celery_broker.kill("SIGCONT")
        assert len(lost) == 10
        assert server.get("longest-pause")["seconds"] < PATIENCE / 2

    @pytest.mark.parametrize("settings", [{"DEFERRED_SIGNALS": {"PUBLISH_TIMEOUT": PATIENCE}}], ids=["patient"])
    def test_send_in_a_coroutine_waits_in_the_event_loop_as_its_name_says(
        self, shop: Shop, server: Server, celery_broker: CeleryTestBroker
    ):
        """Also shows that the test above measures what it says."""
        server.get("count-in-the-loop/0")
        server.get("longest-pause")
        celery_broker.kill("SIGSTOP")
        try:
            server.get("count-in-the-loop/1")
        finally:
            celery_broker.kill("SIGCONT")
        assert server.get("longest-pause")["seconds"] >= PATIENCE


@pytest.mark.parametrize("pool", POOLS)
def test_every_pool_retries_discards_and_lets_die(shop: Shop, hire: Hire, pool):
    worker = hire(*POOLS[pool])
    call(shop, "send_all", signal="failing", numbers=[1, 2, 3])
    ended = {
        state: {note["delivery"] for note in shop.wait_for(state, 3, receiver=receiver)}
        for state, receiver in [("succeeded", "fail_once"), ("dead", "fail_always"), ("discarded", "give_up")]
    }
    assert all(len(deliveries) == 3 for deliveries in ended.values())
    for what, retried in [("fail_once", ended["succeeded"]), ("fail_always", ended["dead"])]:
        assert len(shop.notes(what)) == 6
        assert {note["delivery"] for note in shop.notes("retry", receiver=what)} == retried
    worker.stop()
    assert worker._process.returncode == 0
