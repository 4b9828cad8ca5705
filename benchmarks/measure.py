"""Measuring: ways of doing the same work take turns, in one process, and what counts is the ratio of their minima."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Literal

#: A block is long enough for the clock and short enough to fall between two disturbances.
BLOCK_SECONDS = 0.01


Kind = Literal["", "ours", "rival", "limit"]


class NotMeasured(Exception):
    """Something cannot be measured here; the message says why."""


@dataclass
class Way:
    """One way of doing the work: ``work(n)`` does it n times. ``before`` and ``after`` are not timed."""

    name: str
    work: Callable[[int], None] = lambda times: None
    before: Callable[[], None] = lambda: None
    after: Callable[[int], None] = lambda times: None
    #: Whose it is: ours, of others who want the same, or what no way can go below. The first way needs none.
    kind: Kind = ""
    #: What its ratio must not exceed, and what would be better than asked for.
    bar: float | None = None
    stretch: float | None = None
    #: How far above the bar is still noise, where the bar is "as much as theirs".
    slack: float = 0.0
    #: Whether more than the bar asks for is so without measuring it.
    surpassed: bool = False
    #: What is done before each block so that the block finds everything warm; without, one unit of the work.
    warm: Callable[[], None] | None = None
    #: Instead of ``work``: does something once, perhaps in other processes, and says what it took, by each clock.
    sample: Callable[[], tuple[float, ...]] | None = None
    #: For one unit of work, a number for each round: seconds by the clock and CPU seconds of all threads; or bytes.
    taken: dict[str, list[float]] = field(default_factory=lambda: {"wall": [], "cpu": []})

    def measure(self, times: int) -> None:
        """Do one block of the work and note what it took."""
        if self.sample is not None:
            for clock, amount in zip(self.taken, self.sample(), strict=False):
                self.taken[clock].append(amount)
            return
        self.before()
        if self.warm is None:
            self.work(1)
            self.after(1)
        else:
            self.warm()
        gc.collect()
        gc.disable()
        cpu, wall = time.process_time(), time.perf_counter()
        self.work(times)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        gc.enable()
        self.after(times)
        self.taken["wall"].append(wall / times)
        self.taken["cpu"].append(cpu / times)

    def fresh(self, name: str = "") -> Way:
        """The same way, of which nothing is known yet."""
        return replace(self, name=name or self.name, taken={clock: [] for clock in self.taken})


@dataclass
class Comparison:
    """Ways of doing the same work; the first is the one that the others are compared with.

    ``own`` is, where there is one, the way that does only what all of them have in common.
    """

    key: str
    title: str
    ways: Sequence[Way]
    own: Way | None = None
    #: Rounds at least.
    rounds: int = 3
    #: Whether the first way is measured twice, and in as many rounds as there is time for. Not where one takes minutes.
    twice: bool = True
    #: 1: not in a quick run; 2: only in a full one.
    level: int = 0
    #: What must be there while it is measured: servers, tables. May raise NotMeasured.
    stage: Callable[[], AbstractContextManager[object]] = nullcontext
    #: Lines below the table, looked up on the stage when all is measured.
    facts: Callable[[], Sequence[str]] = tuple
    #: What should be in it and is not, with the reason.
    missing: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        first = self.ways[0]
        #: What the facts were.
        self.told: Sequence[str] = ()
        #: The first way once more: its ratio is the noise.
        self.again = first.fresh(f"{first.name}, again") if self.twice else None

    @property
    def all(self) -> list[Way]:
        """Every way, in the order of the table."""
        return [way for way in (self.ways[0], self.again, *self.ways[1:], self.own) if way is not None]

    def run(self, seconds: float) -> None:
        """Let the ways take turns for so long, in every round from another one on. Raises NotMeasured."""
        with self.stage():
            turns, times = self.all, self._times()
            # What exists by now is not looked through again by each collection between the blocks.
            gc.collect()
            gc.freeze()
            end = time.monotonic() + (seconds if self.twice else 0)
            rounds = 0
            while time.monotonic() < end or rounds < self.rounds:
                start = rounds % len(turns)
                for way in (*turns[start:], *turns[:start]):
                    way.measure(times)
                rounds += 1
            gc.unfreeze()
            self.told = self.facts()

    def _times(self) -> int:
        """How often the work fits into a block; all ways get as many."""
        trial, times = self.ways[0].fresh(), 1
        if trial.sample is not None or not self.twice:
            return 1
        while True:
            trial.measure(times)
            one = trial.taken["wall"][-1]
            if one * times >= BLOCK_SECONDS / 4:
                return max(1, round(BLOCK_SECONDS / one))
            times *= 4

    @property
    def clocks(self) -> list[str]:
        """What was measured: of other processes not always the CPU time."""
        return [clock for clock, samples in self.ways[0].taken.items() if samples]

    @property
    def clock(self) -> str:
        """What counts."""
        return next(iter(self.ways[0].taken))

    @property
    def ours(self) -> Way | None:
        """What the rivals are compared with."""
        return next((way for way in self.ways if way.kind == "ours"), None)

    def ratio(self, way: Way, clock: str = "", to: Way | None = None) -> float:
        """What the way takes in proportion to the first one, or to another one, both at their best."""
        clock = clock or self.clock
        return min(way.taken[clock]) / min((to or self.ways[0]).taken[clock])

    def median_ratio(self, way: Way, clock: str = "") -> float:
        """The same in the middle one of all rounds, each taken by itself."""
        clock = clock or self.clock
        return median(one / first for one, first in zip(way.taken[clock], self.ways[0].taken[clock], strict=True))

    def net_ratio(self, way: Way, clock: str = "") -> float | None:
        """The ratio of what is left when both are relieved of what all have in common."""
        if self.own is None or way is self.own or way.kind == "limit":
            return None
        clock = clock or self.clock
        common = min(self.own.taken[clock])
        return (min(way.taken[clock]) - common) / (min(self.ways[0].taken[clock]) - common)

    def noise(self, clock: str = "") -> float:
        """How far the first way is from itself."""
        return 0.0 if self.again is None else abs(self.ratio(self.again, clock) - 1)


#: Seconds are told in microseconds, bytes as they are.
SCALES = {"wall": 1e6, "cpu": 1e6}


def summary(samples: Sequence[float], clock: str = "wall") -> dict[str, float]:
    """Microseconds or bytes, for people and for the JSON."""
    scale = SCALES.get(clock, 1.0)
    return {"min": round(min(samples) * scale, 3), "median": round(median(samples) * scale, 3)}
