"""What RabbitMQ says of the messages of one channel, waited for by whoever wants to know."""

from __future__ import annotations

from typing import Any

from amqp.exceptions import MessageNacked

from ..exceptions import PublishError


class Unroutable(PublishError):
    """No queue takes what is published there."""

    def __init__(self, exchange: str, routing_key: str) -> None:
        super().__init__(
            f"The broker has no queue for the exchange {exchange!r} and the routing key {routing_key!r}, so it would "
            "drop the message. Correct the receiver's options 'queue', 'exchange' and 'routing_key' or Celery's "
            "task_routes, or name the queue in task_queues, so that it is declared."
        )
        self.exchange = exchange


class Refused(PublishError):
    """The queue that it leads to does not take a message, and others may: it is full, say, or has no leader."""


class Confirms:
    """What RabbitMQ says of the messages of one channel: that it has them, refuses them, or has no queue for them.

    It numbers what is published on a channel. py-amqp, left to itself, waits for each number before the next message.
    """

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        #: By its number, what nothing was said of yet: the message's id, exchange and routing key.
        self.open: dict[int, tuple[str, str, str]] = {}
        #: Why it does not have some messages, by their ids.
        self.refused: dict[str, Exception] = {}
        self._last = 0
        self._returned: dict[str, Exception] = {}
        for event, tell in self._tells():
            channel.events[event].add(tell)
        channel.confirm_select()

    def _tells(self) -> tuple[tuple[str, Any], ...]:
        return ("basic_ack", self._taken), ("basic_nack", self._nacked), ("basic_return", self._back)

    def leave(self) -> None:
        """Listen no more: py-amqp opens a channel again that the broker has closed, which then numbers anew."""
        for event, tell in self._tells():
            self.channel.events[event].discard(tell)

    def expect(self, key: str, exchange: str, routing_key: str) -> None:
        """Note that a message was published."""
        self._last += 1
        self.open[self._last] = (key, exchange, routing_key)

    def _upto(self, number: int, *, multiple: bool) -> list[tuple[str, str, str]]:
        numbers = [one for one in self.open if one <= number] if multiple else [number]
        return [self.open.pop(one) for one in numbers if one in self.open]

    def _taken(self, number: int, multiple: bool) -> None:
        for key, exchange, routing_key in self._upto(number, multiple=multiple):
            # What no queue takes is returned first, and then said to be taken.
            if (why := self._returned.pop(key, None)) is not None:
                self.refused[key] = _caused(Unroutable(exchange, routing_key), why)

    def _nacked(self, number: int, multiple: bool) -> None:
        for key, *_ in self._upto(number, multiple=multiple):
            self.refused[key] = _caused(
                Refused("The broker has refused the message. Its queue may be full (x-max-length)."),
                MessageNacked(),
            )

    def _back(self, error: Exception, exchange: str, routing_key: str, message: Any) -> None:
        self._returned[message.properties.get("correlation_id") or ""] = error


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error
