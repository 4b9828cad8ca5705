"""Hand-overs to the broker that nobody waits for longer than allowed.

A publish can hang for as long as the broker likes (frozen, over its memory limit, behind a firewall that drops
packets), and no timeout of the client libraries bounds all of it. So each hand-over is done by a *lane*, a thread with
a connection of its own, and the caller waits as long as there is progress. A lane that makes none is left behind. The
connection is the lane's, so nothing of it is shared with other threads or, after a fork, with the parent process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from contextvars import Context, copy_context
from queue import SimpleQueue
from typing import Any

from celery import Celery
from django.db import connections
from kombu.exceptions import OperationalError

from ..delivery import Delivery
from ..tasks import REPRS, deliver
from .base import Failure

#: A stale connection is replaced at once and a refused one tried again; the caller's patience bounds the whole.
RETRY_POLICY = {"max_retries": 3, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.3}


class Job:
    """One hand-over: deliveries in, failures out, progress visible to whoever waits."""

    def __init__(self, deliveries: Sequence[Delivery], ancestry: dict[str, Any]) -> None:
        self.deliveries = deliveries
        self.ancestry = ancestry
        self.context: Context = copy_context()
        self.failures: list[Failure] = []
        self.done = 0
        self.abandoned = False
        self._claim = threading.Lock()
        # Held until it is finished. A lock and not an Event: one waits, once, and this is in the time of every commit.
        self._running = threading.Lock()
        self._running.acquire()

    def finish(self) -> None:
        """Let the caller go on."""
        self._running.release()

    def settle(self) -> bool:
        """Called once by either side, lane and caller: True for the one that comes first."""
        return self._claim.acquire(blocking=False)

    def wait(self, patience: float) -> bool:
        """Wait until it is finished, True, or until nothing has moved for ``patience`` seconds, False."""
        seen, since = 0, time.monotonic()
        while not self._running.acquire(timeout=patience / 4):
            if self.done != seen:
                seen, since = self.done, time.monotonic()
            elif time.monotonic() - since >= patience and self.settle():
                self.abandoned = True
                return False
        return True


class Lane:
    """A thread that publishes jobs over a broker connection of its own."""

    def __init__(self, app: Celery) -> None:
        # RabbitMQ confirms each message unless the project says otherwise: a broken connection loses them silently.
        options = {"confirm_publish": True, **app.conf.broker_transport_options}
        self.connection = app.connection_for_write(transport_options=options)
        self.producer = app.amqp.Producer(self.connection, auto_declare=False)
        # By the app and not by the shared task: Celery's current app is another in each thread.
        self.task = app.tasks[deliver.name]
        #: Whether a message's queue follows from its options; not where functions of the project choose it.
        self.static = isinstance(app.conf.task_routes or {}, Mapping)
        #: The routes whose queues are declared on the present connection, as ``Options.route``.
        self.declared: set[Any] = set()
        self._channel: Any = None
        self.jobs: SimpleQueue[Job | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._work, name="deferred_signals-publish", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        while (job := self.jobs.get()) is not None:
            # In the caller's context: instrumentation of Celery finds its trace and request there.
            job.context.run(self._publish, job)
            for connection in connections.all(initialized_only=True):
                connection.close()  # opened by a receiver of before_task_publish: nobody else would close it
            in_time = job.settle()
            job.finish()
            if not in_time:
                break
            del job
        self.connection.release()

    def _publish(self, job: Job) -> None:
        for delivery in job.deliveries:
            if job.abandoned:
                return
            try:
                self._publish_one(delivery, job.ancestry)
            except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
                job.failures.append((delivery, error))
                if isinstance(error, OperationalError) and not self.connection.connected:
                    # The broker is away: the others would fail as slowly, one after another.
                    job.failures += [(other, error) for other in job.deliveries[job.done + 1 :]]
                    job.done = len(job.deliveries)
                    return
            job.done += 1

    def _publish_one(self, delivery: Delivery, ancestry: dict[str, Any]) -> None:
        """Publish as Celery does, but look after a queue only once on a connection, which is a tenth of the work."""
        route = delivery.options.route
        if route in self.declared:
            try:
                return self._send(delivery, ancestry, declare=[], retry=False)
            except OperationalError:
                self.declared.clear()  # the connection was stale: now with all that Celery does about it
        self._send(delivery, ancestry, retry=True, retry_policy=RETRY_POLICY)
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
        self.task.apply_async(
            (delivery.payload,),
            task_id=delivery.id,
            producer=self.producer,
            shadow=delivery.receiver,
            add_to_parent=False,
            **how,
            **REPRS,
            **ancestry,
            **delivery.options.message,
        )
