"""What meets a worker in production: brokers that deliver twice, connections that break, receivers that hang."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from pytest_celery import CeleryTestBroker

from tests.servers import MariaDB, PostgreSQL, RabbitMQ

from .conftest import Hire, Stack, need
from .local_nodes import LocalRabbitMQ
from .shop import Shop

WORKSHOP = "tests.integration.project.workshop"
POOLS = {
    "prefork": ["--pool=prefork", "--concurrency=1"],
    "threads": ["--pool=threads", "--concurrency=4"],
    "gevent": ["--pool=gevent", "--concurrency=4"],
    "solo": ["--pool=solo"],
}
on_redis = pytest.mark.parametrize("stack", ["redis-sqlite"], indirect=True)
on_rabbitmq = pytest.mark.parametrize("stack", ["rabbitmq-sqlite"], indirect=True)
#: Connections live from delivery to delivery, so that they can be stale.
LASTING = {"CELERY_DB_REUSE_MAX": 100}


@pytest.fixture
def settings() -> dict[str, Any]:
    """The Django settings that a test adds."""
    return {}


@pytest.fixture
def shop_env(settings: dict[str, Any]) -> dict[str, str]:
    return {"DJANGO_SETTINGS_MODULE": f"{WORKSHOP}.settings", "SHOP_SETTINGS": json.dumps(settings)}


def call(shop: Shop, scenario: str, **arguments: Any) -> Any:
    return shop.call("elsewhere", path=f"{WORKSHOP}.scenarios.{scenario}", **arguments)


def send(shop: Shop, signal: str, **arguments: Any) -> None:
    call(shop, "send", signal=signal, **arguments)


def ids(notes: list[dict[str, Any]]) -> set[str]:
    return {note["delivery"] for note in notes}


def supervise(shop: Shop, hire: Hire, until: Callable[[], bool]) -> None:
    """As systemd and its like do: another worker as soon as one has ended."""
    workers = [hire("--concurrency=1")]

    def look() -> bool:
        if workers[-1].status == "exited":
            workers.append(hire("--concurrency=1"))
        return until()

    shop.wait_until(look, "the end")


class TestTheBrokerDeliversTwice:
    @on_redis
    @pytest.mark.parametrize("visibility_timeout", [2])
    def test_longer_than_the_visibility_timeout_of_redis_is_a_duplicate_under_one_id(self, shop: Shop, hire: Hire):
        hire("--concurrency=2")
        send(shop, "held", number=1)
        started = shop.wait_for("hold started", 2)
        shop.open_gate()
        shop.wait_for("succeeded", 2, receiver="hold")
        assert len(ids(started)) == 1
        assert {note["attempt"] for note in started} == {1}


class TestTheConsumerTimeoutOfRabbitMQ:
    @pytest.fixture
    def default_rabbitmq_broker(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalRabbitMQ]:
        """One of its own, which takes back what is not acknowledged in 2 s; half an hour is RabbitMQ's own."""
        need(request, RabbitMQ)
        home = tmp_path / "rabbitmq"
        home.mkdir()
        server = RabbitMQ(home).wait_ready()
        try:
            # The configuration file has no word for how often it looks.
            server.ctl("eval", "application:set_env(rabbit, channel_tick_interval, 500).")
            server.ctl("eval", "application:set_env(rabbit, consumer_timeout, 2000).")
            yield LocalRabbitMQ.of(server)
        finally:
            server.remove()

    @on_rabbitmq
    def test_a_countdown_longer_than_it_ends_the_worker_and_not_the_delivery(self, shop: Shop, hire: Hire):
        first = hire("--concurrency=1")
        send(shop, "later", number=1)
        shop.wait_until(lambda: first.status == "exited", "the worker's end")
        assert b"PRECONDITION_FAILED" in first.logs()
        assert not shop.notes("remind")
        supervise(shop, hire, lambda: bool(shop.notes("succeeded", receiver="remind")))
        assert len(shop.notes("remind")) == 1
        assert len(shop.notes("retry")) <= 1

    @on_rabbitmq
    def test_a_receiver_longer_than_it_ends_the_worker_and_runs_again_under_its_id(self, shop: Shop, hire: Hire):
        first = hire("--concurrency=1")
        send(shop, "held", number=1)
        shop.wait_for("hold started")
        shop.wait_until(lambda: b"PRECONDITION_FAILED" in first.logs(), "the broker closes the channel")
        shop.open_gate()
        supervise(shop, hire, lambda: len(shop.notes("succeeded", receiver="hold")) == 2)
        started = shop.notes("hold started")
        assert len(started) == 2
        assert len(ids(started)) == 1


def test_the_broker_is_restarted_while_a_receiver_runs_whose_acknowledgement_it_never_hears(
    shop: Shop, hire: Hire, stack: Stack, celery_broker: CeleryTestBroker
):
    """RabbitMQ delivers it again. A Redis without persistence has forgotten it."""
    hire("--concurrency=1")
    send(shop, "held", number=1)
    shop.wait_for("hold started")
    celery_broker.container.restart()
    shop.open_gate()
    shop.wait_for("succeeded", receiver="hold")
    send(shop, "counted", number=2)
    # Celery's own worker ends when it loses its Redis at that moment (kombu 5.7).
    supervise(shop, hire, lambda: bool(shop.notes("succeeded", receiver="count")))
    runs = 2 if stack.broker == "rabbitmq" else 1
    ended = shop.wait_for("succeeded", runs, receiver="hold")
    assert len(ids(ended)) == 1
    assert len(shop.notes("hold started")) == runs
    assert not shop.notes("dead")


@on_rabbitmq
def test_under_a_memory_alarm_nothing_is_acknowledged_before_rabbitmq_has_taken_its_retry(
    shop: Shop, hire: Hire, celery_broker: CeleryTestBroker
):
    """Unconfirmed, the retry would still be on its way, and go with the worker that is killed."""
    server = celery_broker.container._container
    first = hire("--concurrency=1")
    send(shop, "limited")
    shop.wait_for("take_long started", attempt=1)
    server.ctl("set_vm_memory_high_watermark", "0.0000001")
    try:
        shop.wait_for("retry", receiver="take_long")
        # It would have been acknowledged by now.
        time.sleep(1)
        first.kill()
    finally:
        server.ctl("set_vm_memory_high_watermark", "0.4")
    hire("--concurrency=1")
    shop.wait_for("succeeded", receiver="take_long")
    assert not shop.notes("dead")


@on_redis
def test_a_redis_that_is_out_of_memory_for_a_while_gets_the_retry_when_it_has_some(
    shop: Shop, hire: Hire, celery_broker: CeleryTestBroker
):
    """The message cannot even be given back meanwhile: kombu would end the worker over it."""
    worker = hire("--concurrency=1")
    send(shop, "limited")
    shop.wait_for("take_long started", attempt=1)
    with closing(redis.Redis(port=celery_broker.container.port)) as server:
        server.config_set("maxmemory", 1)
        shop.wait_until(lambda: "errorstat_OOM" in server.info("errorstats"), "a refusal")
        server.config_set("maxmemory", 0)
    shop.wait_for("succeeded", receiver="take_long")
    assert worker.status == "running"
    assert [note["attempt"] for note in shop.notes("take_long started")] == [1, 2]


QUORUM = {"CELERY_TASK_DEFAULT_QUEUE_TYPE": "quorum", "CELERY_BROKER_TRANSPORT_OPTIONS": {"confirm_publish": True}}
TOPIC = {**QUORUM, "CELERY_TASK_DEFAULT_EXCHANGE_TYPE": "topic"}


@on_rabbitmq
@pytest.mark.parametrize("settings", [QUORUM, TOPIC], ids=["direct", "topic"])
class TestQuorumQueues:
    def test_a_delivery_whose_whole_worker_is_killed_is_run_again(self, shop: Shop, hire: Hire):
        worker = hire("--concurrency=1")
        send(shop, "held", number=1)
        shop.wait_for("hold started")
        worker.kill("SIGKILL")
        shop.open_gate()
        hire("--concurrency=1")
        shop.wait_for("succeeded", receiver="hold")
        assert len(ids(shop.notes("hold started"))) == 1
        assert len(shop.notes("hold started")) == 2

    def test_countdowns_and_retries_are_kept(self, shop: Shop, hire: Hire):
        hire("--concurrency=2", "--prefetch-multiplier=20")
        send(shop, "later", number=1)
        call(shop, "send_all", signal="failing", numbers=[1, 2, 3, 4])
        shop.wait_for("succeeded", 4, receiver="fail_once")
        shop.wait_for("dead", 4, receiver="fail_always")
        assert len(shop.notes("fail_once")) == len(shop.notes("fail_always")) == 8
        shop.wait_for("succeeded", receiver="remind")
        assert not shop.notes("unpublished")


def end_sessions(shop: Shop) -> None:
    """What an administrator, a failover or a firewall does."""
    with psycopg.connect(shop.env["SHOP_DATABASE_URL"], autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid()"
        )


@pytest.mark.parametrize("stack", ["redis-postgresql"], indirect=True)
@pytest.mark.parametrize("settings", [LASTING], ids=["lasting"])
class TestStaleConnections:
    @pytest.fixture(params=["session ended", "server restarted"])
    def break_connections(self, request: pytest.FixtureRequest, shop: Shop) -> Any:
        if request.param == "session ended":
            return lambda: end_sessions(shop)
        server: PostgreSQL = request.getfixturevalue("postgresql")

        def restart() -> None:
            server.restart()
            server.wait_ready()

        return restart

    def test_one_that_broke_between_deliveries_costs_no_retry(self, shop: Shop, hire: Hire, break_connections):
        hire("--concurrency=1")
        shop.open_gate()
        for number in (1, 2):
            send(shop, "querying", number=number, in_a_transaction=False)
        shop.wait_for("succeeded", 2, receiver="query_twice")
        assert len({note["session"] for note in shop.notes("query_twice finished")}) == 1, "connections do not last"
        break_connections()
        send(shop, "querying", number=3, in_a_transaction=False)
        shop.wait_for("succeeded", 3, receiver="query_twice")
        assert {note["attempt"] for note in shop.notes("query_twice started")} == {1}

    @pytest.mark.parametrize(("in_a_transaction", "attempts"), [(False, [1, 1]), (True, [1, 2])])
    def test_one_that_broke_within_a_receiver_costs_no_retry_but_in_a_transaction(
        self, shop: Shop, hire: Hire, break_connections, in_a_transaction, attempts
    ):
        """At the end of a transaction Django connects anew by itself, and what the receiver raised looks its own."""
        hire("--concurrency=1")
        send(shop, "querying", number=1, in_a_transaction=in_a_transaction)
        shop.wait_for("query_twice started")
        break_connections()
        shop.open_gate()
        [end] = shop.wait_for("succeeded", receiver="query_twice")
        assert ids(shop.notes("retry")) == {end["delivery"]}
        assert [note["attempt"] for note in shop.notes("query_twice started")] == attempts


@pytest.mark.parametrize("stack", ["redis-mariadb"], indirect=True)
@pytest.mark.parametrize("settings", [LASTING], ids=["lasting"])
class TestStaleConnectionsToMariaDB:
    """What is retried is not asserted: PyMySQL connects anew when it is asked whether it is connected."""

    @pytest.fixture
    def kill(self, shop: Shop, request: pytest.FixtureRequest) -> Callable[[int], None]:
        server: MariaDB = request.getfixturevalue("mariadb")  # there, or the stack would have been skipped
        return lambda session: server.execute(f"KILL {session}")

    def test_one_that_was_killed_between_deliveries(self, shop: Shop, hire: Hire, kill):
        hire("--concurrency=1")
        shop.open_gate()
        send(shop, "querying", number=1, in_a_transaction=False)
        [first] = shop.wait_for("query_twice finished")
        kill(first["session"])
        send(shop, "querying", number=2, in_a_transaction=False)
        [second] = shop.wait_for("query_twice finished", number=2)
        assert second["session"] != first["session"]

    @pytest.mark.parametrize("in_a_transaction", [False, True])
    def test_one_that_was_killed_within_a_receiver(self, shop: Shop, hire: Hire, kill, in_a_transaction):
        hire("--concurrency=1")
        send(shop, "querying", number=1, in_a_transaction=in_a_transaction)
        [first] = shop.wait_for("query_twice started")
        kill(first["session"])
        shop.open_gate()
        shop.wait_for("succeeded", receiver="query_twice")
        assert [note["session"] == first["session"] for note in shop.notes("query_twice started")] == [True, False]
        assert len(ids(shop.notes("retry"))) == 1


#: What is the same with both brokers.
anywhere = on_redis


@anywhere
class TestNestedSends:
    """The first attempt sends n + 1 and fails, the second sends n + 2."""

    def test_in_a_transaction_that_is_rolled_back_they_never_leave(self, shop: Shop, hire: Hire):
        hire("--concurrency=1")
        send(shop, "telling", number=10)
        shop.wait_for("succeeded", receiver="tell_in_a_transaction")
        shop.wait_for("succeeded", receiver="count")
        assert [note["number"] for note in shop.notes("count")] == [12]

    def test_in_autocommit_they_have_left_when_the_receiver_fails(self, shop: Shop, hire: Hire):
        hire("--concurrency=1")
        send(shop, "telling_at_once", number=10)
        shop.wait_for("succeeded", receiver="tell_and_fail")
        shop.wait_for("succeeded", 2, receiver="count")
        assert sorted(note["number"] for note in shop.notes("count")) == [11, 12]


@pytest.mark.parametrize(
    ("stack", "pool"),
    [*(("redis-sqlite", pool) for pool in POOLS), ("rabbitmq-sqlite", "prefork")],
    indirect=["stack"],
)
def test_a_countdown_until_the_year_3000_waits_and_the_others_go_on(shop: Shop, hire: Hire, pool):
    worker = hire(*POOLS[pool])
    send(shop, "in_the_year_3000")
    shop.wait_until(lambda: b"receivers.celebrate" in worker.logs(), "the worker has it")
    call(shop, "count", numbers=[1, 2])
    shop.wait_for("succeeded", 2, receiver="count")
    shop.wait_for("succeeded", 2, receiver="count_async")
    assert not shop.notes("celebrate")
    assert worker.status == "running"


@anywhere
class TestSoftTimeLimits:
    def test_a_soft_time_limit_raises_in_the_receiver_and_ends_in_a_retry(self, shop: Shop, hire: Hire):
        hire(*POOLS["prefork"])
        send(shop, "limited")
        [end] = shop.wait_for("succeeded", receiver="take_long")
        assert ids(shop.notes("retry")) == {end["delivery"]}
        assert [note["attempt"] for note in shop.notes("take_long was interrupted")] == [1]
        assert [note["attempt"] for note in shop.notes("take_long finished")] == [2]

    @pytest.mark.parametrize("pool", ["threads", "gevent", "solo"])
    def test_the_other_pools_have_no_soft_time_limits_and_let_it_run_to_its_end(self, shop: Shop, hire: Hire, pool):
        hire(*POOLS[pool])
        send(shop, "limited")
        shop.wait_for("succeeded", receiver="take_long")
        assert [note["attempt"] for note in shop.notes("take_long finished")] == [1]
        assert not shop.notes("take_long was interrupted")


@pytest.mark.parametrize("prefetch", ["1", "4"])
def test_one_slow_and_one_poison_delivery_delay_no_others(shop: Shop, hire: Hire, prefetch):
    hire("--concurrency=2", f"--prefetch-multiplier={prefetch}")
    send(shop, "held", number=1)
    send(shop, "stubborn")
    shop.wait_for("hold started")
    shop.wait_for("never_learn")
    call(shop, "count", numbers=list(range(10)))
    shop.wait_for("succeeded", 10, receiver="count")
    shop.wait_for("succeeded", 10, receiver="count_async")
    assert not shop.notes("hold finished")
    shop.open_gate()
    shop.wait_for("succeeded", receiver="hold")
