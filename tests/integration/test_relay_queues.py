"""The relay, a real broker, and a queue that takes nothing: it keeps nobody else waiting, whatever is wrong with it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest
import redis as redis_client
from celery import Celery
from celery.app import app_or_default
from django.db import transaction
from kombu import Queue

from deferred_signals import Signal, backends, keeping
from deferred_signals.backends.celery import CeleryBackend
from deferred_signals.outbox import relay
from deferred_signals.outbox.backend import DatabaseOutbox
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.models import OutboxDelivery
from deferred_signals.outbox.relay import Relay
from tests.receivers import first, second
from tests.servers import RabbitMQ, Redis

from .conftest import covered, need

pytestmark = pytest.mark.django_db(transaction=True)

parcel_sent: Any = Signal(name="relay_queues.parcel_sent")
#: On the queue that takes nothing, each with a doorbell of its own.
MANY = 120


class Stand:
    """A relay in this process, a broker, a queue ``bad`` and a queue ``good``."""

    def __init__(self, url: str, settings: Any, memory: Any) -> None:
        self.url, self.settings, self.memory = url, settings, memory
        name = uuid.uuid4().hex[:8]
        self.bad, self.good = f"bad-{name}", f"good-{name}"
        self.app = Celery(name, broker=url, set_as_current=False)
        self.relay = Relay("default")

    def declare(self, **arguments: Any) -> None:
        self.app.conf.task_queues = [
            Queue(self.bad, routing_key=self.bad, queue_arguments=arguments),
            Queue(self.good, routing_key=self.good),
        ]

    def make(self, bad: int, good: int) -> None:
        """Durable deliveries that are due, those on ``bad`` first."""
        self.settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "OUTSIDE_TRANSACTION": "ignore"}
        OutboxDelivery.objects.all().delete()
        for function, count, seconds in ((first, bad, -60), (second, good, -30)):
            with transaction.atomic():
                for _ in range(count):
                    parcel_sent.send(function)
            rows = OutboxDelivery.objects.filter(receiver=f"tests.receivers.{function.__name__}")
            rows.update(ring_at=DatabaseNow(seconds))
        self.settings.DEFERRED_SIGNALS = {"BACKEND": "celery"}

    def rings(self, function: Any) -> set[int]:
        rows = OutboxDelivery.objects.filter(receiver=f"tests.receivers.{function.__name__}")
        return set(rows.values_list("rings", flat=True))

    def turns(self) -> list[float]:
        """What the relay's turns come to, until it has nothing to do."""
        found: list[float] = []
        while not found or found[-1] == 0:
            assert len(found) < 10
            found.append(self.relay.turn())
        return found

    def messages(self, queue: str) -> int:
        with kombu.Connection(self.url) as connection:
            found = kombu.Queue(queue, channel=connection.default_channel)
            return len(list(iter(lambda: found.get(no_ack=True), None)))

    def holds(self) -> None:
        """The others have been rung for, at once; those on the bad queue are rung for ever more seldom."""
        self.make(MANY, 3)
        began = time.monotonic()
        assert self.turns()[-1] != relay.REFUSED_PAUSE
        assert time.monotonic() - began < 20  # half a second each would be a minute
        assert not self.relay._refused
        assert (self.rings(first), self.rings(second)) == ({1}, {1})
        assert self.messages(self.good) >= 1


@pytest.fixture
def stand(link: Any, settings: Any, memory: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Stand]]:
    monkeypatch.setattr(keeping, "_outbox", DatabaseOutbox())
    before = app_or_default()
    made: list[Stand] = []

    def make(url: str) -> Stand:
        made.append(one := Stand(url, settings, memory))
        one.app.set_current()
        link(parcel_sent, first, first, durable=True, queue=one.bad, time_limit=10)
        link(parcel_sent, second, second, durable=True, queue=one.good)
        return one

    yield make
    before.set_current()
    for one in made:
        one.relay.stop()
    settings.DEFERRED_SIGNALS = {"BACKEND": "celery"}
    backend = backends.current()
    assert isinstance(backend, CeleryBackend)
    for broker in backend._brokers.values():
        broker.breaker.close()
        for lane in broker.free:
            backend._retire(lane)
    backend._brokers.clear()


class TestRabbitMQ:
    @pytest.fixture
    def rabbit(self, request: pytest.FixtureRequest) -> RabbitMQ:
        need(request, RabbitMQ)
        server = request.getfixturevalue("rabbitmq")._container
        assert isinstance(server, RabbitMQ)
        if server.status == "exited":
            server.start()
            server.wait_ready()
        covered(request, RabbitMQ.title, server.version)
        return server

    @pytest.fixture
    def here(self, rabbit: RabbitMQ, stand: Callable[[str], Stand]) -> Stand:
        return stand(f"pyamqp://127.0.0.1:{rabbit.port}/")

    def test_a_queue_that_is_full_keeps_nobody_else_waiting(self, here: Stand):
        here.declare(**{"x-max-length": 1, "x-overflow": "reject-publish"})
        here.holds()
        assert here.messages(here.bad) == 1
        here.make(1, 0)
        assert here.turns()[0] == 0
        assert here.messages(here.bad) == 1  # it takes something again

    def test_a_queue_that_is_another_one_at_the_broker_keeps_nobody_else_waiting(self, here: Stand):
        with kombu.Connection(here.url) as connection:
            Queue(here.bad, durable=False, channel=connection.default_channel).declare()
        here.declare()
        here.holds()

    def test_a_quorum_queue_that_loses_its_leader_keeps_nobody_else_waiting(self, rabbit: RabbitMQ, here: Stand):
        """On a channel that has used it, its confirms are late for ever; on a new one it refuses."""
        here.declare(**{"x-queue-type": "quorum"})
        here.make(1, 0)
        assert here.turns()[0] == 0
        member = f'{{list_to_atom("%2F_{here.bad}"), node()}}'
        rabbit.ctl("eval", f"ra:stop_server(quorum_queues, {member}).")
        here.holds()
        rabbit.ctl("eval", f"ra:restart_server(quorum_queues, {member}).")


class TestRedis:
    @pytest.fixture
    def server(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Redis]:
        need(request, Redis)
        server = Redis(tmp_path).wait_ready()
        covered(request, Redis.title, server.version)
        yield server
        server.remove()

    @pytest.fixture
    def here(self, server: Redis, stand: Callable[[str], Stand]) -> Stand:
        return stand(f"redis://127.0.0.1:{server.port}/0")

    def test_a_list_that_is_none_keeps_nobody_else_waiting(self, server: Redis, here: Stand):
        here.declare()
        with redis_client.Redis(port=server.port or 0) as client:
            client.set(here.bad, "not a list")
            here.holds()

    def test_one_that_is_out_of_memory_is_a_broker_that_is_away(self, server: Redis, here: Stand):
        here.declare()
        here.make(5, 3)
        with redis_client.Redis(port=server.port or 0) as client:
            client.config_set("maxmemory", "1")
            assert here.turns() == [relay.REFUSED_PAUSE]
            assert (here.rings(first), here.rings(second)) == ({0}, {0})
            client.config_set("maxmemory", "0")
        assert here.turns()[-1] > 0
        assert (here.rings(first), here.rings(second)) == ({1}, {1})
