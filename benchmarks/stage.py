"""What a run needs beside its own process: servers, Celery apps, tables. Each is there when it is first asked for."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from celery import Celery, current_app
from django.db import connections
from kombu import Connection

from tests.servers import PostgreSQL, RabbitMQ

from . import servers
from .measure import NotMeasured

#: The databases of this run that are PostgreSQL's.
ALIASES = ("postgresql", "full")


class Stage:
    """The servers of one run, private and gone with it."""

    def __init__(self, *, quick: bool = False) -> None:
        self.quick = quick
        #: What stands above the table of the servers that were started.
        self.versions: dict[str, str] = {}
        self._open = ExitStack()
        self._done: set[object] = set()

    def __enter__(self) -> Self:
        # Otherwise who ends a run, as timeout does, leaves its servers behind.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    def once(self, key: object, work: Callable[[], object]) -> None:
        """Do it now, unless what has this key was done before in this run."""
        if key not in self._done:
            work()
            self._done.add(key)

    def at_the_end(self, work: Callable[[], object]) -> None:
        """Do it when the run ends; the servers are there yet."""
        self._open.callback(work)

    @cached_property
    def home(self) -> Path:
        """A directory for this run."""
        return Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="deferred-signals-bench-")))

    @cached_property
    def redis(self) -> str:
        """The URL of Redis."""
        url, self.versions["Redis"] = self._open.enter_context(servers.redis(self.home))
        return url

    @cached_property
    def rabbitmq(self) -> str:
        """The URL of RabbitMQ. Raises NotMeasured."""
        if missing := RabbitMQ.missing():
            raise NotMeasured(f"there is no RabbitMQ ({missing})")
        url, self.versions["RabbitMQ"] = self._open.enter_context(servers.rabbitmq(self.home))
        return url

    @cached_property
    def postgresql(self) -> int:
        """The port of PostgreSQL, to which the aliases of this process lead by then. Raises NotMeasured."""
        if missing := PostgreSQL.missing():
            raise NotMeasured(f"there is no PostgreSQL ({missing})")
        port, self.versions["PostgreSQL"] = self._open.enter_context(servers.postgresql())
        os.environ["BENCH_POSTGRESQL_PORT"] = str(port)  # for the workers
        for alias in ALIASES:
            connections.databases[alias]["PORT"] = str(port)
            self.at_the_end(connections[alias].close)
        return port


def celery_app(url: str, *, confirm: bool | None = None) -> Celery:
    """An app as in Celery's "First steps with Django": how it is configured decides what reading its settings costs."""
    app = Celery("benchmarks", set_as_current=False)
    app.config_from_object("django.conf:settings", namespace="CELERY")
    app.conf["broker_url"] = url
    if confirm is not None:
        app.conf["broker_transport_options"] = {"confirm_publish": confirm}
    return app


class Broker:
    """The queue that everything is published to: emptied, and its messages counted, after each block.

    ``confirm``: what the project says of RabbitMQ's confirms. By default it says nothing; then tasks do not wait for
    them, and deferred deliveries do.
    """

    def __init__(self, stage: Stage, server: Literal["redis", "rabbitmq"], *, confirm: bool | None = None) -> None:
        self.stage, self.server, self.confirm = stage, server, confirm

    @cached_property
    def url(self) -> str:
        """Where it is. Raises NotMeasured."""
        url: str = getattr(self.stage, self.server)
        return url

    @cached_property
    def app(self) -> Celery:
        """The Celery app that publishes to it."""
        return celery_app(self.url, confirm=self.confirm)

    @cached_property
    def _queue(self) -> Any:
        connection: Connection = self.app.connection_for_read()
        queue = self.app.amqp.default_queue.bind(connection.default_channel)
        queue.declare()
        self.stage.at_the_end(connection.release)
        return queue

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make its app the one that tasks and deliveries are published by; the queue is empty."""
        before = current_app._get_current_object()  # noqa: SLF001 - the proxy's own way to tell
        self.app.set_default()
        self.app.set_current()
        self.empty()
        try:
            yield
        finally:
            self.empty()
            before.set_default()
            before.set_current()

    def empty(self) -> int:
        """Remove all messages; return how many there were."""
        return self._queue.purge() or 0

    def expect(self, count: int, most: int | None = None) -> None:
        """Remove so many messages, or up to ``most``; RuntimeError when others than those were published."""
        found, end = self.empty(), time.monotonic() + 5
        while found < count and time.monotonic() < end:  # publishing by hand does not wait until RabbitMQ has it
            found += self.empty()
        if not count <= found <= (most or count):
            raise RuntimeError(f"{found} messages were published where {count} should have been.")

    def take(self, count: int, most: int | None = None) -> list[Any]:
        """Take so many messages out, or up to ``most``, as they lie there: bytes of Redis, messages of py-amqp."""
        if self.server == "redis":
            client = self._queue.channel.client
            taken = client.lrange(self._queue.name, 0, -1)
            client.delete(self._queue.name)
        else:
            end, taken = time.monotonic() + 5, []
            while len(taken) < count and time.monotonic() < end:
                message = self._queue.channel.basic_get(self._queue.name, no_ack=True)
                taken += [] if message is None else [message]
        if not count <= len(taken) <= (most or count):
            raise RuntimeError(f"{len(taken)} messages were published where {count} should have been.")
        return taken
