"""The relay in Celery's workers: a bootstep that spawns its process, starts it again when it ends, and ends with it.

Imported in workers only. Spawned and never forked: a fork of the worker would share the worker's sockets.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from celery import bootsteps
from celery.apps.worker import Worker

from deferred_signals import conf, worker_request

logger = logging.getLogger("deferred_signals")

#: Seconds until a process that has ended is started again: at first and at most; it begins anew after one that lasted.
PAUSE, LONGEST_PAUSE = 1.0, 60.0
#: Seconds that the process has to end with its worker.
GRACE = 5.0
#: Lines that are kept for a process that is not there yet.
MOST_LINES = 1000


_PROGRAM = "import os, sys; os.setsid(); from deferred_signals.outbox.relay_process import main; main(sys.argv[1])"


class Supervisor:
    """Keeps one process running, and holds the pipe to its standard input."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self.argv = argv
        self.env = env
        self.process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._lines: deque[bytes] = deque(maxlen=MOST_LINES)
        self._pipe: int | None = None
        # Of this process's threads. Its forks do not use it.
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._supervise, name="deferred_signals-relay", daemon=True)

    def start(self) -> None:
        """Called by Celery."""
        self._thread.start()

    def stop(self) -> None:
        """Called by Celery at a warm shutdown, when the pool has finished."""
        self.terminate()
        self._thread.join(GRACE)
        if self._thread.is_alive() and self.process is not None:
            self.process.kill()

    def terminate(self) -> None:
        """Called by Celery at a cold shutdown: have the process end, and do not wait for it."""
        self._stopping.set()
        self._say(b"bye\n")
        self._hang_up()

    def lost(self, pid: int, how: str) -> None:
        """Tell the process that a child of the pool was lost. Never waits."""
        self._say(f"lost {pid} {' '.join(how.split())}\n".encode())

    def _say(self, line: bytes) -> None:
        with self._lock:
            self._lines.append(line)
            self._flush()

    def _flush(self) -> None:
        while self._pipe is not None and self._lines:
            try:
                os.write(self._pipe, self._lines[0])
            except OSError:
                return  # it is busy, or ended: the next line, or the next process, takes it along
            self._lines.popleft()

    def _hang_up(self) -> None:
        with self._lock:
            if self._pipe is not None:
                os.close(self._pipe)
                self._pipe = None

    def _supervise(self) -> None:
        pause = PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                how = f"exit code {self._run()}"
            except OSError as error:
                how = str(error)
            self._hang_up()
            if self._stopping.is_set():
                return
            if self.process is not None:
                self.lost(self.process.pid, how)  # the next one need not wait until its lease as the leader runs out
            if time.monotonic() - began > LONGEST_PAUSE:
                pause = PAUSE
            logger.warning("The relay's process has ended (%s), and is started again in %g s", how, pause)
            self._stopping.wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _run(self) -> int:
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        with self._lock:
            self._pipe = writing
        try:
            # With close_fds=False and without start_new_session (the program does that itself) Python uses posix_spawn.
            # Its own way has a pipe by which a child says that it has begun. A child of the pool that is forked at that
            # moment would hold it for as long as it lives: this thread would wait for that one, and not for the relay.
            self.process = subprocess.Popen(self.argv, stdin=reading, env=self.env, close_fds=False)  # noqa: S603
        finally:
            os.close(reading)
        with self._lock:
            self._flush()
        return self.process.wait()


class RelayStep(bootsteps.StartStopStep):
    """Starts and stops the supervisor with the worker."""

    def include_if(self, parent: Any) -> bool:
        """Not in the worker of a test (``celery.contrib.testing``): the relay would be at work in another database."""
        return isinstance(parent, Worker) and conf.current().relay

    def create(self, parent: Any) -> Any:
        """Called by Celery when the worker is set up."""
        supervisor = Supervisor(*command(parent))
        worker_request.on_loss.append(supervisor.lost)
        return supervisor


def command(worker: Any) -> tuple[list[str], dict[str, str]]:
    """The command that a worker spawns, and its environment."""
    known = {
        "pid": os.getpid(),
        "app": place_of(worker.app),
        "hostname": worker.hostname,
        "loglevel": worker.loglevel,
        "logfile": worker.logfile if isinstance(worker.logfile, str) else None,
    }
    # The directory that it is started in is no place to import from, unless it is one to the worker.
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)  # noqa: PTH100 - "" is the current one
    return [sys.executable, "-P", "-c", _PROGRAM, json.dumps(known)], {**os.environ, "PYTHONPATH": path}


def place_of(app: Any) -> tuple[str, str] | None:
    """The module and the name under which another process can import a Celery app; None if there is none.

    What Celery's ``-A`` has said it does not tell. The first module that has the app is the one that makes it, or its
    package: modules are kept in the order in which they were imported first.
    """
    for module, content in list(sys.modules.items()):
        if module == "__main__" or module.partition(".")[0] in {"celery", "kombu"}:
            continue
        for name, value in list(getattr(content, "__dict__", {}).items()):
            if value is app:
                return module, name
    return None


def install(worker: Any) -> None:
    """Add the bootstep to a worker that is about to be set up."""
    worker.app.steps["worker"].add(RelayStep)
