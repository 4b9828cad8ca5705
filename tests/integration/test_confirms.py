"""On RabbitMQ a flush waits once until the broker has all of it, and nothing is told as published that it has not."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable
from typing import Any

import kombu
import pytest
from celery import Celery
from django.db import transaction
from kombu import Exchange, Queue

from deferred_signals import Signal
from deferred_signals.backends.celery import CeleryBackend
from deferred_signals.backends.producer import Producer
from tests.receivers import curious, first, second
from tests.servers import RabbitMQ

from .conftest import covered, need
from .local_nodes import LocalRabbitMQ

bell: Any = Signal()

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def server(request: pytest.FixtureRequest) -> RabbitMQ:
    need(request, RabbitMQ)
    node: LocalRabbitMQ = request.getfixturevalue("rabbitmq")
    server = node._container
    assert isinstance(server, RabbitMQ)
    if server.status == "exited":  # a test has killed it
        server.start()
        server.wait_ready()
    covered(request, RabbitMQ.title, server.version)
    return server


@pytest.fixture
def app(server: RabbitMQ, publishes_by: Callable[[Celery], CeleryBackend]) -> Celery:
    app = Celery("project", broker=f"pyamqp://127.0.0.1:{server.port}//", set_as_current=False)
    app.conf.update(task_default_queue=f"confirms-{uuid.uuid4().hex[:8]}")
    publishes_by(app)
    return app


def ring(count: int) -> list[str]:
    """Send so often in one transaction; the ids."""
    with transaction.atomic():
        return [response.id for _ in range(count) for _, response in bell.send(sender=None)]


def messages(app: Celery, name: str = "") -> list[str]:
    """The ids of what stands in a queue, taken out."""
    with app.connection_for_read() as connection:
        # Passive: with the arguments that it has.
        queue = Queue(name or app.conf.task_default_queue, channel=connection.default_channel, no_declare=True)
        return [message.headers["id"] for message in iter(lambda: queue.get(no_ack=True), None)]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages were waited for at once, each time."""
    found: list[int] = []
    wait = Producer._wait

    def spied(self: Producer) -> Any:
        found.append(len(self._confirms.open) if self._confirms else 0)
        return wait(self)

    monkeypatch.setattr(Producer, "_wait", spied)
    return found


def test_a_flush_waits_once_for_all_of_its_messages(app, link, heard, waits):
    link(bell, first)
    ring(1)
    waits.clear()
    ids = ring(50)
    assert len(waits) == 1
    assert messages(app)[1:] == heard["published"][1:] == ids
    assert not heard["unpublished"]


def test_the_first_flush_of_a_connection_waits_once_too(app, link, heard, waits):
    link(bell, first)
    link(bell, second, queue=f"{app.conf.task_default_queue}-b")
    ids = ring(10)
    assert len(waits) == 1
    assert messages(app) == ids[::2]
    assert messages(app, f"{app.conf.task_default_queue}-b") == ids[1::2]
    assert heard["published"] == ids


def test_one_message_by_itself_is_waited_for_too(app, link, heard, waits):
    link(bell, first)
    ids = ring(1)
    assert len(waits) == 1
    assert messages(app) == heard["published"] == ids


def test_a_project_that_wants_no_confirms_gets_none(app, link, heard, waits):
    app.conf.broker_transport_options = {"confirm_publish": False}
    link(bell, first)
    ids = ring(5)
    assert heard["published"] == ids
    assert not waits


def test_what_a_full_queue_refuses_is_told_and_the_rest_is_there(app, link, heard):
    name = app.conf.task_default_queue
    full = Queue(name, queue_arguments={"x-max-length": 3, "x-overflow": "reject-publish"})
    app.conf.task_queues = [full, Queue(f"{name}-b")]
    link(bell, first)
    link(bell, second, queue=f"{name}-b")
    ids = ring(6)
    assert set(messages(app, f"{name}-b")) == set(ids[1::2])
    there = messages(app)
    assert len(there) == 3
    assert set(heard["published"]) == {*there, *ids[1::2]}
    assert set(heard["unpublished"]) == set(ids[::2]) - set(there)
    assert all("refused the message" in str(error) for error in heard["errors"])


def test_what_leads_to_no_queue_is_told_and_the_rest_is_there(app, link, heard):
    name = app.conf.task_default_queue
    with app.connection_for_write() as connection:
        Exchange(f"{name}-lonely", "direct", channel=connection.default_channel).declare()
    link(bell, first)
    link(bell, curious, exchange=f"{name}-lonely", routing_key="nowhere")
    ids = ring(3)
    assert sorted(heard["unpublished"]) == sorted(ids[1::2])
    assert all("no queue for the exchange" in str(error) for error in heard["errors"])
    assert set(messages(app)) == set(heard["published"]) == set(ids[::2])


def test_an_exchange_that_is_not_there_closes_the_channel_and_costs_only_its_own(app, link, heard):
    link(bell, first)
    link(bell, curious, exchange=f"nowhere-{uuid.uuid4().hex}", routing_key="nowhere")
    ids = ring(3)
    assert sorted(heard["unpublished"]) == sorted(ids[1::2])
    assert set(messages(app)) == set(heard["published"]) == set(ids[::2])


def test_a_queue_that_is_declared_otherwise_closes_the_channel_and_costs_only_its_own(app, link, heard):
    name = app.conf.task_default_queue
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        Queue(f"{name}-b", channel=channel, queue_arguments={"x-max-length": 1000}).declare()
    link(bell, first)
    link(bell, curious, queue=f"{name}-b")
    ids = ring(3)
    assert sorted(heard["unpublished"]) == sorted(ids[1::2])
    assert all("PRECONDITION_FAILED" in str(error) for error in heard["errors"])
    assert set(messages(app)) == set(heard["published"]) == set(ids[::2])


@pytest.fixture
def at_the_fifth(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], None]], None]:
    """Do something once, when the fifth message has been published."""

    def arm(act: Callable[[Any], None]) -> None:
        publish = kombu.Producer.publish
        count: list[int] = []

        def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
            made = publish(self, *args, **kwargs)
            count.append(1)
            if len(count) == 5:
                act(self)
            return made

        monkeypatch.setattr(kombu.Producer, "publish", counted)

    return arm


def all_are_there(app: Celery, heard: dict[str, list[Any]], ids: list[str]) -> None:
    there = messages(app)
    assert heard["published"] == ids
    assert not heard["unpublished"]
    assert set(there) == set(ids)


def test_a_connection_that_breaks_in_the_midst_costs_nothing(app, link, heard, at_the_fifth):
    def breaks(producer: Any) -> None:
        producer.channel.connection.transport.sock.shutdown(socket.SHUT_RDWR)

    link(bell, first)
    at_the_fifth(breaks)
    all_are_there(app, heard, ring(20))


def test_a_connection_that_the_broker_closes_in_the_midst_costs_nothing(app, server, link, heard, at_the_fifth):
    link(bell, first)
    at_the_fifth(lambda producer: server.ctl("close_all_connections", "the test") and None)
    all_are_there(app, heard, ring(20))


def test_a_channel_that_is_closed_in_the_midst_costs_nothing(app, link, heard, at_the_fifth):
    link(bell, first)
    at_the_fifth(lambda producer: producer.channel.close())
    all_are_there(app, heard, ring(20))


def test_after_a_broken_flush_the_next_is_whole(app, link, heard, at_the_fifth):
    def breaks(producer: Any) -> None:
        producer.channel.connection.transport.sock.shutdown(socket.SHUT_RDWR)

    link(bell, first)
    at_the_fifth(breaks)
    ring(20)
    messages(app)
    heard["published"].clear()
    all_are_there(app, heard, ring(20))


def test_what_is_published_while_the_broker_is_stopped_is_told_as_lost(
    app, server, link, heard, settings, at_the_fifth
):
    settings.DEFERRED_SIGNALS = {"PUBLISH_TIMEOUT": 1}
    link(bell, first)
    ring(1)
    messages(app)
    heard["published"].clear()
    server.kill("SIGSTOP")
    try:
        ids = ring(10)
    finally:
        server.kill("SIGCONT")
    assert heard["unpublished"] == ids
    assert not heard["published"]
