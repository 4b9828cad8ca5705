"""Messages over one connection to the broker, each as Celery would publish it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import kombu
from celery import Celery

from ..delivery import Delivery
from ..tasks import REPRS, deliver
from .flush import Flush
from .producer import Producer
from .template import Template

#: Connections of receivers whose messages are remembered.
TEMPLATES = 1000


class Messenger:
    """Publishes messages; knows which queues are declared on its connection, and what Celery makes of a message."""

    def __init__(self, app: Celery, connection: kombu.Connection) -> None:
        self.app = app
        self.connection = connection
        self.producer = Producer(connection)
        # By the app and not by the shared task: Celery's current app is another in each thread.
        self.task = app.tasks[deliver.name]
        #: Whether a message's queue follows from its options; not where functions of the project choose it.
        self.static = isinstance(app.conf.task_routes or {}, Mapping)
        #: The routes whose queues are declared on the present connection, as ``Options.route``.
        self._declared: set[Any] = set()
        #: What Celery makes of a message with the options of one connection of a receiver, by their identity.
        self._templates: dict[int, Template] = {}
        #: By which settings of Celery's they were made.
        self._settings: Any = None
        self._channel: Any = None

    def begin_anew(self) -> None:
        """Forget what was known of a connection that is dropped."""
        self.producer.revive(self.connection)
        self._declared.clear()
        self._templates.clear()

    def declare_queues_of(self, exchange: str) -> None:
        """Declare the project's queues there: for a message that names no queue Celery declares none."""
        for queue in self.app.amqp.queues.values():
            if exchange and queue.exchange.name == exchange:
                self.producer.maybe_declare(queue)

    def send(self, delivery: Delivery, flush: Flush) -> None:
        """Publish as Celery does; the first over a connection of a receiver through all of Celery, the next ones as it.

        A queue is looked after only once on a connection, which is a tenth of the work.
        """
        if flush.is_plain:
            if flush.settings is not self._settings:
                self._settings = flush.settings
                self._templates.clear()
            template = self._templates.get(id(delivery.options))
            if template is not None:
                body, how = template.message(delivery, flush.ancestry)
                return self.producer.publish(body, **how)
        route = delivery.options.route
        self.producer.is_asked = flush.is_plain and self.static
        try:
            if route in self._declared:
                self._send(delivery, flush.ancestry, declare=[])
            else:
                self._send(delivery, flush.ancestry)
                self._keep_client()
                if self.static:
                    self._declared.add(route)
            if self.producer.is_asked and self.producer.last is not None:
                self._keep_template(delivery, *self.producer.last)
        finally:
            self.producer.is_asked, self.producer.last = False, None
        return None

    def _keep_template(self, delivery: Delivery, body: Any, how: dict[str, Any]) -> None:
        if len(self._templates) > TEMPLATES:
            self._templates.clear()  # of options that are made anew each time
        if (template := Template.of(delivery, body, how)) is not None:
            self._templates[id(delivery.options)] = template

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
