"""What no publisher in Python can go below: the same bytes, put into the queue by the client library alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import amqp
import redis

from .measure import Way
from .stage import Broker


class Limit:
    """Puts the messages of ``publish`` into the queue of a broker, as they lay there when it had published them."""

    def __init__(self, broker: Broker, publish: Callable[[], object], least: int, most: int | None = None) -> None:
        """``least`` and ``most``: how many messages they are."""
        self.broker, self._publish, self._least, self._most = broker, publish, least, most
        self._count = 0
        self._put: Callable[[], None] = lambda: None

    def prepare(self) -> None:
        """Have the messages made. The broker's app is the current one."""
        self._publish()
        taken = self.broker.take(self._least, self._most)
        self._count = len(taken)
        kind = _Lpush if self.broker.server == "redis" else _BasicPublish
        self._put = kind(self.broker, taken)

    def way(self) -> Way:
        """It as a way of doing the work."""
        name = "pipelined LPUSH by redis-py" if self.broker.server == "redis" else "basic_publish by py-amqp"
        if self.broker.confirm:
            name += ", confirms waited for once"
        return Way(name, self._work, after=lambda times: self.broker.expect(times * self._count), kind="limit")

    def _work(self, times: int) -> None:
        for _ in range(times):
            self._put()


class _Lpush:
    def __init__(self, broker: Broker, bodies: list[bytes]) -> None:
        self.client = redis.Redis.from_url(broker.url)
        broker.stage.at_the_end(self.client.close)
        self.queue, self.bodies = broker.app.amqp.default_queue.name, bodies

    def __call__(self) -> None:
        pipeline = self.client.pipeline(transaction=False)
        for body in self.bodies:
            pipeline.lpush(self.queue, body)
        pipeline.execute()


class _BasicPublish:
    """Where the project waits for confirms, it is waited for the last of them."""

    def __init__(self, broker: Broker, taken: list[Any]) -> None:
        parts = urlsplit(broker.url)
        self.connection = amqp.Connection(
            f"{parts.hostname}:{parts.port}", userid=parts.username, password=parts.password
        )
        self.connection.connect()
        broker.stage.at_the_end(self.connection.close)
        self.channel, self.queue = self.connection.channel(), broker.app.amqp.default_queue.name
        self.messages = [amqp.Message(one.body, **one.properties) for one in taken]
        self.published = self.confirmed = 0
        self.confirm = bool(broker.confirm)
        if self.confirm:
            self.channel.events["basic_ack"].add(self._on_ack)
            self.channel.confirm_select()

    def _on_ack(self, number: int, multiple: bool) -> None:
        self.confirmed = max(self.confirmed, number)

    def __call__(self) -> None:
        for message in self.messages:
            self.channel.basic_publish(message, exchange="", routing_key=self.queue)
        self.published += len(self.messages)
        while self.confirm and self.confirmed < self.published:
            self.connection.drain_events(timeout=5)
