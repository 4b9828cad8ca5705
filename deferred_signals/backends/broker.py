"""Connections to the broker whose waits end, and a producer that tells when a message has reached no queue."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import kombu
from amqp.exceptions import MessageNacked, NotFound
from celery import Celery
from kombu.transport import virtual

from ..exceptions import PublishError

#: How a connection is looked for: a refused one is tried again, for about half a second.
RETRIES: dict[str, Any] = {"max_retries": 3, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.3}


class Unroutable(PublishError):
    """No queue takes what is published there."""

    def __init__(self, exchange: str, routing_key: str) -> None:
        super().__init__(
            f"The broker has no queue for the exchange {exchange!r} and the routing key {routing_key!r}, so it would "
            "drop the message. Correct the receiver's options 'queue', 'exchange' and 'routing_key' or Celery's "
            "task_routes, or name the queue in task_queues, so that it is declared."
        )
        self.exchange = exchange


#: By app, of its several brokers the one that has answered last.
_answered: WeakKeyDictionary[Celery, str] = WeakKeyDictionary()


def connect(app: Celery, timeout: float, *, firm: bool = False) -> kombu.Connection:
    """A connection of its own, not yet made. What waits for the broker longer than ``timeout`` seconds at once breaks.

    What the project's ``broker_transport_options`` say themselves is left alone, unless this is to be ``firm``.
    """
    limit: dict[str, Any] = (
        {"connect_timeout": min(timeout, app.conf.broker_connection_timeout or timeout)} if firm else {}
    )
    connection = app.connection_for_write(**limit)
    options: dict[str, Any] = {}
    if connection.transport.driver_type == "redis":
        options = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    elif is_amqp(connection):
        # Confirmed: otherwise a broken connection loses messages silently.
        options = {"read_timeout": timeout, "write_timeout": timeout, "confirm_publish": True}
    own = connection.transport_options or {}
    connection.transport_options = {**own, **options} if firm else {**options, **own}
    return connection


def begin_with_one_that_answers(app: Celery, connection: kombu.Connection) -> str:
    """Of several brokers not with one that hangs: who publishes would be gone before it is the next one's turn.

    Return the URL of the one that is begun with.
    """
    url = _answered.get(app, "")
    if url not in connection.alt:
        return next(iter(connection.alt), "")
    connection.switch(url)
    return url


def find(app: Celery, connection: kombu.Connection) -> None:
    """Make the connection; of several brokers, remember which one answered. Raises what kombu raises."""
    tried = [begin_with_one_that_answers(app, connection)]
    cycle = connection.cycle
    if cycle is not None:
        connection.cycle = (tried.append(url) or url for url in cycle)  # type: ignore[func-returns-value]
    connection.ensure_connection(**RETRIES | {"max_retries": len(connection.alt)})
    _answered[app] = tried[-1]


def is_amqp(connection: kombu.Connection) -> bool:
    """Whether it leads to RabbitMQ or its like, by the client that confirms and returns messages."""
    driver: str = connection.transport.driver_name
    return driver == "py-amqp"


class Producer(kombu.Producer):
    """Raises Unroutable for a mandatory message that no queue takes, and PublishError for one that was refused.

    RabbitMQ tells when it confirms messages, and returns what it cannot route before it confirms it. With the brokers
    that kombu makes up exchanges for, it is kombu that would drop the message.
    """

    def __init__(self, connection: kombu.Connection) -> None:
        self._returned: Exception | None = None
        self._is_told = is_amqp(connection) and bool((connection.transport_options or {}).get("confirm_publish"))
        super().__init__(connection, auto_declare=False, on_return=self._note if self._is_told else None)

    def _note(self, error: Exception, exchange: Any, routing_key: str, message: Any) -> None:
        self._returned = error

    def publish(self, body: Any, *more: Any, **how: Any) -> None:
        """Publish as kombu does; what is not mandatory may lead nowhere, as Celery's events do."""
        if not how.pop("mandatory", False):
            return super().publish(body, *more, **how)
        name, routing_key = getattr(how["exchange"], "name", how["exchange"]) or "", how["routing_key"]
        for entity in how.get("declare") or ():
            self.maybe_declare(entity)
        if not self._leads_to_a_queue(name, routing_key):
            raise Unroutable(name, routing_key)
        self._returned = None
        try:
            super().publish(body, *more, **how, mandatory=self._is_told)  # type: ignore[misc]  # popped above
        except NotFound as error:
            raise Unroutable(name, routing_key) from error
        except MessageNacked as error:
            raise PublishError("The broker has refused the message. Its queue may be full (x-max-length).") from error
        if self._returned is not None:
            raise Unroutable(name, routing_key) from self._returned
        return None

    def _leads_to_a_queue(self, exchange: str, routing_key: str) -> bool:
        channel = self.channel
        if not exchange or not isinstance(channel, virtual.Channel) or channel.deadletter_queue:
            return True
        kind = channel.typeof(exchange)
        if kind.type == "fanout":
            return True
        try:
            return bool(kind.lookup(channel.get_table(exchange), exchange, routing_key, None))
        except KeyError:  # nobody has declared the exchange
            return False
