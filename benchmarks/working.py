"""How fast workers run what waits for them, on PostgreSQL: ours beside tasks by hand and the peers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from django.db import connections, transaction
from django.dispatch import Signal

from . import deferred, peers, receiving
from .durable import ALIAS, staged
from .measure import Comparison, Way
from .models import Row
from .stage import Broker, Stage
from .stamps import Stamps
from .worker import Cluster, Measured, Worker

#: Rows of the table, and with it the most that one measurement takes.
ROWS = 20_000
BATCH = 100
#: Deliveries of one measurement: about a second each. What takes longer by itself takes fewer.
ONE = 600
MANY = {"": (600, 20_000), "_600us": (600, 3_000), "_5ms": (300, 800)}
#: Of the time by hand, for one message each; and with batches by what the receiver costs: 40 times the rate is 1/40.
BAR, STRETCH = 1.0, 0.95
BATCH_BARS = {"": (1 / 40, 1 / 60), "_600us": (1 / 3.5, None), "_5ms": (1 / 1.3, None)}
DEADLINE = 60
#: By hand, what a deferred delivery does by default: whose worker dies is run again.
SAFE = "task.delay(pk), acks_late=True, reject_on_worker_lost=True"

#: Has so many deliveries published.
Publish = Callable[[int], object]


class Bench:
    """Workers that stand still while work is published, and are let go then."""

    def __init__(self, stage: Stage) -> None:
        self.broker = Broker(stage, "redis")
        self.stamps: Stamps | None = None
        self.workers: dict[type[Measured], Measured] = {}

    @contextmanager
    def ready(self, senders: Sequence[peers.Sender] = ()) -> Iterator[None]:
        """Have rows, workers of Celery, and those of the peers that bring their own."""
        stage = self.broker.stage
        with staged(self.broker, senders), ExitStack() as stack:
            os.environ["BENCH_BROKER"] = self.broker.url
            stage.once(__name__, make_rows)
            self.stamps = self.stamps or Stamps(stage.home / "stamps", ROWS)
            for kind in {Worker, *map(_kind, senders)}:
                worker = self.workers[kind] = kind(stage.home, self.broker.url, reuse=True, concurrency=2)
                stack.callback(worker.remove)
                worker.wait_ready()
            yield

    def take(self, publish: Publish, count: int, kind: type[Measured]) -> tuple[float, ...]:
        """Seconds for each of so many deliveries, from when the workers are let go; by the clock, and CPU of theirs."""
        stamps, worker = self.stamps, self.workers[kind]
        if stamps is None:
            raise RuntimeError("Not ready.")
        stamps.clear()
        worker.kill("SIGSTOP")
        publish(count)
        cpu, start = worker.cpu_seconds(), time.monotonic()
        worker.kill("SIGCONT")
        try:
            times = stamps.wait(count, DEADLINE, worker.ready)
        except TimeoutError as error:
            error.add_note(worker.logs().decode()[-4000:])
            raise
        cpu = worker.cpu_seconds() - cpu
        return (max(times) - start) / count, cpu / count

    def way(self, name: str, publish: Publish, count: int, by: type[Measured] = Worker, **more: Any) -> Way:
        """A way whose workers are warm: each process has a connection to the database."""
        warm: set[Measured] = set()

        def sample() -> tuple[float, ...]:
            if self.workers[by] not in warm:
                warm.add(self.workers[by])
                self.take(publish, min(count, 200), by)
            return self.take(publish, count, by)

        return Way(name, sample=sample, **more)


def _kind(sender: peers.Sender) -> type[Measured]:
    return Worker if sender.by_celery else Cluster


def make_rows() -> None:
    """Have the table and its rows."""
    with connections[ALIAS].schema_editor() as editor:
        editor.create_model(Row)
    Row.objects.using(ALIAS).bulk_create(Row(pk=pk, text="text") for pk in range(1, ROWS + 1))


def _rows(count: int) -> list[Row]:
    return [Row.from_db(ALIAS, ["id", "text"], [pk, "text"]) for pk in range(1, count + 1)]


def send(signal: Signal, count: int) -> None:
    """Send a signal so many times in one transaction."""
    with transaction.atomic(using=ALIAS):
        for row in _rows(count):
            signal.send(Row, instance=row)


def call(cost: float, count: int) -> None:
    """Call the task by hand so many times."""
    for pk in range(1, count + 1):
        receiving.by_hand.delay(pk, cost)


def call_safe(count: int) -> None:
    """The same, of the task that a worker's death does not lose."""
    for pk in range(1, count + 1):
        receiving.by_hand_safe.delay(pk)


def _call_in_batches(cost: float, count: int) -> None:
    for start in range(1, count + 1, BATCH):
        receiving.many_by_hand.delay(list(range(start, min(start + BATCH, count + 1))), cost)


def _one_by_one(bench: Bench) -> Comparison:
    senders = peers.senders(bench.broker, "celery-signal-receivers") + peers.senders(bench.broker, "django-q-signals")
    senders += peers.senders(bench.broker, "django-domain-events", alias=ALIAS)

    def publish(sender: peers.Sender, count: int) -> None:
        sender.publish(_rows(count))

    return Comparison(
        "worker_one",
        "a worker of 2 processes fetches a row of PostgreSQL for each message; for each",
        [
            bench.way("task.delay(pk)", partial(call, 0.0), ONE),
            bench.way(SAFE, call_safe, ONE, kind="rival"),
            bench.way(deferred.DEFERRED, partial(send, receiving.one_sent), ONE, kind="ours", bar=BAR, stretch=STRETCH),
            *(bench.way(one.name, partial(publish, one), ONE, _kind(one), kind="rival") for one in senders),
        ],
        stage=partial(bench.ready, senders),
    )


def _in_batches(bench: Bench, suffix: str) -> Comparison:
    cost, signal = receiving.COSTS[suffix], receiving.BATCHES[suffix]
    singly, together = MANY[suffix]
    bar, stretch = BATCH_BARS[suffix]
    name = f"deferred receiver, batch_size={BATCH}"
    ours = [bench.way(name, partial(send, signal), together, kind="ours", bar=bar, stretch=stretch)] if signal else []
    said = f"takes {cost * 1000:g} ms" if cost else "does nothing else"
    return Comparison(
        f"worker_batch{BATCH}{suffix}",
        f"the same with batch_size={BATCH} and a receiver that {said}; for each delivery",
        [
            bench.way("task.delay(pk)", partial(call, cost), singly),
            *ours,
            bench.way("batch task by hand", partial(_call_in_batches, cost), together, kind="rival"),
        ],
        stage=bench.ready,
        missing=deferred.missing,
    )


def comparisons(stage: Stage) -> list[Comparison]:
    """One message for each delivery, and one for many."""
    bench = Bench(stage)
    return [_one_by_one(bench), *(_in_batches(bench, suffix) for suffix in receiving.COSTS)]
