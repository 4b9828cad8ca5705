"""What befalls a run with the outbox, one fault after another in random order."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from .arms import POINTS, RELAY, SENDER

if TYPE_CHECKING:
    from .outbox_run import OutboxRun

#: Seconds until a point is given up for this time: nobody has come there.
PATIENCE = 30
#: How often.
TRIES = 4

#: The points at which a process stops for longer than its lease, and wakes when another has it: the zombie's.
STOPS = ("worker.after_claim", "receiver", "worker.before_completion")

#: What is done to the servers, and how often in a short run and in a full one.
SERVERS = {
    "broker kill": (1, 2),
    "broker restart": (0, 1),
    "broker flush": (1, 3),
    "broker away": (1, 1),
    "database restart": (1, 2),
    "database crash": (0, 1),
    "database terminate": (1, 6),
}

#: The faults of a run that is broken on purpose, by what is broken: those that must show it.
BROKEN = {
    # Some of them in receivers that are atomic.
    "unfenced": ["stop at receiver", "stop at worker.before_completion"] * 4,
    "no-relay": ["broker flush", "sender.after_commit", "worker.after_claim"],
}


def plan(chance: random.Random, times: int) -> list[str]:
    """The faults of a run, in which each point is a death ``times`` times; 1 is a short run."""
    found = [*POINTS, *(f"stop at {point}" for point in STOPS), "relay killed"] * times
    for name, (short, full) in SERVERS.items():
        found += [name] * (short if times == 1 else full)
    chance.shuffle(found)
    return found


class Faults:
    """Does what is planned to a run: one at each call."""

    def __init__(self, run: OutboxRun, planned: Sequence[str], away: float) -> None:
        self.run = run
        self.random = run.random
        #: And how often each was tried in vain.
        self.left = [(name, 0) for name in planned]
        #: Seconds that the broker is away for long.
        self.away = away
        #: Points that nobody came to, however often they were armed.
        self.unreached: list[str] = []

    def next(self) -> None:
        """Do the next one, and wait until it is over."""
        name, tries = self.left.pop(0)
        done = True
        if name.startswith("stop at "):
            done = self._stop(name.removeprefix("stop at "))
        elif name in POINTS:
            done = self._die(name)
        elif name == "relay killed":
            done = self._kill_relay()
        elif name.startswith("broker"):
            self._broker(name.removeprefix("broker "))
        else:
            self._database(name.removeprefix("database "))
        if done:
            return
        if tries + 1 == TRIES:
            self.unreached.append(name)
        else:
            self.left.insert(min(2, len(self.left)), (name, tries + 1))

    def _die(self, point: str) -> bool:
        how = "child" if point in (*SENDER, *RELAY) or self.random.random() < 0.6 else "group"
        return self._at(point, how)

    def _at(self, point: str, how: str) -> bool:
        """Arm a point, and wait until a process has come there."""
        self.run.arms.set(point, how)
        until = time.monotonic() + PATIENCE
        while self.run.arms.is_set(point) and time.monotonic() < until:
            self.run.look()
        return not self.run.arms.take(point)

    def _stop(self, point: str) -> bool:
        before = len(self.run.stopped)
        if not self._at(point, "stop"):
            return False
        while len(self.run.stopped) == before:
            self.run.look()
        pid = self.run.stopped[-1]
        until = time.monotonic() + self.run.lease + self.random.uniform(1, 2)
        while time.monotonic() < until:
            self.run.look()
        with suppress(ProcessLookupError):  # its worker was killed
            os.kill(pid, signal.SIGCONT)
        self.run.note("continued", pid=pid)
        return True

    def _kill_relay(self) -> bool:
        until = time.monotonic() + PATIENCE
        while not (relays := list(self._relays())):  # its worker waits for a while before it starts one again
            if time.monotonic() > until:
                return False
            self.run.look()
        relay, before = self.random.choice(relays), time.monotonic()
        with suppress(psutil.NoSuchProcess):
            relay.kill()
            self.run.note("killed", how="child", point="relay", pid=relay.pid, main=relay.pid, before=before)
        return True

    def _relays(self) -> Iterator[psutil.Process]:
        for worker in self.run.stage.workers:
            with suppress(psutil.NoSuchProcess):
                for child in psutil.Process(worker.pid).children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        if any("outbox.relay_process" in word for word in child.cmdline()):
                            yield child

    def _broker(self, how: str) -> None:
        servers = self.run.stage.servers
        if how == "flush":
            self.run.note("broker flushed")
            servers.lose_everything()
            self.run.say("  the broker lost everything")
        elif how == "away":
            self.run.outage(servers.broker, "restart", self.away)
        else:
            self.run.outage(servers.broker, how, self.random.uniform(0.5, 2))

    def _database(self, how: str) -> None:
        self.run.note("database down", how=how)
        database = self.run.stage.servers.database
        assert database
        if how == "terminate":
            self.run.stage.servers.disconnect()
        else:
            if how == "crash":
                database.kill(signal.SIGQUIT)  # "immediate": it recovers from its log
            database.stop(timeout=30)
            self.run.pause(self.random.uniform(0.2, 2))
            database.start()
            database.wait_ready()
        self.run.note("database up")
        self.run.say(f"  the database came back after a {how}")
