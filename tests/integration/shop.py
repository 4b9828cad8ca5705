"""The shop as a test sees it from outside: a sender to command, and the journal that all its processes write."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from pytest_celery import CeleryTestWorker

ROOT = Path(__file__).parents[2]
DEADLINE = 30.0

BOOKKEEPING = "tests.integration.project.bookkeeping.scenarios"


def with_outbox(**settings: Any) -> dict[str, str]:
    """The environment of a shop with the outbox, the durable receivers of ``bookkeeping``, and these DEFERRED_SIGNALS.

    A test's fixture ``shop_env`` returns it. Every database of the shop has the tables.
    """
    return {"SHOP_OUTBOX": json.dumps(settings)}


class Shop:
    def __init__(self, home: Path, project: str = "tests.integration.project", **env: str) -> None:
        self.home = home
        self.project = project
        self.journal = home / "journal"
        self.journal.touch()
        self.env = {
            "DJANGO_SETTINGS_MODULE": f"{project}.settings",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            "SHOP_JOURNAL": str(self.journal),
            "SHOP_VISIBILITY_TIMEOUT": "3600",
            **env,
        }
        self.queue = env["SHOP_QUEUE"]
        self._sender: subprocess.Popen[str] | None = None

    def call(self, scenario: str, **arguments: Any) -> Any:
        """Have the sender run a scenario; return its result."""
        if self._sender is None:
            with (self.home / "sender.log").open("ab") as log:
                self._sender = subprocess.Popen(
                    [sys.executable, "-m", self.project],
                    env={**os.environ, **self.env},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
        assert self._sender.stdin
        assert self._sender.stdout
        self._sender.stdin.write(json.dumps([scenario, arguments]) + "\n")
        self._sender.stdin.flush()
        # Not select.select(), which knows no file descriptors above 1023.
        if not wait([self._sender.stdout.fileno()], DEADLINE):
            raise TimeoutError(f"{scenario} did not answer in {DEADLINE} s.\n{self.story()}")
        answer = self._sender.stdout.readline()
        assert answer, f"the sender ended in {scenario}.\n{self.story()}"
        said = json.loads(answer)
        assert "error" not in said, said["error"]
        return said["result"]

    def books(self, scenario: str, **arguments: Any) -> Any:
        """Have the sender run a scenario of ``bookkeeping``, which is there with the outbox."""
        return self.call("elsewhere", path=f"{BOOKKEEPING}.{scenario}", **arguments)

    def notes(self, what: str, **fields: Any) -> list[dict[str, Any]]:
        """The journal's entries that say ``what``, with these fields."""
        # A line without its end is being written.
        lines = self.journal.read_text().splitlines(keepends=True)
        entries = [json.loads(line) for line in lines if line.endswith("\n")]
        return [note for note in entries if note.items() >= {"what": what, **fields}.items()]

    def wait_for(self, what: str, count: int = 1, **fields: Any) -> list[dict[str, Any]]:
        """Wait until the journal has ``count`` such entries; return them."""
        self.wait_until(lambda: len(self.notes(what, **fields)) >= count, f"{count} times {what} {fields}")
        return self.notes(what, **fields)

    def wait_for_log(self, worker: CeleryTestWorker, text: str) -> None:
        self.wait_until(lambda: text in worker.logs(), f"{text!r} in the worker's log")

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Look often, unlike pytest-celery's own waits, which look once a second."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not in {DEADLINE} s.\n{self.story()}")
            time.sleep(0.01)

    def open_gate(self) -> None:
        (self.home / "gate").touch()

    def log(self) -> str:
        """What the sender's process logged."""
        return (self.home / "sender.log").read_text()

    def story(self) -> str:
        """The journal and all logs, for whoever must find out why."""
        files = [self.journal, *sorted(self.home.glob("*.log"))]
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')}" for file in files)

    def close(self) -> None:
        if self._sender is None:
            return
        try:
            self._sender.communicate(timeout=DEADLINE)  # the end of its input ends it
        finally:
            self._sender.kill()
            self._sender.wait()
        assert self._sender.returncode == 0, self.story()
