"""Waiting once for what RabbitMQ says of many messages, with a broker in this process that says what a test wants.

``tests/integration/test_confirms.py`` has the real one.
"""

from __future__ import annotations

from typing import Any

import kombu
import pytest
from amqp.exceptions import MessageNacked, NotFound, PreconditionFailed, RecoverableConnectionError

from deferred_signals.backends.confirms import Confirms, Refused, Unroutable
from deferred_signals.backends.producer import Producer
from tests.test_breaker import Amqp, AmqpTransport


@pytest.fixture
def producer(monkeypatch: pytest.MonkeyPatch) -> Producer:
    monkeypatch.setitem(
        kombu.transport.TRANSPORT_ALIASES, "amqp-in-process", f"{AmqpTransport.__module__}:{AmqpTransport.__name__}"
    )
    for seen in (Amqp.published, Amqp.raising, Amqp.returning):
        seen.clear()
    connection = kombu.Connection("amqp-in-process://", transport_options={"confirm_publish": True})
    return Producer(connection)


def publish(producer: Producer, key: str, **how: Any) -> None:
    producer.publish(b"", exchange="", routing_key="confirmed", mandatory=True, correlation_id=key, **how)


def test_what_is_said_of_each_is_told_in_the_end(producer):
    with producer.together() as refused:
        publish(producer, "taken")
        Amqp.raising.append(MessageNacked())
        publish(producer, "refused")
        Amqp.returning.append(OSError("NO_ROUTE"))
        publish(producer, "returned")
        assert refused == {}
    assert {key: type(error) for key, error in refused.items()} == {"refused": Refused, "returned": Unroutable}


def test_a_block_without_messages_waits_for_nothing(producer):
    with producer.together() as refused:
        pass
    assert refused == {}


def test_one_word_may_be_for_many(producer):
    channel = producer.channel
    confirms = Confirms(channel)
    for key in "abcd":
        confirms.expect(key, "", "")
    confirms._taken(2, multiple=True)
    assert [key for key, *_ in confirms.open.values()] == ["c", "d"]
    confirms._nacked(3, multiple=False)
    confirms._taken(3, multiple=False)  # said already
    assert [*confirms.refused] == ["c"]
    confirms._nacked(9, multiple=True)
    assert [*confirms.refused] == ["c", "d"]
    assert not confirms.open


def test_a_channel_that_is_closed_in_a_block_leaves_all_of_it_uncertain(producer):
    with pytest.raises(NotFound):
        with producer.together():
            publish(producer, "before")
            Amqp.raising.append(NotFound("no exchange"))
            publish(producer, "nowhere")


@pytest.mark.parametrize("error", [NotFound("no exchange"), PreconditionFailed("declared otherwise")], ids=str)
def test_after_a_channel_that_was_closed_it_numbers_anew(producer, error):
    publish(producer, "before")
    Amqp.raising.append(error)
    with pytest.raises(Unroutable if isinstance(error, NotFound) else PreconditionFailed):
        publish(producer, "nowhere")
    for key in ("after", "and again"):
        publish(producer, key)
    assert producer._confirms
    assert producer._confirms._last == 2
    # Nobody listens any more who would take what is said for what was said before.
    assert {len(tells) for tells in producer.channel.events.values()} == {1}


def test_one_that_is_closed_by_a_declaration_is_as_closed(producer, monkeypatch):
    def declare(entity: Any) -> None:
        raise PreconditionFailed("declared otherwise")

    monkeypatch.setattr(producer, "maybe_declare", declare)
    with pytest.raises(PreconditionFailed):
        producer.publish(b"", exchange="news", routing_key="x", mandatory=True, declare=["queue"])


@pytest.mark.parametrize("gone", ["connection", "channel"])
def test_nobody_waits_for_a_connection_that_is_gone(producer, gone, monkeypatch):
    with pytest.raises(RecoverableConnectionError):
        with producer.together():
            publish(producer, "one")
            if gone == "connection":
                monkeypatch.setattr(kombu.Connection, "connected", False)
            else:
                monkeypatch.setattr(producer.channel, "connection", None)
