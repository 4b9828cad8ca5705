"""Asking the workers: which there are, what they consume, what they know."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from celery import Celery
from kombu import Connection

from ..celery_project import queue_type
from ..tasks import deliver
from ..worker_control import COMMAND, question, token
from .patience import NoAnswer, within


@dataclass
class Worker:
    """What one worker has told."""

    name: str
    #: The type of each queue that it consumes, as it has declared it.
    queues: Mapping[str, str] = field(default_factory=dict)
    has_task: bool = False
    #: Its answer to our own command; None from a release that has none.
    told: dict[str, Any] | None = None
    #: By how many seconds its clock is ahead, and how exactly that is known.
    ahead: float = 0.0
    within: float = 0.0

    @property
    def receivers(self) -> set[str]:
        """The names that it can deliver to, former ones included."""
        known = (self.told or {}).get("receivers", {})
        return {*known, *(alias for aliases in known.values() for alias in aliases)}


@dataclass
class Workers:
    """Those that answered; ``silence`` says why there are none."""

    found: list[Worker] = field(default_factory=list)
    namesakes: list[str] = field(default_factory=list)
    silence: str = ""


def ask_workers(app: Celery, connection: Connection, patience: float) -> Workers:
    """Ask all workers, by Celery's remote control, who they are and what they know; ``patience`` is in seconds."""
    asked = _Remote(app, connection, patience)
    try:
        names = asked.names()
        if not names:
            return Workers(silence=f"no worker answered within {patience:g} s")
        workers = {name: Worker(name) for name in names}
        for name, queues in asked.each("active_queues", workers):
            workers[name].queues = _queues(queues)
        for name, tasks in asked.each("registered", workers):
            # Celery adds attributes to the names: "shop.tasks.add [rate_limit=10/m]".
            workers[name].has_task = any(task.split(" ")[0] == deliver.name for task in _texts(tasks))
        nonce = uuid.uuid4().hex
        begun = time.time()
        for name, told in asked.each(COMMAND, workers, asked=question(nonce), encrypted=token()):
            if _is_told(told):
                arrived = asked.arrived[name]
                workers[name].told = told
                workers[name].ahead = told["time"] - (begun + arrived) / 2
                workers[name].within = (arrived - begun) / 2
    except NoAnswer:
        return Workers(silence="the broker stopped answering")
    return Workers([workers[name] for name in sorted(workers)], sorted({n for n in names if names.count(n) > 1}))


# Whoever can write to the broker can answer, too: nothing of an answer is taken for granted.


def _texts(answer: Any) -> list[str]:
    return [one for one in answer if isinstance(one, str)] if isinstance(answer, list) else []


def _queues(answer: Any) -> dict[str, str]:
    found = [one for one in answer if isinstance(one, dict) and "name" in one] if isinstance(answer, list) else []
    return {str(one["name"]): queue_type(one.get("queue_arguments")) for one in found}


def _is_told(answer: Any) -> bool:
    """Whether it has the form of ``worker_control.tell``, which an error or an answer of somebody else's has not."""
    return (
        isinstance(answer, dict)
        and isinstance(answer.get("receivers"), dict)
        and all(_texts(aliases) == aliases for aliases in answer["receivers"].values())
        and type(answer.get("wire")) is int
        and type(answer.get("time")) in {int, float}
    )


class _Remote:
    def __init__(self, app: Celery, connection: Connection, patience: float) -> None:
        self.app, self.connection, self.patience = app, connection, patience
        #: When the answer to the last command came, by worker, in Unix seconds.
        self.arrived: dict[str, float] = {}

    def names(self) -> list[str]:
        """Of all that answer in time; a name twice if two workers bear it."""
        return [name for name, _ in self._broadcast("ping", None, {})]

    def each(self, command: str, names: Iterable[str], **arguments: Any) -> list[tuple[str, Any]]:
        """The answers of these workers; they are waited for no longer than it takes them."""
        return [(name, answer) for name, answer in self._broadcast(command, list(names), arguments) if name in names]

    def _broadcast(self, command: str, names: list[str] | None, arguments: Mapping[str, Any]) -> list[tuple[str, Any]]:
        def note(reply: dict[str, Any]) -> None:
            self.arrived.update(dict.fromkeys(reply, time.time()))

        def ask() -> list[dict[str, Any]] | None:
            return self.app.control.broadcast(
                command,
                destination=names,
                arguments=dict(arguments),
                reply=True,
                timeout=self.patience,
                connection=self.connection,
                callback=note,
            )

        # kombu waits by itself, as long again after each answer; more than that, and the broker has gone.
        replies = within(self.patience * 3 + 1, ask) or []
        return [pair for reply in replies for pair in reply.items()]
