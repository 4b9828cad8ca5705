"""A process of relays, one thread for each database: of ``manage.py relay_outbox``, or spawned by a worker.

A worker gives it what it knows as JSON, see ``bootstep``. Over its standard input it says which of its children it has
lost, ``lost <pid> <how>``, and ``bye``. The process ends when its worker says so or is gone.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from multiprocessing.connection import wait
from typing import Any

import django
from celery.app import app_or_default
from django.conf import settings
from django.db import router

logger = logging.getLogger("deferred_signals")

#: Seconds between two looks for the worker, and between two reports.
PAUSE = 1.0
#: Seconds that a thread has to finish its batch.
GRACE = 10.0


class Line:
    """What the worker says; its pid is ``parent``."""

    def __init__(self, fd: int, parent: int) -> None:
        self.fd = fd
        self.parent = parent
        self._rest = b""
        self._said_bye = False
        self._closed = False

    def read(self) -> list[tuple[int, str]]:
        """Read what is there to be read: the children that were lost, and how."""
        data = os.read(self.fd, 65536)
        self._closed = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        lost = []
        for line in lines:
            word, _, rest = line.decode().partition(" ")
            if word == "bye":
                self._said_bye = True
            elif word == "lost":
                pid, _, how = rest.partition(" ")
                lost.append((int(pid), how))
        return lost

    @property
    def is_over(self) -> bool:
        """Whether the worker has said so, or is gone. Its children may hold their end of the pipe for long."""
        return self._said_bye or self._closed or self.is_broken

    @property
    def is_broken(self) -> bool:
        """Whether the worker is gone that has not said so."""
        return not self._said_bye and os.getppid() != self.parent

    def breaks(self) -> bool:
        """The same, of a pipe that has just ended: a process hangs up a little before it is gone."""
        until = time.monotonic() + PAUSE
        while self._closed and not self._said_bye and not self.is_broken and time.monotonic() < until:
            time.sleep(PAUSE / 100)
        return self.is_broken


Report = Callable[[Sequence[Any]], None]


def run(aliases: Sequence[str], line: Line | None = None, report: Report | None = None) -> None:
    """Run a relay for each alias until SIGTERM or SIGINT, or until the worker at the other end of ``line`` ends.

    ``report`` is called about once a second with the relays. To be called in the main thread.
    """
    relays = [import_module("deferred_signals.outbox.relay").Relay(alias) for alias in aliases]
    threads = [threading.Thread(target=one.run, name=f"relay-{one.alias}", daemon=True) for one in relays]
    with _stop_signals() as stopped:
        for thread in threads:
            thread.start()
        heard: list[int] = [stopped] if line is None else [stopped, line.fd]
        while line is None or not line.is_over:
            ready = wait(heard, PAUSE)
            if stopped in ready:
                break
            if line is not None and line.fd in ready:
                for pid, how in line.read():
                    for relay in relays:
                        relay.lost(pid, how)
            if report is not None:
                report(relays)
        if line is not None and line.breaks():
            # In pools without children it has run the receivers itself.
            for relay in relays:
                relay.lost(line.parent, "its process ended", is_gone=True)
        for relay in relays:
            relay.stop()
        for thread in threads:
            thread.join(GRACE)
        if report is not None:
            report(relays)


@contextmanager
def _stop_signals() -> Iterator[int]:
    """A file descriptor that can be read after SIGTERM or SIGINT."""
    reading, writing = os.pipe()

    def stop(number: int, frame: Any) -> None:
        os.write(writing, b"s")

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield reading
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


def aliases_for_the_outbox() -> list[str]:
    """The databases that may have one, by the project's routers."""
    model = import_module("deferred_signals.outbox.models").OutboxDelivery
    return [alias for alias in settings.DATABASES if router.allow_migrate_model(alias, model)]


def know_receivers() -> None:
    """Import what a worker would: receivers say on which queues their doorbells are."""
    try:
        app_or_default().loader.import_default_modules()
    except Exception:
        logger.exception("Not all modules of the project could be imported; unknown receivers are rung for by default")


def main(said: str, fd: int = 0) -> None:
    """What a worker spawns; ``said`` is its JSON, and ``fd`` what it talks over."""
    known = json.loads(said)
    app = None
    if known["app"] is not None:
        module, name = known["app"]
        app = getattr(import_module(module), name)
        app.set_default()
    django.setup()
    know_receivers()  # first, for Celery has Django set up its logging then
    (app or app_or_default()).log.setup(known["loglevel"], known["logfile"], hostname=known["hostname"])
    run(aliases_for_the_outbox(), Line(fd, known["pid"]))
