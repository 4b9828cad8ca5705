"""Connections to the broker whose waits end."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import kombu
from celery import Celery

#: How a connection is looked for: a refused one is tried again, for about half a second.
RETRIES: dict[str, Any] = {"max_retries": 3, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.3}


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
