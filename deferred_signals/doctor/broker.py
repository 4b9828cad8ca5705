"""The broker: whether it answers, takes messages, and what waits in its queues. Nothing here can hang."""

from __future__ import annotations

import time
import uuid
from typing import Any, NamedTuple
from urllib.parse import quote

from celery import Celery
from kombu import Connection, Exchange, Producer, Queue

from ..celery_project import RABBITMQ, transport
from .findings import Section
from .patience import NoAnswer, within

#: Seconds after which the broker deletes the queue of a doctor that was killed.
_QUEUE_EXPIRES = 60


class Depth(NamedTuple):
    """Of a queue. ``consumers`` is None where the broker does not count them; ``exists`` False where it has no such."""

    messages: int
    consumers: int | None
    exists: bool = True


class Broker:
    """One connection, and the patience for each question to it, in seconds."""

    def __init__(self, app: Celery, patience: float) -> None:
        self.app = app
        self.patience = patience
        self.connection: Connection | None = None

    @property
    def is_rabbitmq(self) -> bool:
        """Whether queues and consumers are its own, and it can tell about them."""
        return transport(self.app) in RABBITMQ

    def examine(self) -> Section:
        """Connect, and publish a message to a queue of our own. ``connection`` is None unless both succeeded."""
        section = Section("Broker")
        try:
            # RabbitMQ's answer to a message is the point of sending one.
            options = {**(self.app.conf.broker_transport_options or {}), "confirm_publish": True}
            made = self.app.connection_for_write(transport_options=options)
            section.add("ok", f"The transport is {_driver(made.transport)}.")
        except (ImportError, AttributeError) as error:  # the latter is how kombu 5.7 misses the client of Redis
            section.add(
                "problem",
                f"The library of the transport {transport(self.app)!r} is missing: {error}",
                'Install it: pip install "celery[redis]" for Redis.',
            )
            return section
        except Exception as error:  # noqa: BLE001 - whatever kombu makes of it; its text may hold a part of the password
            section.add(
                "problem",
                f"CELERY_BROKER_URL cannot be read, as one of the transport {transport(self.app)!r}: "
                f"{type(error).__name__}.",
                "It is transport://user:password@host:port/..., with percent signs (%2F) for what is special in a "
                "password.",
            )
            return section
        where = _where(made)
        try:
            begun = time.monotonic()
            within(self.patience, lambda: made.ensure_connection(max_retries=1, interval_start=0, interval_step=0))
            section.add("ok", f"{where} answers ({_milliseconds(begun)}).")
        except NoAnswer as error:
            section.add(
                "problem",
                f"{where} does not answer: {error}.",
                "It is frozen, or something on the way drops packets. A broker that is far away may need a longer "
                "--timeout.",
            )
            return section
        except Exception as error:  # noqa: BLE001 - each client library has its own
            section.add(
                "problem",
                f"{where} cannot be reached: {_said(error, made)}",
                "Is it running there, and are host, user, password and virtual host of CELERY_BROKER_URL right?",
            )
            return section
        self._try(section, made, where)
        return section

    def _try(self, section: Section, made: Connection, where: str) -> None:
        try:
            begun = time.monotonic()
            within(self.patience, lambda: _round_trip(made))
        except NoAnswer as error:
            section.add(
                "problem",
                f"{where} takes connections but no messages: {error}.",
                "RabbitMQ does so when memory or disk run out: rabbitmq-diagnostics alarms.",
            )
            return
        except Exception as error:  # noqa: BLE001 - as above
            if getattr(error, "code", None) == 403:  # noqa: PLR2004 - AMQP's ACCESS_REFUSED
                section.add("note", "A message was not tried: the user may not declare a queue for it.")
                self.connection = made
                return
            section.add(
                "problem",
                f"{where} does not take messages: {_said(error, made)}",
                "The broker's own log says more. Redis: is its memory full (maxmemory), is it a replica?",
            )
            return
        section.add("ok", f"A message was published, came back and is gone ({_milliseconds(begun)}).")
        self.connection = made

    def depth(self, connection: Connection, queue: str) -> Depth:
        """What waits in a queue. Raises NoAnswer, and what the client library raises."""
        return within(self.patience, lambda: self._depth(connection, queue))

    def _depth(self, connection: Connection, queue: str) -> Depth:
        try:
            # A channel of its own: RabbitMQ closes it when there is no such queue.
            with connection.channel() as opened:
                channel: Any = opened
                found = channel.queue_declare(queue=queue, passive=True)
        except connection.channel_errors as error:
            if "NOT_FOUND" not in str(error):
                raise
            # A list of Redis that is empty is not there.
            return Depth(0, 0 if self.is_rabbitmq else None, exists=not self.is_rabbitmq)
        return Depth(found.message_count, found.consumer_count if self.is_rabbitmq else None)


def _round_trip(connection: Connection) -> None:
    name = f"deferred_signals.doctor.{uuid.uuid4().hex}"
    with connection.channel() as channel:
        # By the default exchange, so nothing is bound and nothing is left.
        queue = Queue(
            name, Exchange(""), channel=channel, durable=False, exclusive=True, auto_delete=True, expires=_QUEUE_EXPIRES
        )
        queue.declare()
        try:
            Producer(channel).publish({}, exchange="", routing_key=name, serializer="json", delivery_mode=1)
            if queue.get(no_ack=True, accept=["json"]) is None:
                raise RuntimeError("a message that was published did not arrive in its queue")
        finally:
            queue.delete()


def _milliseconds(begun: float) -> str:
    return f"{(time.monotonic() - begun) * 1000:.0f} ms"


def _where(connection: Connection) -> str:
    """Its address, without the user and the password."""
    known: dict[str, Any] = connection.info()
    host = str(known.get("hostname") or "localhost")
    scheme = str(known.get("uri_prefix") or known.get("transport"))
    if "://" in host:  # transports that read the url themselves: who knows what stands in it
        return f"{scheme}://"
    port = f":{known['port']}" if known.get("port") else ""
    return f"{scheme}://{host}{port}/{str(known.get('virtual_host') or '').lstrip('/')}"


def _said(error: Exception, connection: Connection) -> str:
    text = f"{type(error).__name__}: {error}"
    password = connection.password
    for secret in (password, quote(password, safe="")) if isinstance(password, str) and password else ():
        text = text.replace(secret, "**")
    return text


def _driver(transport: Any) -> str:
    """The library of a transport, and its version, which kombu's own transports do not have."""
    version = transport.driver_version()
    return f"{transport.driver_name}{f' {version}' if version != 'N/A' else ''}"
