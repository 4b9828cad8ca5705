"""Measuring: ways of doing the same work take turns, in one process, and what counts is the ratio of their minima."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

#: A block is long enough for the clock and short enough to fall between two disturbances.
BLOCK_SECONDS = 0.01


@dataclass
class Way:
    """One way of doing the work: ``work(n)`` does it n times. ``before`` and ``after`` are not timed."""

    name: str
    work: Callable[[int], None]
    before: Callable[[], None] = lambda: None
    after: Callable[[int], None] = lambda times: None
    #: What its ratio must not exceed.
    bar: float | None = None
    #: Seconds for one unit of work, a number for each round: by the clock, and CPU time of all threads.
    taken: dict[str, list[float]] = field(default_factory=lambda: {"wall": [], "cpu": []})

    def measure(self, times: int) -> None:
        """Do one block of the work and note what it took."""
        self.before()
        self.work(1)
        self.after(1)
        gc.collect()
        gc.disable()
        cpu, wall = time.process_time(), time.perf_counter()
        self.work(times)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        gc.enable()
        self.after(times)
        self.taken["wall"].append(wall / times)
        self.taken["cpu"].append(cpu / times)


@dataclass
class Comparison:
    """Ways of doing the same work; the first is the one that the others are compared with.

    ``own`` is, where there is one, the way that does only what all of them have in common.
    """

    key: str
    title: str
    ways: Sequence[Way]
    own: Way | None = None

    def __post_init__(self) -> None:
        first = self.ways[0]
        #: The first way once more: its ratio is the noise.
        self.again = Way(f"{first.name}, again", first.work, first.before, first.after)

    @property
    def all(self) -> list[Way]:
        """Every way, in the order of the table."""
        return [self.ways[0], self.again, *self.ways[1:], *([self.own] if self.own else [])]

    def run(self, seconds: float) -> None:
        """Let the ways take turns for so long, in every round from another one on."""
        turns, times = self.all, self._times()
        # What exists by now is not looked through again by each collection between the blocks.
        gc.collect()
        gc.freeze()
        end = time.monotonic() + seconds
        rounds = 0
        while time.monotonic() < end or rounds < len(turns):
            start = rounds % len(turns)
            for way in (*turns[start:], *turns[:start]):
                way.measure(times)
            rounds += 1
        gc.unfreeze()

    def _times(self) -> int:
        """How often the work fits into a block; all ways get as many."""
        trial, times = Way("", self.ways[0].work, self.ways[0].before, self.ways[0].after), 1
        while True:
            trial.measure(times)
            one = trial.taken["wall"][-1]
            if one * times >= BLOCK_SECONDS / 4:
                return max(1, round(BLOCK_SECONDS / one))
            times *= 4

    def ratio(self, way: Way, clock: str = "wall") -> float:
        """What the way takes in proportion to the first one, both at their best."""
        return min(way.taken[clock]) / min(self.ways[0].taken[clock])

    def median_ratio(self, way: Way, clock: str = "wall") -> float:
        """The same in the middle one of all rounds, each taken by itself."""
        return median(one / first for one, first in zip(way.taken[clock], self.ways[0].taken[clock], strict=True))

    def net_ratio(self, way: Way, clock: str = "wall") -> float | None:
        """The ratio of what is left when both are relieved of what all have in common."""
        if self.own is None or way is self.own:
            return None
        common = min(self.own.taken[clock])
        return (min(way.taken[clock]) - common) / (min(self.ways[0].taken[clock]) - common)


def summary(samples: Sequence[float]) -> dict[str, float]:
    """Microseconds, for people and for the JSON."""
    return {"min": round(min(samples) * 1e6, 3), "median": round(median(samples) * 1e6, 3)}
