"""What the checks and the doctor ask about the project's Celery: all of it can be known without the broker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from celery import Celery
from celery.app import app_or_default
from celery.exceptions import QueueNotFound
from kombu import Queue

from . import backends
from .backends.celery import CeleryBackend
from .exceptions import ConfigurationError
from .options import Options
from .tasks import deliver

#: The schemes of a broker's url, by what stands behind them.
REDIS = frozenset({"redis", "rediss", "sentinel"})
RABBITMQ = frozenset({"amqp", "amqps", "pyamqp", "librabbitmq"})


def current_app() -> Celery | None:
    """The Celery app through which deliveries leave this process.

    None where they do not leave it through Celery, or where there is no app; another check says so.
    """
    try:
        backend = backends.current()
        backend.check()
    except ConfigurationError:
        return None
    return app_or_default() if isinstance(backend, CeleryBackend) else None


def unreadable(app: Celery) -> Exception | None:
    """Why its settings cannot be read, which happens when they are first asked for; None if they can."""
    try:
        app.conf.broker_write_url  # noqa: B018 - an attribute that reads a file
    except Exception as error:  # noqa: BLE001 - a module of settings may raise anything
        return error
    return None


def deliver_task(app: Celery) -> Any:
    """Our task as the app has it: with what its settings and annotations have made of it."""
    return app.tasks[deliver.name]


def broker_url(app: Celery) -> str:
    """The first url to which this process publishes, its password included; empty where none is set."""
    url = app.conf.broker_write_url or ""
    first = url if isinstance(url, str) else next(iter(url), "")
    return first.partition(";")[0]


def transport(app: Celery) -> str:
    """The scheme of the broker, as "redis" or "amqp". Asking kombu would need the transport's library."""
    scheme, found, _ = broker_url(app).partition("://")
    # Where the url is only a host, or there is none, the default is Celery's.
    return scheme.partition("+")[0].lower() if found else str(app.conf.broker_transport or "amqp")


def transport_option(app: Celery, name: str, default: Any = None) -> Any:
    """One of ``broker_transport_options``."""
    return (app.conf.broker_transport_options or {}).get(name, default)


def transport_option_line(app: Celery, name: str, value: Any) -> str:
    """The line of the settings that sets it. The other options are not repeated: some are passwords."""
    others = "..., " if set(app.conf.broker_transport_options or {}) - {name} else ""
    return f'CELERY_BROKER_TRANSPORT_OPTIONS = {{{others}"{name}": {value!r}}}'


class Destination(NamedTuple):
    """Where a receiver's messages go. ``queue`` is None where only the broker knows which one the exchange feeds."""

    queue: Queue | None
    exchange: str
    routing_key: str

    @property
    def arguments(self) -> dict[str, Any]:
        """The ``x-`` arguments with which the queue is declared."""
        if self.queue is None:
            return {}
        highest = getattr(self.queue, "max_priority", None)
        return {**(self.queue.queue_arguments or {}), **({"x-max-priority": highest} if highest else {})}

    @property
    def kind(self) -> str:
        """RabbitMQ's type of the queue, as it is declared."""
        return queue_type(self.arguments)

    @property
    def is_quorum(self) -> bool:
        """Whether it is a quorum queue: RabbitMQ holds the countdowns of those itself."""
        return self.kind == "quorum"


def queue_type(arguments: Mapping[str, Any] | None) -> str:
    """RabbitMQ's type of a queue that is declared with these arguments."""
    return str(arguments.get("x-queue-type", "classic")) if isinstance(arguments, Mapping) else "classic"


class Routing:
    """Asks Celery's router where messages go.

    On an AMQP of its own: routing creates the queues that it does not know, and a worker, which runs the system checks
    when it starts, would then consume from all of them.
    """

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.amqp: Any = type(app.amqp)(app)
        self.router = self.amqp.Router()

    def destination(self, options: Options) -> Destination:
        """Where a message with these options goes, asked as ``apply_async`` asks.

        Raises QueueNotFound where the queue may not be created, and what a router of the project raises.
        """
        task = deliver_task(self.app)
        asked = {}
        for name in ("queue", "exchange", "routing_key"):
            value = getattr(options, name) or getattr(task, name, None)
            if value is not None:
                asked[name] = value
        route = self.router.route(asked, task.name, args=("",), kwargs={}, task_type=task)
        queue = route.get("queue") or self.amqp.queues[self.app.conf.task_default_queue]
        exchange, routing_key = route.get("exchange"), route.get("routing_key")
        if queue.exchange.type == "direct" and not (exchange and routing_key):
            return Destination(queue, "", queue.name)  # straight into the queue
        way = (str(exchange or queue.exchange.name), str(routing_key or queue.routing_key))
        known = [one for one in self.amqp.queues.values() if (one.exchange.name, one.routing_key) == way]
        return Destination(known[0] if known else None, *way)

    def known(self, options: Options) -> Destination | None:
        """The same; None where it cannot be known."""
        try:
            return self.destination(options)
        except Exception:  # noqa: BLE001 - a router of the project may raise anything about a message without content
            return None

    def is_missing(self, options: Options) -> bool:
        """Whether Celery would refuse to publish, for want of the queue in ``task_queues``."""
        try:
            self.destination(options)
        except QueueNotFound:
            return True
        except Exception:  # noqa: BLE001 - as above
            return False
        return False
