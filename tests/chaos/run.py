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
    #: After so many seconds without progress nothing more is expected: longer than all pauses that anybody makes.
    quiet: float = VISIBILITY_TIMEOUT * 3 + 10


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
        self.senders_running = size.senders
        self.since_progress = time.monotonic()

    def __call__(self) -> Verdict:
        """Run it all. The files of the run are left behind when a promise was broken, or when this raises."""
        started = time.monotonic()
        with self.stage as stage:
            self.say(f"{self.scenario.name}: {stage.servers.versions}; seed {self.seed}; {stage.home}")
            for _ in range(self.size.workers):
                stage.start_worker()
            for worker in stage.workers:
                worker.wait_ready()
            share = self.size.deliveries // self.size.senders + 1
            for _ in range(self.size.senders):
                stage.start_sender(str(self.seed), str(share), str(self.wait))
            self._torment()
            self._drain()
            self._stop()
            left = stage.servers.left()
            found = json.loads(stage.python("tables", "read"))
        self._read()
        self.reader.close()
        (stage.home / "database.json").write_text(json.dumps(found))
        verdict = judge(
            Ledger(
                broker=self.scenario.name,
                committed=found["committed"],
                receivers=found["receivers"],
                events=self.events,
                effects=found["effects"],
                left=left,
                workers=self.size.workers,
                popped=popped(log(stage.home)) if self.scenario.on_redis else frozenset(),
                visibility_timeout=VISIBILITY_TIMEOUT if self.scenario.on_redis else None,
            )
        )
        self._tell(verdict, time.monotonic() - started)
        if not verdict.broken:
            stage.forget()
        return verdict

    # The faults.

    def _torment(self) -> None:
        """Kill workers and the broker until all is sent and most of it is done."""
        outages = list(self.size.outages)
        next_kill = self._pause()
        while self.senders_running or len(self.done) < 0.97 * len(self.published):
            self._look()
            for sender in self.stage.senders:
                if sender.status_code:
                    raise RuntimeError(f"a sender failed:\n{sender.logs().decode()}")
            working = [worker for worker in self.stage.workers if worker.working]
            if len(self.done) > next_kill and working:
                self._kill(self.random.choice(working))
                next_kill = len(self.done) + self._pause()
            share = len(self.published) / self.size.deliveries
            if outages and share > 1 - len(outages) / (len(self.size.outages) + 1):
                self._outage(self.stage.servers.broker, outages.pop(0))
            if not self.senders_running and time.monotonic() - self.since_progress > self.size.quiet:
                return

    def _pause(self) -> float:
        return self.random.expovariate(1 / self.size.between_kills)

    def _note(self, what: str, **fields: Any) -> None:
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
                self._note("killed", how=how, pid=pid, main=main, before=before)
            return
        before = time.monotonic()
        if how == "main":
            os.kill(main, signal.SIGKILL)
            worker.wait()
        else:
            worker.kill()
        self._note("killed", how=how, pid=main, main=main, before=before)
        if how == "main":
            time.sleep(self.random.uniform(0, 0.5))
            worker.kill()  # as a supervisor does, before it starts the next
        worker.start()

    def _outage(self, broker: Process, how: str) -> None:
        self._note("broker down", how=how)
        if how == "kill":
            broker.kill()
        else:
            broker.stop(timeout=60)
        until = time.monotonic() + self.random.uniform(0.5, 2)
        while time.monotonic() < until:
            self._look()
        broker.start()
        broker.wait_ready()
        self._note("broker up")
        self.say(f"  the broker came back after a {how}")

    # Watching.

    def _look(self) -> None:
        """Read what is new, hold the senders back or let them go on, start what has ended, show where we are."""
        time.sleep(0.05)
        self._read()
        on_their_way = len(self.published) - len(self.done)
        if on_their_way > self.size.backlog:
            self.wait.touch()
        else:
            self.wait.unlink(missing_ok=True)
        for worker in self.stage.workers:
            if worker.status == "exited":
                self.say(f"  a worker ended by itself: {worker.last_words}")
                worker.kill()
                worker.start()
        self.show(self._progress())

    def _read(self) -> None:
        for event in self.reader.new():
            self.events.append(event)
            if event["what"] == "published":
                self.published.add(event["delivery"])
            elif event["what"] == "finished" and event["state"] != "retry":
                if event["delivery"] in self.done:
                    continue
                self.done.add(event["delivery"])
            else:
                self.senders_running -= event["what"] == "sender ends"
                self.kills += event["what"] == "killed"
                self.outages += event["what"] == "broker down"
                continue
            self.since_progress = time.monotonic()

    def _progress(self) -> str:
        share = min(1, len(self.published) / self.size.deliveries)
        done = f"{len(self.done)} of {len(self.published)} done"
        return f"{self.scenario.name}: sent {share:4.0%}, {done}, {self.kills} kills, {self.outages} outages"

    # The end.

    def _drain(self) -> None:
        """Wait until all is done, Redis says that it has no more, or nothing has moved for longer than anything waits.

        RabbitMQ does not say how many messages the workers have, so there it is the time that decides.
        """
        while not self.published <= self.done:
            self._look()
            quiet = time.monotonic() - self.since_progress
            empty = self.scenario.on_redis and quiet > 3 and not self.stage.servers.left()
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

    def _tell(self, verdict: Verdict, seconds: float) -> None:
        kinds = [event["how"] for event in self.events if event["what"] == "killed"]
        outages = [event["how"] for event in self.events if event["what"] == "broker down"]
        unit = f"{verdict.deliveries} deliveries in {seconds:.0f} s"
        self.say(
            f"  {unit}; killed: {kinds.count('child')} children, {kinds.count('main')} main processes, "
            f"{kinds.count('group')} whole workers; broker: {', '.join(outages) or 'left alone'}"
        )
        self.say(f"  not confirmed by the broker: {verdict.unpublished}, of which run: {verdict.unpublished_but_run}")
        for title, why in (("lost", verdict.lost_why), ("run again", verdict.duplicated_why)):
            for reason, count in why.most_common():
                self.say(f"  {title}: {count}: {reason}")
        for line in verdict.unexplained[:10]:
            self.say(f"  {line}")
        for reason in verdict.broken:
            self.say(f"  BROKEN: {reason}")
        if verdict.broken:
            self.say(f"  journal, database and logs are in {self.stage.home}")
