"""A producer that knows of what it publishes that the broker has it, and waits for that once for many messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import kombu
from amqp.exceptions import ChannelError, NotFound, RecoverableConnectionError
from kombu.transport import virtual

from .broker import is_amqp
from .confirms import Confirms
from .confirms import Refused as Refused  # noqa: PLC0414 - a part of what publishing here may raise
from .confirms import Unroutable as Unroutable  # noqa: PLC0414 - the same


class Producer(kombu.Producer):
    """Raises Unroutable for a mandatory message that no queue takes, and PublishError for one that was refused.

    RabbitMQ tells when it confirms messages, and returns what it cannot route before it confirms it. With the brokers
    that kombu makes up exchanges for, it is kombu that would drop the message.
    """

    def __init__(self, connection: kombu.Connection) -> None:
        options = connection.transport_options or {}
        self._is_amqp = is_amqp(connection)
        self._is_confirmed = self._is_amqp and bool(options.get("confirm_publish"))
        if self._is_confirmed:
            connection.transport_options = {**options, "confirm_publish": False}  # it is waited for here
        self._confirms: Confirms | None = None
        self._is_waiting = True
        #: Whether somebody asks what Celery has published, and what that was.
        self.is_asked = False
        self.last: tuple[Any, dict[str, Any]] | None = None
        super().__init__(connection, auto_declare=False)

    def revive(self, channel: Any) -> None:
        """Kombu's: go on over another channel or connection."""
        self._confirms = None
        super().revive(channel)

    @property
    def can_wait_once(self) -> bool:
        """Whether many messages in ``together`` cost less than one by one."""
        return self._is_confirmed or bool(getattr(self, "supports_batch_publish", False))  # kombu 5.7

    @contextmanager
    def together(self) -> Iterator[dict[str, Exception]]:
        """Publish the messages of a block at once, or wait for the broker's answer to them once.

        The dict has in the end, by the ids of messages, why the broker does not have them. Whatever this raises besides
        what the block does leaves uncertain which messages of the block the broker has.
        """
        refused: dict[str, Exception] = {}
        if not self._is_confirmed:
            with self.batch(max_size=_ALL):  # type: ignore[attr-defined]  # new in kombu 5.7, which the stubs do not know
                yield refused
            return
        self._is_waiting = False
        try:
            yield refused
        finally:
            self._is_waiting = True
        refused |= self._wait()

    def publish(self, body: Any, *more: Any, **how: Any) -> None:
        """Publish as kombu does; what is not mandatory may lead nowhere, as Celery's events do."""
        if self.is_asked:
            self.last = (body, dict(how))
        if not self._is_amqp and not how.get("exchange"):
            # To a queue by its name, of a broker that confirms nothing: there is nothing to look after.
            how.pop("mandatory", None)
            return super().publish(body, *more, **how)
        try:
            return self._hand_over(body, *more, **how)
        except ChannelError as error:
            # py-amqp has opened the channel again, and it numbers anew: nothing will be said of what was open.
            if self._confirms is not None:
                self._confirms.leave()
                self._confirms = None
            if isinstance(error, NotFound) and self._is_waiting:
                raise Unroutable(*_address(how)) from error
            raise

    def _hand_over(self, body: Any, *more: Any, **how: Any) -> None:
        exchange, routing_key = _address(how)
        mandatory = how.pop("mandatory", False)
        if mandatory and exchange:
            for entity in how.get("declare") or ():
                self.maybe_declare(entity)
            if not self._leads_to_a_queue(exchange, routing_key):
                raise Unroutable(exchange, routing_key)
        if not self._is_confirmed:
            return super().publish(body, *more, **how)
        channel = self.channel
        if self._confirms is None or self._confirms.channel is not channel:
            self._confirms = Confirms(channel)
        key = str(how.get("correlation_id") or "")
        super().publish(body, *more, **how, mandatory=mandatory)  # type: ignore[misc]  # popped above
        self._confirms.expect(key, exchange, routing_key)
        refused = self._wait() if self._is_waiting else {}
        if key in refused:
            raise refused[key]
        return None

    def _wait(self) -> dict[str, Exception]:
        """Wait for what RabbitMQ says of all that was published; return by id why it does not have some of it."""
        confirms = self._confirms
        if confirms is None:
            return {}
        while confirms.open:
            connection: Any = self.connection
            # kombu would make a new one, on which nothing is ever said of these.
            if not connection.connected or confirms.channel.connection is None:
                raise RecoverableConnectionError("The connection broke before the broker said what it has.")
            connection.drain_events()
        refused, confirms.refused = confirms.refused, {}
        return refused

    def _leads_to_a_queue(self, exchange: str, routing_key: str) -> bool:
        channel = self.channel
        if not isinstance(channel, virtual.Channel) or channel.deadletter_queue:
            return True
        kind = channel.typeof(exchange)
        if kind.type == "fanout":
            return True
        try:
            return bool(kind.lookup(channel.get_table(exchange), exchange, routing_key, None))
        except KeyError:  # nobody has declared the exchange
            return False


def _address(how: dict[str, Any]) -> tuple[str, str]:
    """The exchange and the routing key of a message."""
    exchange = how.get("exchange") or ""
    return getattr(exchange, "name", exchange), how.get("routing_key") or ""


#: Messages that ``together`` may hold: more than any block has.
_ALL = 1_000_000
