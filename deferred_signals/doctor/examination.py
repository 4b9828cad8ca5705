"""The whole examination, section by section."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module

from celery import Celery
from kombu import Connection

from .. import keeping, registry
from ..celery_project import Routing, current_app, unreadable
from .broker import Broker, Depth
from .findings import Mark, Section
from .patience import NoAnswer
from .project import system_checks, this_process, versions
from .verdicts import judge
from .workers import Worker, Workers, ask_workers

#: How many receivers a line names.
_NAMED = 3


def examine(patience: float) -> Iterator[Section]:
    """Look at everything; each question to broker or workers is waited for ``patience`` seconds.

    Yields each section when it is done. Raises nothing for what it finds.
    """
    app = current_app()
    yield versions()
    yield this_process(app)
    yield system_checks()
    if keeping.current() is not None:
        # An app of its own, which need not be installed.
        yield import_module("deferred_signals.outbox.examination").examine()
    if app is None or unreadable(app) is not None or app.conf.task_always_eager:
        yield _not_looked_at("Broker", "Deliveries do not go through it.")
        return
    broker = Broker(app, patience)
    yield broker.examine()
    connection = broker.connection
    if connection is None:
        yield _not_looked_at("Workers", "They cannot be asked without the broker.")
        return
    here = {registration.name for registration in registry.registrations()}
    wanted, types, queues = _queues(app)
    workers = ask_workers(app, connection, patience)
    yield judge(workers, wanted, app, here)
    _look_into(queues, wanted, broker, connection, workers)
    if broker.is_rabbitmq:
        _compare(queues, types, workers)
    yield queues


def _not_looked_at(title: str, why: str) -> Section:
    section = Section(title)
    section.add("note", f"Not looked at. {why}")
    return section


def _queues(app: Celery) -> tuple[dict[str, set[str]], dict[str, str], Section]:
    """The receivers by the queue to which Celery routes them, the types of the queues as they are declared here.

    And a section with what leads nowhere that we know.
    """
    section, wanted, routing = Section("Queues"), defaultdict[str, set[str]](set), Routing(app)
    types: dict[str, str] = {}
    for registration in registry.registrations():
        for stand_in in registration.connections():
            try:
                there = routing.destination(stand_in.options)
            except Exception as error:  # noqa: BLE001 - a router of the project may raise anything
                section.add(
                    "problem",
                    f"{registration.name} leads to no queue: {type(error).__name__}: {error}",
                    "Correct task_routes, task_queues, or the receiver's options queue, exchange and routing_key.",
                )
                continue
            if there.queue is None:
                section.add(
                    "note",
                    f"{registration.name} goes to the exchange {there.exchange!r} with the routing key "
                    f"{there.routing_key!r}. Only the broker knows which queues that feeds.",
                )
                continue
            wanted[str(there.queue.name)].add(registration.name)
            types[str(there.queue.name)] = there.kind
    return dict(wanted), types, section


def _look_into(
    section: Section, wanted: dict[str, set[str]], broker: Broker, connection: Connection, workers: Workers
) -> None:
    for queue, receivers in sorted(wanted.items()):
        try:
            depth = broker.depth(connection, queue)
        except NoAnswer as error:
            section.add("problem", f"{queue}: the broker stopped answering ({error}).", "Ask again.")
            return
        except Exception as error:  # noqa: BLE001 - each client library has its own
            section.add("warning", f"{queue}: it cannot be looked into: {type(error).__name__}: {error}")
            continue
        consuming = [worker for worker in workers.found if queue in worker.queues]
        _one(section, queue, receivers, depth, consuming, broker)


def _compare(section: Section, types: dict[str, str], workers: Workers) -> None:
    """RabbitMQ refuses to declare a queue that exists as one of another type, and so whoever publishes to it."""
    for worker in workers.found:
        for queue, kind in sorted(worker.queues.items()):
            if types.get(queue, kind) != kind:
                section.add(
                    "problem",
                    f"{queue}: {worker.name} declares it as a {kind} queue, this process as a {types[queue]} one: "
                    "RabbitMQ refuses one of them.",
                    "Give both the same CELERY_TASK_DEFAULT_QUEUE_TYPE and CELERY_TASK_QUEUES.",
                )


def _one(
    section: Section, queue: str, receivers: set[str], depth: Depth, consuming: list[Worker], broker: Broker
) -> None:
    whose = f"{_count(len(receivers), 'receiver')}, {_count(depth.messages, 'message')} waiting"
    mark: Mark = "ok"
    cure = ""
    if consuming:
        who = f"consumed by {', '.join(worker.name for worker in consuming)}"
    elif depth.consumers:
        mark, who = "warning", f"consumed {_count(depth.consumers, 'time')}, by workers that did not answer"
        cure = "Are they other workers than you think? They answer unless worker_enable_remote_control is off."
    elif not broker.app.conf.worker_enable_remote_control and depth.consumers is None:
        mark, who = "note", "whether it is consumed is not known, for remote control is off"
    else:
        mark = "problem"
        who = "no worker consumes it" if depth.exists else "it does not exist yet, for no worker ever consumed it"
        cure = f"celery -A ... worker --queues {queue} (for {_some(receivers)})"
    section.add(mark, f"{queue}: {who} ({whose}).", cure)


def _some(names: set[str]) -> str:
    first, more = sorted(names)[:_NAMED], len(names) - _NAMED
    return ", ".join(first) + (f" and {more} more" if more > 0 else "")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
