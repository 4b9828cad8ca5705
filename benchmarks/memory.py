"""What deliveries take in memory while their transaction is open; each way in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from . import by_hand, deferred
from .durable import create_tables
from .measure import Comparison, Way
from .stage import Broker, Stage

#: Deliveries that wait, and of the largest transaction.
PENDING, PENDING_QUICK, MOST = 100_000, 20_000, 1_000_000
#: What one may take of what one by hand takes.
BAR, STRETCH = 0.15, 0.08


def _ask(*words: object) -> float:
    """Bytes that a process of its own tells; see ``holding``."""
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks.holding", *map(str, words)],
        check=True,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parent.parent,
    )
    return float(json.loads(told.stdout))


#: What is told of each delivery, and how ``holding`` calls it.
CLOCKS = {"bytes": "traced", "rss": "grown"}


def pending(name: str, key: str, count: int, clocks: Sequence[str] = tuple(CLOCKS), **more: Any) -> Way:
    """A way of having so many wait for the commit."""

    def sample() -> tuple[float, ...]:
        return tuple(_ask(key, count, CLOCKS[clock]) / count for clock in clocks)

    return Way(name, sample=sample, taken={clock: [] for clock in clocks}, **more)


def _peak(broker: Broker, least: int, most: int, *words: str) -> tuple[float, ...]:
    way, *more = words
    told = _ask(way, MOST, "peak", *more)
    broker.expect(least, most)  # with that of the first send
    return (told,)


def _of_pending(count: int) -> Comparison:
    return Comparison(
        "memory_pending",
        f"bytes for each of {count:,} deliveries that wait for the commit, beyond the rows themselves",
        [
            pending(by_hand.LAMBDA, "by_hand", count),
            pending(by_hand.ON_COMMIT, "on_commit", count, kind="rival"),
            pending(deferred.DEFERRED, "deferred", count, kind="ours", bar=BAR, stretch=STRETCH),
            *([pending(deferred.BATCH, "batch", count, kind="ours")] if deferred.HAS_BATCH else []),
            pending(by_hand.BATCH, "collect", count, kind="rival"),
        ],
        twice=False,
        rounds=1,
        missing=deferred.missing,
    )


def _of_the_largest(stage: Stage) -> Comparison:
    broker = Broker(stage, "redis")

    @contextmanager
    def ready() -> Iterator[None]:
        create_tables(stage)
        os.environ["BENCH_BROKER"] = broker.url
        with broker.current():
            yield

    def way(name: str, least: int, most: int, *words: str, kind: str = "ours") -> Way:
        sample = partial(_peak, broker, least, most, *words)
        return Way(name, sample=sample, kind=kind, taken={"bytes": []})  # type: ignore[arg-type]

    end, batches = ", up to the end of its flush", MOST // by_hand.CHUNK
    ways = [
        way(f"{by_hand.LAMBDA}, rolled back", 0, 0, "by_hand", kind=""),
        way(f"{deferred.DEFERRED}, rolled back", 0, 0, "deferred"),
        way(f"{deferred.DEFERRED}{end}", MOST + 1, MOST + 1, "deferred", "commit"),
        way(f"durable=True, in together(){end}", 2, MOST, "durable", "commit"),
        way(f"{by_hand.BATCH}, up to the end of its hook", batches + 1, batches + 1, "collect", "commit", kind="rival"),
    ]
    if deferred.HAS_BATCH:
        ways.insert(3, way(f"{deferred.BATCH}{end}", batches + 1, 2 * batches, "batch", "commit"))
    return Comparison(
        "memory_million",
        f"peak of a process's memory in a transaction of {MOST:,} deliveries, beyond what it had before",
        ways,
        twice=False,
        rounds=1,
        level=2,
        stage=ready,
        missing=deferred.missing,
    )


def comparisons(stage: Stage) -> list[Comparison]:
    """Of a hundred thousand, and of a million."""
    return [_of_pending(PENDING_QUICK if stage.quick else PENDING), _of_the_largest(stage)]
