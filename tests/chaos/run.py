"""One scenario, from its servers to its verdict: senders send, workers work, and both find their world unreliable."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from tests.servers import Process

from .aof import log, popped
from .checker import Ledger, Verdict, judge
from .journal import Reader
from .scenarios import VISIBILITY_TIMEOUT, Scenario
from .stage import Stage, Worker


@dataclass(frozen=True)
class Size:
    """How much of it."""

    deliveries: int
    #: How many deliveries are done between two kills of workers, on average: a slow machine is not killed more often.
    between_kills: float = 250
    #: In how many kills a whole worker dies, and not a child.
    whole: float = 0.4
    #: How the broker goes, one after another over the run.
    outages: tuple[str, ...] = ("kill", "restart", "kill")
    senders: int = 2
    workers: int = 2
    #: The senders wait while so many deliveries are on their way.
    backlog: int = 1500
    #: With the outbox, how often something dies at each named point, and how long the broker is away once.
    times: int = 4
    away: float = 120
    #: After so many seconds without progress nothing more is expected: longer than all pauses that anybody makes.
    quiet: float = VISIBILITY_TIMEOUT * 3 + 10


#: Seconds without progress after which an empty broker brings nothing more: longer than a receiver takes.
EMPTY = 5

FULL = Size(deliveries=20_000)
SHORT = Size(deliveries=1_000, between_kills=50, outages=("kill",), backlog=200)


class Run:
    """One scenario. ``say`` gets lines that stay, ``show`` one that is overwritten by the next."""

    def __init__(
        self,
        scenario: Scenario,
        size: Size,
        seed: int,
        *,
        breaking: str = "",
        say: Callable[[str], None] = print,
        show: Callable[[str], None] = print,
    ) -> None:
        self.size, self.seed = size, seed
        self.say, self.show = say, show
        self.random = random.Random(f"{seed}/{scenario.name}")
        self.stage = Stage(scenario, breaking)
        self.scenario = scenario
        self.wait = self.stage.home / "senders-wait"
        self.reader = Reader(self.stage.journal)
        self.events: list[dict[str, Any]] = []
        self.published: set[str] = set()
        self.done: set[str] = set()
        self.kills = self.outages = 0
        #: The processes that died of it.
        self.killed: set[int] = set()
        #: After how many deliveries a worker is killed.
        self.next_kill = self._pause()
        self.senders_running = size.senders
        self.since_progress = time.monotonic()

    def __call__(self) -> list[Verdict]:
        """Run it all; a verdict for each mode.

        The files of the run are left behind when a promise was broken, or when this raises.
        """
        started = time.monotonic()
        with self.stage as stage:
            self.say(f"{self.scenario.name}: {stage.servers.versions}; seed {self.seed}; {stage.home}")
            for _ in range(self.size.workers):
                stage.start_worker()
            for worker in stage.workers:
                worker.wait_ready()
            self._start_senders()
            self._torment()
            self._drain()
            self._stop()
            left = stage.servers.left()
            found = json.loads(stage.python("tables", "read"))
        self._read()
        self.reader.close()
        (stage.home / "database.json").write_text(json.dumps(found))
        verdicts = self._judge(found, left)
        self._tell(verdicts, time.monotonic() - started)
        if not any(verdict.broken for verdict in verdicts):
            stage.forget()
        return verdicts

    def _start_senders(self) -> None:
        share = self.size.deliveries // self.size.senders + 1
        for _ in range(self.size.senders):
            self.stage.start_sender("sender", str(self.seed), str(share), str(self.wait))

    def _judge(self, found: dict[str, Any], left: int) -> list[Verdict]:
        ledger = Ledger(
            broker=self.scenario.name,
            committed=found["committed"],
            receivers=found["receivers"],
            events=self.events,
            effects=found["effects"],
            left=left,
            workers=self.size.workers,
            popped=popped(log(self.stage.home)) if self.scenario.on_redis else frozenset(),
            visibility_timeout=VISIBILITY_TIMEOUT if self.scenario.on_redis else None,
        )
        return [judge(ledger)]

    # The faults.

    def _torment(self) -> None:
        """Kill workers and the broker until all is sent and most of it is done."""
        outages = list(self.size.outages)
        while self.senders_running or len(self.done) < 0.97 * len(self.published):
            self.look()
            for sender in self.stage.senders:
                if sender.status_code:
                    raise RuntimeError(f"a sender failed:\n{sender.logs().decode()}")
            self._kill_now_and_then()
            share = len(self.published) / self.size.deliveries
            if outages and share > 1 - len(outages) / (len(self.size.outages) + 1):
                self.outage(self.stage.servers.broker, outages.pop(0), self.random.uniform(0.5, 2))
            if not self.senders_running and time.monotonic() - self.since_progress > self.size.quiet:
                return

    def _kill_now_and_then(self) -> None:
        working = [worker for worker in self.stage.workers if worker.working]
        if len(self.done) > self.next_kill and working:
            self._kill(self.random.choice(working))
            self.next_kill = len(self.done) + self._pause()

    def _pause(self) -> float:
        return self.random.expovariate(1 / self.size.between_kills)

    def note(self, what: str, **fields: Any) -> None:
        # Not ``journal.note``, which writes one journal in a process's life; this one has several runs.
        with self.stage.journal.open("ab", buffering=0) as journal:
            journal.write(json.dumps({"what": what, "at": time.monotonic(), **fields}).encode() + b"\n")

    def _kill(self, worker: Worker) -> None:
        """SIGKILL: a child; a main process, whose children find out by themselves; or a worker as a whole."""
        main = worker.pid
        how = "child" if self.random.random() > self.size.whole else self.random.choice(["main", "group", "group"])
        if how == "child":
            try:
                children = [child.pid for child in psutil.Process(main).children()]
            except psutil.NoSuchProcess:
                children = []
            if not children:
                return
            with suppress(ProcessLookupError):
                pid, before = self.random.choice(children), time.monotonic()
                os.kill(pid, signal.SIGKILL)
                self.note("killed", how=how, pid=pid, main=main, before=before)
            return
        before = time.monotonic()
        if how == "main":
            os.kill(main, signal.SIGKILL)
            worker.wait()
        else:
            worker.kill()
        self.note("killed", how=how, pid=main, main=main, before=before)
        if how == "main":
            time.sleep(self.random.uniform(0, 0.5))
            worker.kill()  # as a supervisor does, before it starts the next
        worker.start()

    def outage(self, broker: Process, how: str, seconds: float) -> None:
        """Have the broker go, by SIGKILL or as one that is restarted, and come back after so many seconds."""
        self.note("broker down", how=how)
        if how == "kill":
            broker.kill()
        else:
            broker.stop(timeout=60)
        self.pause(seconds)
        broker.start()
        until = time.monotonic() + 60
        while not broker.ready() and time.monotonic() < until:
            self.look()  # the senders go on, and must be held back
        broker.wait_ready(1)
        self.note("broker up")
        self.say(f"  the broker came back after a {how}")

    # Watching.

    def pause(self, seconds: float) -> None:
        """Look on for so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.look()

    def look(self) -> None:
        """Read what is new, hold the senders back or let them go on, start what has ended, show where we are."""
        time.sleep(0.05)
        self._read()
        if self._on_their_way() > self.size.backlog:
            self.wait.touch()
        else:
            self.wait.unlink(missing_ok=True)
        for worker in self.stage.workers:
            if worker.status == "exited":
                if worker.pid not in self.killed:
                    self.say(f"  a worker ended by itself: {worker.last_words}")
                worker.kill()
                worker.start()
        self.show(self._progress())

    def _on_their_way(self) -> int:
        return len(self.published) - len(self.done)

    def _read(self) -> None:
        for event in self.reader.new():
            self.events.append(event)
            self._note_new(event)

    def _note_new(self, event: dict[str, Any]) -> None:
        what = event["what"]
        if what == "published" or (what == "finished" and event["state"] != "retry"):
            those = self.published if what == "published" else self.done
            if event["delivery"] not in those:
                those.add(event["delivery"])
                self.since_progress = time.monotonic()
        self.senders_running -= what == "sender ends"
        self.outages += what == "broker down"
        if what == "killed":
            self.kills += 1
            self.killed.add(event["main"] if event["how"] == "group" else event["pid"])

    def _progress(self) -> str:
        share = min(1, len(self.published) / self.size.deliveries)
        done = f"{len(self.done)} of {len(self.published)} done"
        return f"{self.scenario.name}: sent {share:4.0%}, {done}, {self.kills} kills, {self.outages} outages"

    # The end.

    def _drain(self) -> None:
        """Wait until the broker has no more, or nothing has moved for longer than anything waits.

        A delivery that is done may have a message left: one that was run, and not acknowledged by who was killed.
        """
        while self.stage.servers.left() or not self.published <= self.done:
            self.pause(1)
            quiet = time.monotonic() - self.since_progress
            empty = quiet > EMPTY and not self.stage.servers.left()
            if empty or quiet > self.size.quiet:
                found = "the broker has no more" if empty else f"no progress for {quiet:.0f} s"
                self.say(f"  {found}: {len(self.published - self.done)} did not come")
                return

    def _stop(self) -> None:
        for worker in self.stage.workers:
            if worker.status == "running" and not worker.ready():
                worker.wait_ready()
            worker.kill(signal.SIGTERM)
        for worker in self.stage.workers:
            worker.stop(timeout=30)

    def _tell(self, verdicts: list[Verdict], seconds: float) -> None:
        killed = [event for event in self.events if event["what"] == "killed"]
        kinds = [event["how"] for event in killed]
        outages = [event["how"] for event in self.events if event["what"] == "broker down"]
        unit = f"{sum(verdict.deliveries for verdict in verdicts)} deliveries in {seconds:.0f} s"
        self.say(
            f"  {unit}; killed: {kinds.count('child')} children, {kinds.count('main')} main processes, "
            f"{kinds.count('group')} whole workers; broker: {', '.join(outages) or 'left alone'}"
        )
        for verdict in verdicts:
            self._tell_of(verdict)
        if any(verdict.broken for verdict in verdicts):
            self.say(f"  journal, database and logs are in {self.stage.home}")

    def _tell_of(self, verdict: Verdict) -> None:
        if verdict.mode == "default":
            said = f"not confirmed by the broker: {verdict.unpublished}, of which run: {verdict.unpublished_but_run}"
            self.say(f"  {said}")
        for title, why in (("lost", verdict.lost_why), ("run again", verdict.duplicated_why)):
            for reason, count in why.most_common():
                self.say(f"  {title}: {count}: {reason}")
        for line in verdict.unexplained[:10]:
            self.say(f"  {line}")
        for reason in verdict.broken:
            self.say(f"  BROKEN: {reason}")
