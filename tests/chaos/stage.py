"""Where a run takes place: its directory, its servers, and the processes of the project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.servers import Process

from .arms import VARIABLE as ARMS
from .journal import VARIABLE
from .scenarios import Scenario, Servers

ROOT = Path(__file__).parents[2]
PROJECT = "tests.chaos.project"

#: Settings of the outbox, in seconds: short, for a run waits for them.
LEASE = 3.0
RING_AGAIN = 1.5


class Worker(Process):
    """``celery worker`` with two children."""

    ready_line = " ready."

    @property
    def pid(self) -> int:
        """Of the main process."""
        return self._process.pid

    @property
    def working(self) -> bool:
        with suppress(RuntimeError):  # it has ended
            return self.ready()
        return False

    @property
    def status_code(self) -> int | None:
        return self._process.poll()

    @property
    def last_words(self) -> str:
        """The last line of its log that tells of a fault, or the last line."""
        lines = self.logs().decode(errors="replace").splitlines()
        return next((line for line in reversed(lines) if "CRITICAL" in line or "Error" in line), lines[-1])

    def wait(self) -> None:
        """Until its main process has ended."""
        self._process.wait()


class Stage:
    """A context manager: the servers run, and the database has its tables; at the end all processes are gone.

    The directory ``home`` stays, for whoever must find out why; ``forget`` removes it.
    """

    def __init__(self, scenario: Scenario, breaking: str = "") -> None:
        self.scenario = scenario
        self.breaking = breaking
        self.home = Path(tempfile.mkdtemp(prefix=f"deferred-signals-chaos-{scenario.name}-"))
        self.journal = self.home / "journal.jsonl"
        self.workers: list[Worker] = []
        self.senders: list[Worker] = []

    def __enter__(self) -> Self:
        self.servers = Servers(self.scenario, self.home)
        self.env = self.servers.env | {
            VARIABLE: str(self.journal),
            "DJANGO_SETTINGS_MODULE": f"{PROJECT}.settings",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            "TMPDIR": str(self.home),
            "CHAOS_BREAK": self.breaking,
            **(self._outbox() if self.scenario.outbox else {}),
        }
        try:
            self.python("tables", "create")
        except BaseException:
            self.servers.remove()
            raise
        return self

    def _outbox(self) -> dict[str, str]:
        settings = {
            "LEASE": LEASE,
            "RING_AGAIN": RING_AGAIN,
            "RETENTION": None,
            "OUTSIDE_TRANSACTION": "raise",
            "RELAY": self.breaking != "no-relay",
        }
        return {"CHAOS_OUTBOX": json.dumps(settings), ARMS: str(self.home / "arms")}

    def __exit__(self, *exception: object) -> None:
        for process in [*self.workers, *self.senders]:
            process.remove()
        self.servers.remove()

    def python(self, module: str, *arguments: str) -> str:
        """Run a module of the project; return what it says. Raises RuntimeError when it fails."""
        command = [sys.executable, "-m", f"{PROJECT}.{module}", *arguments]
        done = subprocess.run(command, env={**os.environ, **self.env}, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{module} failed:\n{done.stderr}")
        return done.stdout

    def start_worker(self) -> Worker:
        program = [sys.executable, "-m", "celery", "-A", f"{PROJECT}.celery", "worker"]
        options = ["--loglevel=INFO", "--concurrency=2", "--without-mingle", "--without-gossip"]
        name = f"chaos{len(self.workers)}@localhost"
        self.workers.append(Worker([*program, *options, "-n", name], home=self.home, env=self.env))
        return self.workers[-1]

    def start_sender(self, module: str, *arguments: str) -> None:
        """Its number comes first among the arguments."""
        command = [sys.executable, "-m", f"{PROJECT}.{module}", str(len(self.senders)), *arguments]
        self.senders.append(Worker(command, home=self.home, env=self.env))

    def forget(self) -> None:
        shutil.rmtree(self.home)
