"""Hand-overs to the broker that nobody waits for longer than allowed.

A publish can hang for as long as the broker likes (frozen, over its memory limit, behind a firewall that drops
packets), and no timeout of the client libraries bounds all of it. So each hand-over is done by a *lane*, a thread with
a connection of its own, and the caller waits as long as there is progress. A lane that makes none is left behind. The
connection is the lane's, so nothing of it is shared with other threads or, after a fork, with the parent process.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import nullcontext
from queue import SimpleQueue
from typing import Any, cast

from celery import Celery
from django.db import connections
from kombu.exceptions import OperationalError

from ..delivery import Delivery
from ..tasks import REPRS, deliver
from .broker import RETRIES, Producer, Unroutable, begin_with_one_that_answers, connect
from .flush import Flush

#: Connections that may break under one message, before it is the message's fault.
CONNECTIONS = 3
#: Messages of one flush that may break them, before it is the broker's fault.
STRIKES = 2
#: Seconds until a lane that was left behind gives up itself: so many times the caller's patience, and at least.
TIMES, AT_LEAST = 2.0, 5.0


class NoConnection(Exception):
    """The broker cannot be had at all, so the deliveries that follow would fail alike; ``__cause__`` says why."""


class Lane:
    """A thread that publishes flushes over a broker connection of its own."""

    def __init__(self, app: Celery, patience: float) -> None:
        self.app = app
        self.connection = connect(app, max(TIMES * patience, AT_LEAST))
        self.producer = Producer(self.connection)
        # By the app and not by the shared task: Celery's current app is another in each thread.
        self.task = app.tasks[deliver.name]
        #: Whether a message's queue follows from its options; not where functions of the project choose it.
        self.static = isinstance(app.conf.task_routes or {}, Mapping)
        #: The routes whose queues are declared on the present connection, as ``Options.route``.
        self.declared: set[Any] = set()
        self._channel: Any = None
        self.flushes: SimpleQueue[Flush | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._work, name="deferred_signals-publish", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        while (flush := self.flushes.get()) is not None:
            # In the caller's context: instrumentation of Celery finds its trace and request there.
            flush.context.run(self._publish, flush)
            for connection in connections.all(initialized_only=True):
                connection.close()  # opened by a receiver of before_task_publish: nobody else would close it
            in_time = flush.settle()
            flush.finish()
            if not in_time:
                self.connection.collect()  # to close it politely takes an answer
                return
            if flush.failures:
                self._begin_anew()  # it may have ended at a server that is no longer the right one
            del flush
        self.connection.release()

    def _publish(self, flush: Flush) -> None:
        for delivery in flush.deliveries:
            if flush.abandoned:
                return
            try:
                self._publish_one(delivery, flush)
            except NoConnection as gone:
                flush.away = error = cast("Exception", gone.__cause__)
                flush.failures += [(other, error) for other in flush.deliveries[flush.done :]]
                flush.done = len(flush.deliveries)
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
                flush.failures.append((delivery, error))
            flush.done += 1

    def _publish_one(self, delivery: Delivery, flush: Flush) -> None:
        """Publish, if need be over a new connection: the old one may be stale, its declarations out of date."""
        broken = 0
        while True:
            self._connect(flush)
            try:
                return self._send_declared(delivery, flush.ancestry)
            except Unroutable as error:
                route = delivery.options.route
                if route in flush.renewed:
                    raise
                flush.renewed.add(route)
                self._begin_anew()
                self._connect(flush)
                self._declare_queues_of(error.exchange)
            except OperationalError as error:
                if isinstance(error.__cause__, self.connection.channel_errors):
                    raise  # an answer: Redis is out of memory, or a replica
                self._begin_anew()
                broken += 1
                if broken < CONNECTIONS and not flush.abandoned:
                    continue
                flush.strikes += 1
                if flush.strikes >= STRIKES or flush.abandoned:
                    raise NoConnection from error
                self._connect(flush)
                raise

    def _connect(self, flush: Flush) -> None:
        if self.connection.connected:
            return

        def give_up(error: Exception, pause: float) -> None:
            if flush.abandoned:
                raise error

        begin_with_one_that_answers(self.app, self.connection)
        try:
            self.connection.ensure_connection(errback=give_up, **RETRIES)
        except Exception as error:
            raise NoConnection from error

    def _begin_anew(self) -> None:
        """Drop the connection, and with it what it knows to be declared."""
        self.connection.collect()
        self.producer.revive(self.connection)  # type: ignore[arg-type]  # a connection is right, says its code
        self.declared.clear()

    def _declare_queues_of(self, exchange: str) -> None:
        """Declare the project's queues there: for a message that names no queue Celery declares none."""
        for queue in self.app.amqp.queues.values():
            if exchange and queue.exchange.name == exchange:
                self.producer.maybe_declare(queue)

    def _send_declared(self, delivery: Delivery, ancestry: dict[str, Any]) -> None:
        """Publish as Celery does, but look after a queue only once on a connection, which is a tenth of the work."""
        route = delivery.options.route
        if route in self.declared:
            return self._send(delivery, ancestry, declare=[])
        self._send(delivery, ancestry)
        self._keep_client()
        if self.static:
            self.declared.add(route)
        return None

    def _keep_client(self) -> None:
        """Let kombu's Redis transport use one client for all messages: to make one is a fifth of each message's time.

        It is only a view of the channel's connection pool. Other transports have no ``conn_or_acquire``.
        """
        channel: Any = self.producer.channel
        if channel is self._channel:
            return
        self._channel = channel
        acquire = getattr(channel, "conn_or_acquire", None)
        if acquire is not None:
            with acquire() as client:
                channel.conn_or_acquire = lambda given=None: nullcontext(given or client)

    def _send(self, delivery: Delivery, ancestry: dict[str, Any], **how: Any) -> None:
        self.task.apply_async(  # type: ignore[call-arg]  # what Celery does not know it gives to the producer
            (delivery.payload,),
            task_id=delivery.id,
            producer=self.producer,
            shadow=delivery.receiver,
            add_to_parent=False,
            retry=False,
            mandatory=True,
            **how,
            **REPRS,
            **ancestry,
            **delivery.options.message,
        )
