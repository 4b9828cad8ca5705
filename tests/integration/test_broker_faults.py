"""Publishing while the broker is broken, each time in the way that its name says, by a sender's real process.

Whatever happens: the sender's rows stand, nothing is raised after its commit, the commit hooks of others run, it waits
a second for a whole outage and not for each delivery, the log says what was lost and ``delivery_unpublished`` gets it,
what was told as published is in the queue, and as soon as the broker works publishing goes on by itself.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import kombu
import pytest
import redis as redis_client

from tests.servers import RabbitMQ, Redis, free_port

from .conftest import covered, need
from .local_nodes import LocalRabbitMQ
from .proxy import proxy_to
from .shop import Shop

#: Seconds: the patience of the settings, what it is looked at late, and what a shared machine may take for itself.
BOUND = 1.0 + 0.5 + 1.5
#: Seconds until the sender may have noticed that the broker works again.
RECOVERY = 3.0
#: Stands for what a signal carries: it must not be in any log.
SECRET = "Ada-c0ffee"
RECEIVER = "tests.integration.project.shop.receivers.send_welcome_email"


class Broker(NamedTuple):
    server: Redis | RabbitMQ
    scheme: str

    @property
    def url(self) -> str:
        return self.at(self.server.port)

    def at(self, port: int | None, host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{port}/"

    def client(self) -> Any:
        return redis_client.Redis(port=self.server.port or 0)

    def freeze(self) -> None:
        self.server.kill(signal.SIGSTOP)

    def thaw(self) -> None:
        self.server.kill(signal.SIGCONT)

    def back(self) -> None:
        """Start it again after a kill."""
        self.server.start()
        self.server.wait_ready()

    def messages(self, queue: str) -> list[str]:
        """The ids of the deliveries that stand in the queue, in their order; they are taken out."""
        with kombu.Connection(self.url) as connection:
            found = kombu.Queue(queue, channel=connection.default_channel)
            taken = iter(lambda: found.get(no_ack=True), None)
            return [message.properties["correlation_id"] for message in taken]


@pytest.fixture
def redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    need(request, Redis)
    server = Redis(tmp_path, appendonly=True).wait_ready()
    covered(request, Redis.title, server.version)
    yield Broker(server, "redis")
    server.remove()


@pytest.fixture
def rabbit(request: pytest.FixtureRequest) -> Broker:
    need(request, RabbitMQ)
    node: LocalRabbitMQ = request.getfixturevalue("rabbitmq")
    server = node._container
    assert isinstance(server, RabbitMQ)
    if server.status == "exited":
        server.start()
        server.wait_ready()
    covered(request, RabbitMQ.title, server.version)
    return Broker(server, "pyamqp")


@pytest.fixture(params=["redis", "rabbit"])
def broker(request: pytest.FixtureRequest) -> Broker:
    found: Broker = request.getfixturevalue(request.param)
    return found


Start = Callable[..., Shop]


@pytest.fixture
def sender(request: pytest.FixtureRequest, tmp_path: Path, sqlite_template: Path) -> Iterator[Start]:
    """Start a sender for a broker: its process begins with the first call."""
    with ExitStack() as ending:

        def start(url: str, **env: str) -> Shop:
            home = tmp_path / uuid.uuid4().hex[:8]
            home.mkdir()
            shutil.copy(sqlite_template, home / "shop.sqlite3")
            shop = Shop(
                home,
                DJANGO_SETTINGS_MODULE="tests.integration.project.faults.settings",
                SHOP_BROKER_URL=url,
                SHOP_DATABASE_URL=f"sqlite://{home}/shop.sqlite3",
                SHOP_QUEUE=f"faults-{uuid.uuid4().hex[:8]}",
                **env,
            )
            return ending.enter_context(closing(shop))

        yield start


@pytest.fixture
def large(sender: Start, monkeypatch: pytest.MonkeyPatch) -> Start:
    """A sender of large messages, which on a busy machine takes long only to write one down."""
    monkeypatch.setattr("tests.integration.shop.DEADLINE", 180.0)
    return lambda url: sender(url, FAULTS_MAX_SIZE=str(2**30), FAULTS_PUBLISH_TIMEOUT="90")


def call(shop: Shop, scenario: str, **arguments: Any) -> Any:
    return shop.call("elsewhere", path=f"tests.integration.project.faults.scenarios.{scenario}", **arguments)


def ids(shop: Shop, what: str) -> list[str]:
    return [note["delivery"] for note in shop.notes(what)]


def works(shop: Shop, broker: Broker) -> None:
    """Publish one delivery over a connection that the sender keeps."""
    call(shop, "sign_ups", name="before")
    assert broker.messages(shop.queue) == ids(shop, "published")


def holds(said: dict[str, Any], count: int) -> None:
    """What must be so for the caller whatever the broker does."""
    assert said["customers"] == count
    assert all(hooks == ["before", "after"] for hooks in said["hooks"])


def all_lost(shop: Shop, count: int) -> None:
    assert len(set(ids(shop, "unpublished"))) == count
    assert not {*ids(shop, "unpublished")} & {*ids(shop, "published")}
    lines = [line for line in shop.log().splitlines() if line.startswith("Could not be published")]
    told = sum(int(line.split(f"{RECEIVER} (")[1].split(")")[0]) for line in lines)
    assert told == count
    assert SECRET not in shop.log()


def recovers(shop: Shop, broker: Broker, within: float = RECOVERY) -> None:
    """From now on the broker works: soon the sender has noticed, and nothing that is sent then is lost."""
    published = len(shop.notes("published"))
    started = time.monotonic()
    shop.wait_until(
        lambda: call(shop, "sign_ups", name="again") and len(shop.notes("published")) > published, "a delivery"
    )
    assert time.monotonic() - started < within
    lost = len(shop.notes("unpublished"))
    broker.messages(shop.queue)
    call(shop, "sign_ups", name="after", times=5)
    assert len(shop.notes("unpublished")) == lost
    assert broker.messages(shop.queue) == ids(shop, "published")[-5:]


def told_the_truth(shop: Shop, broker: Broker, count: int) -> None:
    """Each delivery was told as published or as lost, and what was told as published is in the queue."""
    published, lost = ids(shop, "published"), ids(shop, "unpublished")
    assert len(published) + len(lost) == len({*published, *lost}) == count
    there = broker.messages(shop.queue)
    assert set(published) <= set(there) <= {*published, *lost}
    # What is sent once more because its connection broke is the same delivery.
    assert [one for one in dict.fromkeys(there) if one in published] == published


class TestABrokerThatIsAway:
    def test_connection_refused(self, broker: Broker, sender: Start):
        shop = sender(broker.url)
        works(shop, broker)
        broker.server.kill()
        said = call(shop, "sign_ups", name=SECRET, times=100)
        holds(said, 100)
        assert said["seconds"] < BOUND + 100 * 0.02
        all_lost(shop, 100)
        assert {"OperationalError", "PublishError"} == {
            note["error"].partition("(")[0] for note in shop.notes("unpublished")
        }
        broker.back()
        recovers(shop, broker)
        assert "no longer" in shop.log()

    def test_a_host_name_that_cannot_be_resolved(self, broker: Broker, sender: Start):
        shop = sender(broker.at(1234, host="no-such-host.invalid"))
        said = call(shop, "sign_ups", name=SECRET, times=20)
        holds(said, 20)
        assert said["seconds"] < BOUND + 20 * 0.02
        all_lost(shop, 20)

    @pytest.mark.parametrize("threads", [1, 20])
    @pytest.mark.parametrize("connected", [True, False], ids=["connected", "not yet connected"])
    def test_a_frozen_broker_is_waited_for_once_and_not_by_each_of_a_hundred(
        self, broker: Broker, sender: Start, threads: int, connected: bool
    ):
        shop = sender(broker.url)
        if connected:
            works(shop, broker)
        broker.freeze()
        try:
            said = call(shop, "sign_ups", name=SECRET, times=100, threads=threads)
        finally:
            broker.thaw()
        holds(said, 100)
        assert said["longest"] < BOUND
        assert said["seconds"] < BOUND + 100 * 0.02
        all_lost(shop, 100)
        recovers(shop, broker)

    def test_two_hundred_sends_to_a_frozen_broker_leave_no_more_than_a_handful_of_threads_and_sockets_behind(
        self, broker: Broker, sender: Start
    ):
        shop = sender(broker.url)
        works(shop, broker)
        before = call(shop, "what_is_left")
        broker.freeze()
        try:
            call(shop, "sign_ups", name=SECRET, times=200)
            left = call(shop, "what_is_left")
            assert len(left["threads"]) - len(before["threads"]) <= 3
            assert left["sockets"] - before["sockets"] <= 4
            # What was left behind ends by itself, while the broker is still frozen.
            shop.wait_until(
                lambda: "deferred_signals-publish" not in call(shop, "what_is_left")["threads"], "the lane's end"
            )
        finally:
            broker.thaw()
        recovers(shop, broker)
        ended = call(shop, "what_is_left")
        assert len(ended["threads"]) <= len(before["threads"])
        assert ended["sockets"] <= before["sockets"] + 1

    def test_connection_reset(self, broker: Broker, sender: Start):
        with proxy_to(broker.server.port or 0) as proxy:
            shop = sender(broker.at(proxy.port))
            works(shop, broker)
            assert proxy.reset()
            holds(call(shop, "sign_ups", name=SECRET, count=20), 20)
            assert not shop.notes("unpublished")
            assert broker.messages(shop.queue) == ids(shop, "published")[1:]


class TestInTheMiddleOfAFlush:
    """Some hundred deliveries of one commit, of which some have left already."""

    @pytest.fixture
    def flush(self, sender: Start) -> Callable[..., tuple[Shop, float]]:
        def run(url: str, fault: Callable[[], None]) -> tuple[Shop, float]:
            """The sender, and the seconds from the fault to the end of the flush."""
            shop = sender(url)
            with ThreadPoolExecutor(1) as beside:
                running = beside.submit(call, shop, "slow_sign_ups", name=SECRET, count=300, halfway=100)
                shop.wait_for("halfway")
                fault()
                broken = time.monotonic()
                said = running.result()
                seconds = time.monotonic() - broken
            holds(said, 300)
            assert SECRET not in shop.log()
            return shop, seconds

        return run

    def test_the_broker_is_restarted(self, broker: Broker, flush: Callable[..., tuple[Shop, float]]):
        shop, _ = flush(broker.url, broker.server.restart)
        broker.server.wait_ready()
        told_the_truth(shop, broker, 300)
        recovers(shop, broker)

    def test_the_broker_is_killed(self, broker: Broker, flush: Callable[..., tuple[Shop, float]]):
        shop, seconds = flush(broker.url, broker.server.kill)
        assert seconds < BOUND
        assert shop.notes("published")
        assert shop.notes("unpublished")
        broker.back()
        told_the_truth(shop, broker, 300)
        recovers(shop, broker)

    def test_the_broker_freezes(self, broker: Broker, flush: Callable[..., tuple[Shop, float]]):
        try:
            shop, seconds = flush(broker.url, broker.freeze)
        finally:
            broker.thaw()
        assert seconds < BOUND
        assert shop.notes("published")
        assert shop.notes("unpublished")
        # The one that was on its way may arrive when the broker goes on, and before that it is not told as published.
        told_the_truth(shop, broker, 300)
        recovers(shop, broker)

    def test_the_connection_is_reset(self, broker: Broker, flush: Callable[..., tuple[Shop, float]]):
        with proxy_to(broker.server.port or 0) as proxy:
            shop, _ = flush(broker.at(proxy.port), proxy.reset)
        assert len(shop.notes("published")) == 300
        told_the_truth(shop, broker, 300)


class TestRabbitMQ:
    @pytest.fixture
    def alarm(self, rabbit: Broker) -> Iterator[Callable[[], None]]:
        server = rabbit.server
        assert isinstance(server, RabbitMQ)

        def off() -> None:
            server.ctl("set_vm_memory_high_watermark", "0.4")

        server.ctl("set_vm_memory_high_watermark", "0.0000001")
        yield off
        off()

    @pytest.mark.parametrize("threads", [1, 20])
    def test_memory_alarm(self, rabbit: Broker, sender: Start, threads: int, request: pytest.FixtureRequest):
        shop = sender(rabbit.url)
        works(shop, rabbit)
        off = request.getfixturevalue("alarm")
        said = call(shop, "sign_ups", name=SECRET, times=100, threads=threads)
        holds(said, 100)
        assert said["longest"] < BOUND
        assert said["seconds"] < BOUND + 100 * 0.02
        all_lost(shop, 100)
        off()
        recovers(shop, rabbit)

    @pytest.mark.parametrize("kind", ["classic", "quorum"])
    def test_a_restart_keeps_what_was_told_as_published(self, rabbit: Broker, sender: Start, kind: str):
        shop = sender(rabbit.url, FAULTS_QUEUE_TYPE=kind)
        holds(call(shop, "sign_ups", name=SECRET, times=5, count=10), 50)
        # Not killed: RabbitMQ 3.10 forgets the members of a quorum queue that was declared some seconds before that.
        rabbit.server.stop()
        holds(call(shop, "sign_ups", name=SECRET), 51)
        rabbit.back()
        # A quorum queue takes messages only when it has found its leader.
        shop.wait_until(
            lambda: (call(shop, "sign_ups", name="again"), len(shop.notes("published")) > 50)[1], "a delivery"
        )
        published = ids(shop, "published")
        assert [one for one in rabbit.messages(shop.queue) if one in published] == published
        assert len(shop.notes("unpublished")) >= 1

    @pytest.mark.parametrize("kind", ["classic", "quorum"])
    def test_a_queue_that_is_deleted_is_declared_again_and_nothing_is_lost(
        self, rabbit: Broker, sender: Start, kind: str
    ):
        shop = sender(rabbit.url, FAULTS_QUEUE_TYPE=kind)
        works(shop, rabbit)
        with kombu.Connection(rabbit.url) as connection:
            kombu.Queue(shop.queue, channel=connection.default_channel).delete()
        holds(call(shop, "sign_ups", name=SECRET, count=20), 20)
        assert not shop.notes("unpublished")
        assert rabbit.messages(shop.queue) == ids(shop, "published")[1:]

    @pytest.mark.parametrize("which", ["topic_sent", "binding_sent"])
    def test_an_exchange_that_is_deleted_is_declared_again_and_nothing_is_lost(
        self, rabbit: Broker, sender: Start, which: str
    ):
        shop = sender(rabbit.url)
        for _ in range(2):
            call(shop, "send", which=which)
            with kombu.Connection(rabbit.url) as connection:
                kombu.Exchange(f"{shop.queue}-topic", channel=connection.default_channel).delete()
        call(shop, "send", which=which)
        assert not shop.notes("unpublished")
        assert rabbit.messages(f"{shop.queue}-topic") == ids(shop, "published")
        assert len(shop.notes("published")) == 3

    def test_a_full_queue_that_refuses_messages(self, rabbit: Broker, sender: Start):
        shop = sender(rabbit.url)
        call(shop, "send", which="full_sent", times=3)
        assert len(shop.notes("published")) == 1
        lost = shop.notes("unpublished")
        assert len(lost) == 2
        assert all("has refused the message" in note["error"] for note in lost)
        works_beside_it(shop, rabbit)

    def test_a_message_larger_than_rabbitmq_takes_stops_no_other(self, rabbit: Broker, large: Start):
        shop = large(rabbit.url)
        said = call(shop, "send_much", which="parcel_sent", megabytes=200)
        assert not said["raised"]
        [lost] = shop.notes("unpublished")
        assert "PreconditionFailed" in lost["error"]
        assert "xxxx" not in shop.log()
        works_beside_it(shop, rabbit)


def works_beside_it(shop: Shop, broker: Broker) -> None:
    """What is wrong is one message or one queue: no other delivery is refused, not for a moment."""
    lost = len(shop.notes("unpublished"))
    said = call(shop, "sign_ups", name="beside", times=5)
    assert said["longest"] < 1.0
    assert len(shop.notes("unpublished")) == lost
    assert broker.messages(shop.queue) == ids(shop, "published")[-5:]


class TestRoutes:
    @pytest.mark.parametrize(
        ("which", "exchange", "key"),
        [("nowhere_sent", "nowhere", "void"), ("unbound_sent", "{queue}-topic", "letters.small")],
        ids=["no such exchange", "no binding"],
    )
    def test_unroutable(self, broker: Broker, sender: Start, which: str, exchange: str, key: str):
        shop = sender(broker.url)
        said = call(shop, "send", which=which, content=SECRET, times=3)
        assert not said["raised"]
        lost = shop.notes("unpublished")
        assert len(lost) == 3
        for note in lost:
            assert f"exchange '{exchange.format(queue=shop.queue)}' and the routing key '{key}'" in note["error"]
            assert "task_queues" in note["error"]
        assert SECRET not in shop.log()
        works_beside_it(shop, broker)

    @pytest.mark.parametrize("which", ["topic_sent", "binding_sent"])
    def test_flushall(self, redis: Broker, sender: Start, which: str):
        shop = sender(redis.url)
        call(shop, "send", which=which)
        redis.client().flushall()
        call(shop, "send", which=which, times=2)
        assert not shop.notes("unpublished")
        assert redis.messages(f"{shop.queue}-topic") == ids(shop, "published")[1:]
        assert len(shop.notes("published")) == 3


class TestRedis:
    def test_maxmemory_reached(self, redis: Broker, sender: Start):
        shop = sender(redis.url)
        works(shop, redis)
        redis.client().config_set("maxmemory", "1")
        said = call(shop, "sign_ups", name=SECRET, times=20, count=5)
        holds(said, 100)
        assert said["longest"] < BOUND
        all_lost(shop, 100)
        assert "'maxmemory'" in shop.log()
        redis.client().config_set("maxmemory", "0")
        works_beside_it(shop, redis)

    def test_readonly_replica(self, redis: Broker, sender: Start, tmp_path: Path):
        shop = sender(redis.url)
        works(shop, redis)
        (tmp_path / "other").mkdir()
        other = Redis(tmp_path / "other").wait_ready()
        try:
            redis.client().replicaof("127.0.0.1", str(other.port))
            said = call(shop, "sign_ups", name=SECRET, times=20, count=5)
            holds(said, 100)
            assert said["longest"] < BOUND
            all_lost(shop, 100)
            redis.client().replicaof("NO", "ONE")
            works_beside_it(shop, redis)
        finally:
            other.remove()

    def test_a_key_of_the_wrong_type(self, redis: Broker, sender: Start):
        shop = sender(redis.url)
        works(shop, redis)
        redis.client().set(shop.queue, "not a list")
        said = call(shop, "sign_ups", name=SECRET, times=5)
        holds(said, 5)
        all_lost(shop, 5)
        assert "WRONGTYPE" in shop.log()
        call(shop, "send", which="topic_sent")
        assert redis.messages(f"{shop.queue}-topic") == ids(shop, "published")[-1:]
        redis.client().delete(shop.queue)
        works_beside_it(shop, redis)

    def test_a_restart_without_persistence_loses_what_waited_and_nothing_that_is_sent_then(
        self, redis: Broker, sender: Start
    ):
        redis.client().config_set("appendonly", "no")
        shop = sender(redis.url)
        call(shop, "sign_ups", name=SECRET, count=10)
        redis.server.kill()
        for file in redis.server.home.glob("appendonlydir/*"):
            file.unlink()
        redis.back()
        assert redis.messages(shop.queue) == []
        holds(call(shop, "sign_ups", name=SECRET, count=10), 20)
        assert not shop.notes("unpublished")
        assert redis.messages(shop.queue) == ids(shop, "published")[10:]

    def test_a_restart_with_persistence_keeps_what_was_told_as_published(self, redis: Broker, sender: Start):
        shop = sender(redis.url)
        call(shop, "sign_ups", name=SECRET, count=10)
        redis.server.kill()
        redis.back()
        holds(call(shop, "sign_ups", name=SECRET, count=10), 20)
        assert not shop.notes("unpublished")
        assert redis.messages(shop.queue) == ids(shop, "published")
        assert len(shop.notes("published")) == 20

    def test_200_mb_are_published(self, redis: Broker, large: Start):
        shop = large(redis.url)
        call(shop, "send_much", which="parcel_sent", megabytes=200)
        assert not shop.notes("unpublished")
        assert redis.messages(shop.queue) == ids(shop, "published")


class TestLargeMessages:
    @pytest.mark.parametrize("megabytes", [10, 200])
    def test_too_large_is_an_error_at_the_send_by_default(
        self, redis: Broker, sender: Start, megabytes: int, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("tests.integration.shop.DEADLINE", 180.0)
        shop = sender(redis.url)
        said = call(shop, "send_much", which="parcel_sent", megabytes=megabytes)
        assert said["raised"].startswith("TooLarge: kwargs['content']")
        assert redis.messages(shop.queue) == []

    def test_10_mb_are_published_where_the_project_allows_it(self, broker: Broker, large: Start):
        shop = large(broker.url)
        call(shop, "send_much", which="parcel_sent", megabytes=10)
        assert not shop.notes("unpublished")
        assert broker.messages(shop.queue) == ids(shop, "published")


class TestASenderThatIsKilled:
    @pytest.mark.parametrize(
        ("when", "rows", "messages"),
        [("before the commit", 0, 0), ("between commit and publish", 1, 0), ("after publish", 1, 1)],
    )
    def test_sigkill(self, broker: Broker, sender: Start, when: str, rows: int, messages: int):
        """Between its commit and the publishing its delivery is lost: nothing but a table could know of it."""
        shop = sender(broker.url)
        works(shop, broker)
        command = ["elsewhere", {"path": "tests.integration.project.faults.scenarios.die", "name": "Ada", "when": when}]
        ended = subprocess.run(
            [sys.executable, "-m", "tests.integration.project"],
            input=json.dumps(command) + "\n",
            env={**os.environ, **shop.env},
            text=True,
            check=False,
        )
        assert ended.returncode == -signal.SIGKILL
        assert call(shop, "customers", name="Ada") == rows
        assert len(broker.messages(shop.queue)) == messages


class TestWhatIsLostCanBeSaved:
    def test_the_payload_that_delivery_unpublished_gets_can_be_published_later(self, broker: Broker, sender: Start):
        shop = sender(broker.at(free_port()), FAULTS_SAVE="1")
        call(shop, "sign_ups", name=SECRET, count=3)
        saved = shop.notes("saved")
        assert len(saved) == 3
        again = sender(broker.url)
        for note in saved:
            call(again, "publish_again", payload=note["payload"], delivery=note["delivery"], receiver=note["receiver"])
        assert broker.messages(again.queue) == [note["delivery"] for note in saved]
