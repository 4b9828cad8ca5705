"""The servers of each scenario, and how the project's processes are told of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import amqp
import psycopg
import redis

from tests.servers import MariaDB, PostgreSQL, RabbitMQ, Redis

#: Seconds until Redis gives what a worker holds to another. An hour is kombu's own; the drain would take as long.
VISIBILITY_TIMEOUT = 8

REDIS_OPTIONS = {
    "visibility_timeout": VISIBILITY_TIMEOUT,
    # Look every second for what a killed worker held.
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
    # A worker that is killed while it looks keeps the others from looking for so long; five minutes by default.
    "unacked_mutex_expire": 3,
}


@dataclass(frozen=True)
class Scenario:
    name: str
    broker: type[Redis | RabbitMQ]
    database: type[PostgreSQL | MariaDB] | None
    quorum: bool = False
    #: Whether it is about deliveries in the outbox.
    outbox: bool = False

    @property
    def title(self) -> str:
        """What its closing lines begin with."""
        return self.name.removesuffix("-outbox")

    @property
    def modes(self) -> tuple[str, ...]:
        """What its closing lines are about, one each."""
        return ("durable", "atomic", "ordered") if self.outbox else ("default",)

    @property
    def on_redis(self) -> bool:
        return self.broker is Redis

    def missing(self) -> str:
        servers = [self.broker, *([self.database] if self.database else [])]
        return "; ".join(f"{server.title}: {said}" for server in servers if (said := server.missing()))


SCENARIOS = [
    Scenario("redis", Redis, PostgreSQL),
    Scenario("rabbitmq-classic", RabbitMQ, PostgreSQL),
    Scenario("rabbitmq-quorum", RabbitMQ, MariaDB, quorum=True),
    Scenario("redis-sqlite", Redis, None),
    Scenario("redis-outbox", Redis, PostgreSQL, outbox=True),
    Scenario("rabbitmq-outbox", RabbitMQ, PostgreSQL, outbox=True),
]


class Servers:
    """The broker and the database of one run, and the environment of its processes."""

    def __init__(self, scenario: Scenario, home: Path) -> None:
        self.scenario = scenario
        self.broker: Redis | RabbitMQ
        self.broker = Redis(home, appendonly=True) if scenario.on_redis else RabbitMQ(home)
        self.database = scenario.database() if scenario.database else None
        try:
            self.broker.wait_ready()
            if self.database:
                self.database.wait_ready()
            self._create_database()
        except BaseException:
            self.remove()
            raise
        self.options: Mapping[str, Any] = REDIS_OPTIONS if scenario.on_redis else {"confirm_publish": True}
        scheme = "redis" if scenario.on_redis else "pyamqp"
        self.env = {
            "CHAOS_BROKER_URL": f"{scheme}://127.0.0.1:{self.broker.port}/",
            "CHAOS_TRANSPORT_OPTIONS": json.dumps(self.options),
            "CHAOS_QUEUE_TYPE": "quorum" if scenario.quorum else "classic",
            "CHAOS_DATABASE": json.dumps(self._django_database(home)),
        }

    @property
    def versions(self) -> str:
        return f"{self.broker.version}, {self.database.version if self.database else 'SQLite (WAL, IMMEDIATE)'}"

    def _create_database(self) -> None:
        if isinstance(self.database, PostgreSQL):
            self.database.execute("CREATE DATABASE chaos")
        elif self.database:
            self.database.execute("CREATE DATABASE chaos CHARACTER SET utf8mb4")

    def _django_database(self, home: Path) -> dict[str, Any]:
        if self.database is None:
            return {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": str(home / "chaos.sqlite3"),
                "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"},
            }
        on_postgresql = isinstance(self.database, PostgreSQL)
        return {
            "ENGINE": f"django.db.backends.{'postgresql' if on_postgresql else 'mysql'}",
            "NAME": "chaos",
            "HOST": "127.0.0.1",
            "PORT": str(self.database.port),
            "USER": "postgres" if on_postgresql else "root",
        }

    def left(self) -> int:
        """How many messages the broker has: those that wait, also for their time, and those that workers have."""
        if isinstance(self.broker, RabbitMQ):
            # In the broker's own words: AMQP does not tell what workers have.
            return sum(map(int, self.broker.ctl("list_queues", "--quiet", "--no-table-headers", "messages").split()))
        with redis.Redis(port=self.broker.port or 0) as client:
            # One list for each priority.
            waiting = sum(int(client.llen(key)) for key in client.keys("chaos*"))
            return waiting + int(client.hlen("unacked"))

    def lose_everything(self) -> None:
        """Have the broker lose all messages."""
        if self.scenario.on_redis:
            with redis.Redis(port=self.broker.port or 0) as client:
                client.flushall()
        else:
            with amqp.Connection(f"127.0.0.1:{self.broker.port}") as connection:
                connection.channel().queue_purge("chaos")

    def disconnect(self) -> None:
        """End all sessions of the database (PostgreSQL)."""
        assert isinstance(self.database, PostgreSQL)
        self.database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'chaos'")

    def unfinished(self) -> int:
        """How many rows of the outbox have not ended (PostgreSQL)."""
        assert isinstance(self.database, PostgreSQL)
        with psycopg.connect(self.database.url("chaos")) as connection:
            rows = connection.execute("SELECT count(*) FROM deferred_signals_delivery WHERE finished IS NULL")
            [[count]] = rows.fetchall()
            return int(count)

    def remove(self) -> None:
        self.broker.remove()
        if self.database:
            self.database.remove()
