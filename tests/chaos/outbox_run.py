"""One scenario with the outbox: everything dies at its named points, and the servers come and go."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from typing import Any

from . import kept
from .arms import POINTS, Arms
from .checker import Verdict
from .faults import BROKEN, Faults, plan
from .run import FULL as RUN_FULL
from .run import SHORT as RUN_SHORT
from .run import Run
from .stage import LEASE, Worker

#: So many deliveries of each mode. Few wait at a time: what waits for long the relay rings for more and more rarely.
FULL = replace(RUN_FULL, backlog=300, quiet=90)
SHORT = replace(RUN_SHORT, deliveries=500, between_kills=100, times=1, away=4)

#: Of ordered deliveries there are fewer, for they wait for each other: this part of the others' number.
ORDERED = 0.2
#: Seconds between two looks at the outbox, at the end.
PAUSE = 0.5


class OutboxRun(Run):
    """As ``Run``, and about every mode of the outbox at once: its senders' transactions hold all of them."""

    lease = LEASE

    def __call__(self) -> list[Verdict]:
        """Run it all; a verdict for each mode."""
        self.arms = Arms(self.stage.home / "arms")
        self.enough = self.stage.home / "enough"
        self.breaking = self.stage.breaking
        faults = BROKEN[self.breaking] if self.breaking else plan(self.random, self.size.times)
        self.faults = Faults(self, faults, away=self.size.away)
        self.planned = len(faults)
        #: Deliveries sent, by mode.
        self.sent: Counter[str] = Counter()
        #: Processes that stopped at a point, in order.
        self.stopped: list[int] = []
        #: Senders that were killed, and have successors.
        self.buried: list[Worker] = []
        return super().__call__()

    # The faults.

    def _start_senders(self) -> None:
        for _ in range(self.size.senders):
            self._start_sender()

    def _start_sender(self) -> None:
        self.stage.start_sender("outbox_sender", str(self.seed), str(self.wait), str(self.enough))

    def _torment(self) -> None:
        """One fault after another, as evenly over the run as it can be told, until they are over and enough is sent."""
        while self.senders_running:
            self.look()
            self._kill_now_and_then()
            over = 1 - len(self.faults.left) / self.planned
            if self.faults.left and self._share() >= over:
                self.faults.next()
                self.since_progress = time.monotonic()  # it may have kept everything from moving for long
            if not self.faults.left and self._share() >= 1:
                self.enough.touch()
            if time.monotonic() - self.since_progress > self.size.quiet:
                self.enough.touch()
                self.wait.unlink(missing_ok=True)
                return

    def _share(self) -> float:
        least = min(self.sent["durable"], self.sent["atomic"], self.sent["ordered"] / ORDERED)
        return least / self.size.deliveries

    # Watching.

    def look(self) -> None:
        """As of all runs; and start senders that were killed."""
        super().look()
        for sender in self.stage.senders:
            if sender.status_code and sender not in self.buried:
                if sender.pid not in self.killed:
                    raise RuntimeError(f"a sender failed:\n{sender.logs().decode()}")
                self.buried.append(sender)
                self._start_sender()

    def _note_new(self, event: dict[str, Any]) -> None:
        super()._note_new(event)
        if event["what"] == "sent":
            self.sent.update(event["deliveries"])
            self.since_progress = time.monotonic()
        elif event["what"] == "stopped":
            self.stopped.append(event["pid"])

    def _on_their_way(self) -> int:
        return self.sent.total() - len(self.done)

    def _progress(self) -> str:
        done = f"{len(self.done)} of {self.sent.total()} done"
        faults = f"{self.planned - len(self.faults.left)} of {self.planned} faults"
        return f"{self.scenario.name}: sent {min(1, self._share()):4.0%}, {done}, {self.kills} kills, {faults}"

    # The end.

    def _drain(self) -> None:
        """Wait until every row has ended, or nothing has moved for longer than anything waits."""
        while left := self.stage.servers.unfinished():
            self.pause(PAUSE)
            quiet = time.monotonic() - self.since_progress
            if quiet > self.size.quiet:
                self.say(f"  no progress for {quiet:.0f} s: {left} rows have not ended")
                return

    def _judge(self, found: dict[str, Any], left: int) -> list[Verdict]:
        return [
            kept.judge(
                kept.Ledger(
                    broker=self.scenario.title,
                    mode=mode,
                    committed=found["committed"],
                    receivers=receivers,
                    events=self.events,
                    effects=found["effects"],
                    rows=found["rows"],
                    atomic=found["atomic"],
                    lease=self.lease,
                    points=() if self.breaking else POINTS,
                    unreached=[*self.faults.unreached, *(name for name, _ in self.faults.left)],
                )
            )
            for mode, receivers in found["modes"].items()
        ]
