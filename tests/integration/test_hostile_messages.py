"""What a stranger puts into the queue: a worker runs nothing of it, says so in a line, lives, and goes on."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from kombu import Connection

from tests.servers import RabbitMQ, Redis

from .conftest import covered, need
from .letters import DELIVER, HOSTILE, letter
from .local_nodes import DOCKER, LocalRabbitMQ, LocalRedis, WorkerProcess
from .shop import Shop


class Siege:
    """A shop with a worker, and a queue that anybody can write to."""

    def __init__(self, home: Path, broker_url: str) -> None:
        queue = f"siege-{uuid.uuid4().hex[:8]}"
        env = {"SHOP_BROKER_URL": broker_url, "SHOP_DATABASE_URL": f"sqlite://{home}/db.sqlite3", "SHOP_QUEUE": queue}
        self.broker_url = broker_url
        self.shop = Shop(home, **env)
        self.shop.call("create_tables")
        self.genuine, self.sentinel = (self.shop.call("payload_for", signal="newsletter_due") for _ in range(2))
        self.worker = WorkerProcess.of_project(home, self.shop.env, self.shop.project, "siege", "--concurrency=1")
        self.worker.wait_ready()

    def close(self) -> None:
        self.worker.remove()
        self.shop.close()

    def runs(self, payload: str) -> int:
        """How often the receiver has run a payload."""
        return len(self.shop.notes("discarded", delivery=delivery_id(payload)))

    def put(self, made: Any) -> None:
        made.put(self.broker_url, self.shop.queue)

    def until_the_next_is_delivered(self) -> None:
        """Put a genuine message, and wait until the worker is done with it."""
        last = letter(self.sentinel)
        self.put(last)
        end = f"[{last.headers['id']}] succeeded"
        self.shop.wait_until(lambda: end in self.log() or self.worker.status == "exited", end)
        assert self.worker.status == "running", self.shop.story()

    def log(self) -> str:
        return self.worker.logs().decode(errors="replace")

    def processes(self) -> set[int]:
        main = psutil.Process(self.worker._process.pid)
        return {main.pid, *(child.pid for child in main.children())}

    def waiting(self) -> int:
        """Messages in the queue; with Redis also those that a worker holds."""
        if self.broker_url.startswith("redis"):
            with closing(redis.Redis.from_url(self.broker_url)) as client:
                return int(client.llen(self.shop.queue)) + int(client.hlen("unacked"))
        with Connection(self.broker_url) as connection:
            channel: Any = connection.channel()
            return int(channel.queue_declare(self.shop.queue, passive=True).message_count)


def delivery_id(payload: str) -> str:
    return payload.partition('"id":"')[2].partition('"')[0]


@pytest.fixture(scope="module")
def siege_of(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Siege]]:
    """One for each broker and module, for they take seconds; a new one after a message has ended the worker."""
    made: dict[str, Siege] = {}
    with ExitStack() as ending:

        def siege(broker: str) -> Siege:
            known = made.get(broker)
            if known is not None and known.worker.status == "running":
                return known
            home = tmp_path_factory.mktemp("siege")
            node: LocalRedis | LocalRabbitMQ
            if broker == "redis":
                node = LocalRedis.of(Redis(home))
                ending.callback(node._container.remove)
            elif DOCKER:
                node = LocalRabbitMQ.of(RabbitMQ(home))
                ending.callback(node._container.remove)
            else:
                node = request.getfixturevalue("rabbitmq")
                if node.status == "exited":  # a test has killed it
                    node.restart()
            made[broker] = ending.enter_context(closing(Siege(home, node.celeryconfig["host_url"])))
            return made[broker]

        yield siege


@pytest.fixture(params=["redis", "rabbitmq"])
def siege(request: pytest.FixtureRequest, siege_of: Callable[[str], Siege]) -> Siege:
    server = Redis if request.param == "redis" else RabbitMQ
    need(request, server)
    covered(request, server.title, "a siege")
    return siege_of(request.param)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_message_runs_nothing_and_the_worker_goes_on(siege: Siege, name: str) -> None:
    hostile = HOSTILE[name]
    processes, runs = siege.processes(), siege.runs(siege.genuine)
    start = len(siege.log())
    siege.put(hostile.make(siege.genuine))
    siege.until_the_next_is_delivered()

    def is_dealt_with() -> bool:
        """RabbitMQ may put first what was sent second, over another connection."""
        if hostile.runs:
            return siege.runs(siege.genuine) - runs >= hostile.runs
        return hostile.said in siege.log()[start:]

    siege.shop.wait_until(is_dealt_with, "the end of the message")
    lines = siege.log()[start:].splitlines()
    assert siege.runs(siege.genuine) - runs == hostile.runs
    assert siege.processes() == processes
    # One line of ours for what is not run, none for what is; and no text of the message begins a line.
    told = [line for line in lines if "ERROR" in line and " raised expected: " not in line]
    assert [hostile.said in line for line in told] == [True] * (not hostile.runs), "\n".join(lines)
    assert all(line.startswith("[20") for line in lines), "\n".join(lines)
    assert max(map(len, lines)) < 500
    siege.shop.wait_until(lambda: siege.waiting() == 0, "an empty queue")
    assert not siege.shop.notes("alarm")
    assert not (siege.shop.home / "exploded").exists()


def test_nothing_of_the_hostile_messages_is_left_when_the_worker_ends(siege: Siege) -> None:
    for hostile in HOSTILE.values():
        siege.put(hostile.make(siege.genuine))
    siege.until_the_next_is_delivered()
    siege.shop.wait_until(lambda: siege.waiting() == 0, "an empty queue")
    siege.worker.stop()  # which gives back what it holds
    assert siege.waiting() == 0


def test_a_message_that_is_put_twice_runs_twice_under_one_id(siege: Siege) -> None:
    runs = siege.runs(siege.genuine)
    for _ in range(2):
        siege.put(letter(siege.genuine))
    siege.until_the_next_is_delivered()
    siege.shop.wait_until(lambda: siege.runs(siege.genuine) - runs >= 2, "both runs")
    assert siege.runs(siege.genuine) - runs == 2


def test_a_message_for_no_task_of_the_project_is_celerys_and_the_worker_goes_on(siege: Siege) -> None:
    processes, start = siege.processes(), len(siege.log())
    for task in ("os.system", "builtins.eval", "tests.integration.project.shop.receivers.send_newsletter"):
        siege.put(letter(siege.genuine, task=task))
    siege.until_the_next_is_delivered()
    unknown = "Received unregistered task of type"
    siege.shop.wait_until(lambda: siege.log()[start:].count(unknown) >= 3, "three lines")
    assert siege.log()[start:].count(unknown) == 3
    assert siege.processes() == processes


@pytest.mark.parametrize("pool", ["threads", "solo", "gevent"])
def test_the_guard_stands_before_every_pool(siege: Siege, pool: str) -> None:
    shop = siege.shop
    queue = f"{shop.queue}-{pool}"
    worker = WorkerProcess.of_project(
        shop.home, shop.env | {"SHOP_QUEUE": queue}, shop.project, pool, "--concurrency=1", f"--pool={pool}"
    ).wait_ready()
    with closing(_Removing(worker)):
        bad = ("a number", "an empty list", "arguments nested 900 deep", "no id", "time limits that are words")
        for name in bad:
            HOSTILE[name].make(siege.genuine).put(siege.broker_url, queue)
        last = letter(siege.sentinel)
        last.put(siege.broker_url, queue)
        shop.wait_until(lambda: f"[{last.headers['id']}] succeeded".encode() in worker.logs(), "the last one")
        refused = f"A message for {DELIVER} is refused".encode()
        shop.wait_until(lambda: worker.logs().count(refused) >= len(bad), "the others")
        assert worker.logs().count(refused) == len(bad)
        # The line is there before the acknowledgement. Killed between them, it would leave one to the tests after this.
        worker.stop()


class _Removing:
    def __init__(self, worker: WorkerProcess) -> None:
        self.close = worker.remove
