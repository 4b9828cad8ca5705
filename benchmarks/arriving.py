"""What a delivery takes until its receiver begins, and how many of them real workers run: default, durable, by hand."""

from __future__ import annotations

import itertools
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import redis
from celery import shared_task
from django.db import connections, transaction

from deferred_signals import Delivery, Signal, receiver
from deferred_signals.outbox.lease import Claim, claim
from deferred_signals.outbox.rows import insert, row_of

from .durable import ALIAS, staged, truncate
from .measure import Comparison, Kind, Way
from .stage import Broker, Stage
from .worker import Worker

#: Where receivers write when they began, in the order in which they did.
KEY = "benchmarks.began"
#: The queue of the worker that closes its database connection after each task.
CLOSING = "closing"
#: Deliveries for one measurement of how many a worker runs, and of one transaction.
MANY, OF_ONE = 1000, 100
DEADLINE = 120

default_sent, durable_sent, closing_sent, atomic_sent = Signal(), Signal(), Signal(), Signal()


def began(number: int) -> None:
    """Write down that a receiver has begun; the clock is that of the machine."""
    now = time.monotonic()
    _redis(os.environ["BENCH_BROKER"]).rpush(KEY, f"{number} {now}")


_clients: dict[str, redis.Redis] = {}


def _redis(url: str) -> redis.Redis:
    return _clients.setdefault(url, redis.Redis.from_url(url))


@shared_task
def by_hand(number: int) -> None:
    """What is called by hand."""
    began(number)


@receiver(default_sent, deferred=True, using=ALIAS)
def default(sender: Any, number: int, **kwargs: Any) -> None:
    """A deferred receiver."""
    began(number)


@receiver(durable_sent, deferred=True, durable=True, using=ALIAS)
def durable(sender: Any, number: int, **kwargs: Any) -> None:
    """A durable one."""
    began(number)


@receiver(closing_sent, deferred=True, durable=True, using=ALIAS, queue=CLOSING)
def closing(sender: Any, number: int, **kwargs: Any) -> None:
    """A durable one whose worker closes its connections."""
    began(number)


@receiver(atomic_sent, deferred=True, durable=True, atomic=True, using=ALIAS)
def atomic(sender: Any, number: int, **kwargs: Any) -> None:
    """One that is completed by its own transaction."""
    began(number)


Send = Callable[[int], object]
WAYS: dict[str, Send] = {
    "on_commit(lambda: task.delay(number))": lambda number: transaction.on_commit(
        lambda: by_hand.delay(number), using=ALIAS
    ),
    "deferred receiver": lambda number: default_sent.send(None, number=number),
    "durable=True": lambda number: durable_sent.send(None, number=number),
    "durable=True, its worker closes its database connections": lambda number: closing_sent.send(None, number=number),
    "durable=True, atomic=True": lambda number: atomic_sent.send(None, number=number),
}
BY_HAND, DEFAULT, *DURABLES = WAYS
KINDS: dict[str, Kind] = {DEFAULT: "ours", BY_HAND: "rival"}
#: Those that one worker runs.
MANY_WAYS = (DURABLES[0], DURABLES[2])


class Arrivals:
    """What was written down by receivers."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.numbers = itertools.count(1)

    @property
    def client(self) -> redis.Redis:
        """Where it was written down."""
        return _redis(self.broker.url)

    def one(self, send: Send) -> tuple[float, ...]:
        """Send one in a transaction; seconds from the end of its commit to the beginning of its receiver."""
        number, committed = next(self.numbers), []
        with transaction.atomic(using=ALIAS):
            transaction.on_commit(lambda: committed.append(time.monotonic()), using=ALIAS)
            send(number)
        found: Any = self.client.blpop([KEY], DEADLINE)
        if found is None:
            raise TimeoutError("No receiver has begun.")
        which, when = found[1].split()
        if int(which) != number:
            raise RuntimeError(f"Delivery {int(which)} came where {number} was awaited.")
        return (float(when) - committed[0],)

    def many(self, send: Send, run: Callable[[], AbstractContextManager[Worker]]) -> tuple[float, ...]:
        """Send many, and only then have a worker run them; seconds for each, from the first beginning to the last one.

        The CPU time is that of the worker, from when it was ready.
        """
        self.client.delete(KEY)
        for _ in range(MANY // OF_ONE):
            with transaction.atomic(using=ALIAS):
                for _ in range(OF_ONE):
                    send(next(self.numbers))
        with run() as worker:
            cpu = worker.cpu_seconds()
            end = time.monotonic() + DEADLINE
            while (count := self.client.llen(KEY)) < MANY:
                if time.monotonic() > end:
                    raise TimeoutError(f"{count} of {MANY} have begun.")
                time.sleep(0.05)
            cpu = worker.cpu_seconds() - cpu
        times = [float(entry.split()[1]) for entry in self.client.lrange(KEY, 0, -1)]
        self.client.delete(KEY)
        truncate()
        return (max(times) - min(times)) / (MANY - 1), cpu / MANY


def _claim() -> tuple[float, ...]:
    """Seconds for one claim, of a row that was just written: a SELECT, and an UPDATE with its commit."""
    made = Delivery(str(uuid.uuid4()), "nobody", None, time.time(), own="{}")
    insert(connections[ALIAS], [row_of(connections[ALIAS], made)])
    start = time.perf_counter()
    held = claim(ALIAS, uuid.UUID(made.id))
    taken = time.perf_counter() - start
    if not isinstance(held, Claim):
        raise TypeError("The row was not there to be claimed.")
    held.complete()
    return (taken,)


class Latency(Comparison):
    """From the end of the commit to the beginning of the receiver; the bar is what the default took, and a claim."""

    def __init__(self, arrivals: Arrivals, stage: Callable[[], AbstractContextManager[Any]]) -> None:
        ways = [
            Way(name, sample=partial(arrivals.one, WAYS[name]), kind=KINDS.get(name, ""))
            for name in (DEFAULT, BY_HAND, *DURABLES)
        ]
        ways.append(Way("the claim of a row alone", sample=_claim))
        super().__init__(
            "arriving_first", "end of commit to first receiver start, one worker process", ways, stage=stage
        )

    def run(self, seconds: float) -> None:
        """Set the bar by what was measured."""
        super().run(seconds)
        default, claimed = (min(way.taken["wall"]) for way in (self.ways[0], self.ways[-1]))
        self.ways[2].bar = (default + claimed) / default


class Throughput(Comparison):
    """How fast workers run what waits for them."""

    def __init__(
        self,
        arrivals: Arrivals,
        worker: Callable[[], AbstractContextManager[Worker]],
        stage: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        ways = [
            Way(name, sample=partial(arrivals.many, WAYS[name], worker), kind=KINDS.get(name, ""))
            for name in (DEFAULT, BY_HAND, *MANY_WAYS)
        ]
        title = f"{MANY:,} deliveries that wait, run by a worker of 2 processes; for each"
        super().__init__("arriving_many", title, ways, rounds=1, stage=stage)


def comparisons(stage: Stage) -> list[Comparison]:
    """How soon a delivery arrives, and how many do; with workers of their own."""
    broker = Broker(stage, "redis")
    arrivals = Arrivals(broker)

    @contextmanager
    def ready() -> Iterator[None]:
        with staged(broker):
            os.environ["BENCH_BROKER"] = broker.url
            yield

    @contextmanager
    def with_workers() -> Iterator[None]:
        with ready(), _worker(broker, reuse=True), _worker(broker, reuse=False, queue=CLOSING):
            for send in WAYS.values():
                arrivals.one(send)  # makes connections
            yield

    return [
        Latency(arrivals, with_workers),
        Throughput(arrivals, partial(_worker, broker, reuse=True, concurrency=2), ready),
    ]


@contextmanager
def _worker(broker: Broker, **options: Any) -> Iterator[Worker]:
    worker = Worker(broker.stage.home, broker.url, **options).wait_ready()
    try:
        yield worker
    finally:
        worker.stop()
        worker.remove()
