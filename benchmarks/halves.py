"""``python -m benchmarks.halves``: what a worker's two processes take for one message, step by step, by hand and ours.

What only Celery, kombu and the broker's client do, waiting included, is left out: it is the same for both. All of it
happens in this process, one step after the other for 300 messages, so it is warm; in a worker, each message finds its
code and its data gone from the processor's caches, and all of it takes about twice as long.
"""

from __future__ import annotations

import gc
import os
import pickle
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, NamedTuple

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
os.environ["BENCH_WORKER"] = "1"

import django

django.setup()

from celery import Celery, signals
from celery.app import trace
from celery.fixups.django import DjangoWorkerFixup
from celery.worker import state
from django.db import connections
from kombu.message import Message

from benchmarks import receiving, working
from benchmarks.stage import Broker, Stage

COUNT, ROUNDS = 300, 40
STEPS = ("the main process has it", "it is pickled", "it is unpickled", "the child runs it", "the main process ends it")
WAYS: dict[str, Callable[[int], object]] = {
    "task.delay(pk)": partial(working.call, 0.0),
    working.SAFE: working.call_safe,
    "deferred receiver": partial(working.send, receiving.one_sent),
}


class Consumer(SimpleNamespace):
    """As much of Celery's as a strategy asks for."""

    __hash__ = object.__hash__  # type: ignore[assignment]  # it sends signals


class Kept(NamedTuple):
    """A message as it lies in the queue."""

    body: Any
    headers: dict[str, Any]
    properties: dict[str, Any]
    delivery_info: dict[str, Any]

    def message(self) -> Message:
        """The message that Celery's consumer gets."""
        return Message(
            body=self.body,
            headers=dict(self.headers),
            properties=dict(self.properties),
            delivery_info=dict(self.delivery_info),
            content_type="application/json",
            content_encoding="utf-8",
            accept={"application/json"},
        )


class Halves:
    """The main process and the child of a worker, in one."""

    def __init__(self, app: Celery) -> None:
        self._jobs: list[Any] = []
        pool = SimpleNamespace(apply_async=self._take)
        consumer: Any = Consumer(
            hostname="worker",
            event_dispatcher=None,
            timer=SimpleNamespace(call_at=None),
            apply_eta_task=None,
            disable_rate_limits=True,
            task_buckets={},
            _limit_task=None,
            _limit_post_eta=None,
            connection_errors=(),
            controller=SimpleNamespace(state=state),
            pool=pool,
            on_task_request=lambda request: request.execute_using_pool(pool),
        )
        app.loader.import_default_modules()
        app.finalize()
        trace.setup_worker_optimizations(app, "worker")
        for name, task in app.tasks.items():
            task.__trace__ = trace.build_tracer(name, task, app.loader, "worker", app=app)
        fixup = DjangoWorkerFixup(app)
        fixup.db_reuse_max = 10**9
        signals.task_prerun.connect(fixup.on_task_prerun)
        signals.task_postrun.connect(fixup.on_task_postrun)
        self._handlers = {name: task.start_strategy(app, consumer) for name, task in app.tasks.items()}

    def _take(self, function: Any, args: Any = None, **how: Any) -> None:
        self._jobs.append((function, args, how))

    def run(self, kept: list[Kept]) -> list[float]:
        """CPU seconds of each step, for all of the messages."""
        self._jobs.clear()
        messages = [one.message() for one in kept]
        handle = self._handlers[messages[0].headers["task"]]
        gc.collect()
        gc.disable()
        times = [time.process_time()]
        for message in messages:
            handle(message, None, _nothing, _nothing, [])
        times.append(time.process_time())
        written = [pickle.dumps((function, args), 2) for function, args, _ in self._jobs]
        times.append(time.process_time())
        read = [pickle.loads(text) for text in written]
        times.append(time.process_time())
        results = [function(*args) for function, args in read]
        times.append(time.process_time())
        for (_, _, how), result in zip(self._jobs, results, strict=True):
            how["accept_callback"](1, 0.0)
            how["callback"](result)
        times.append(time.process_time())
        gc.enable()
        if failed := [result for result in results if result[0]]:
            raise RuntimeError(f"{len(failed)} messages failed: {failed[0]}")
        return [after - before for before, after in pairwise(times)]


def _nothing(*args: Any) -> None:
    pass


def _published(broker: Broker, publish: Callable[[int], object]) -> list[Kept]:
    publish(COUNT)
    queue = broker.app.amqp.default_queue.bind(broker.app.connection_for_read().default_channel)
    messages = [queue.get(no_ack=True) for _ in range(COUNT)]
    return [Kept(one.body, one.headers, one.properties, one.delivery_info) for one in messages]


def main() -> None:
    """Print it."""
    receiving.stamp = _nothing
    with Stage(quick=True) as stage:
        broker = Broker(stage, "redis")
        connections.databases["default"]["PORT"] = str(stage.postgresql)
        with broker.current():
            working.make_rows()
            halves = Halves(broker.app)
            kept = {name: _published(broker, publish) for name, publish in WAYS.items()}
            taken: dict[str, list[list[float]]] = {name: [] for name in WAYS}
            for _ in range(ROUNDS):
                for name in WAYS:
                    taken[name].append(halves.run(kept[name]))
        connections["default"].close()
    best = {name: [min(step) * 1e6 / COUNT for step in zip(*taken[name], strict=True)] for name in WAYS}
    print("| µs of CPU time, warm |", " | ".join(WAYS), "|")
    print("|---|", "---:|" * len(WAYS))
    for number, step in enumerate(STEPS):
        print(f"| {step} |", " | ".join(f"{best[name][number]:.1f}" for name in WAYS), "|")
    print("| together |", " | ".join(f"{sum(best[name]):.1f}" for name in WAYS), "|")


if __name__ == "__main__":
    main()
