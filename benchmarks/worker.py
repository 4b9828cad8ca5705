"""The Celery app of the benchmarks' workers, and a worker as a process: ``celery -A benchmarks.worker``."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import worker_ready

from tests.servers import Process

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")

app = Celery("benchmarks")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf["broker_url"] = os.environ.get("BENCH_BROKER", "memory://")
if reuse := os.environ.get("BENCH_DB_REUSE_MAX"):
    # Otherwise Celery closes the database connection after each task.
    app.conf["CELERY_DB_REUSE_MAX"] = int(reuse)
for module in ("arriving", "receiving"):
    app.autodiscover_tasks(["benchmarks"], related_name=module)


@worker_ready.connect
def _say_ready(**kwargs: Any) -> None:
    # By default a worker's log says nothing of it, nor of each task.
    print("The worker is ready.", flush=True)


class Measured(Process):
    """A process of which is known what it takes."""

    def cpu_seconds(self) -> float:
        """The CPU time of the process and of those that it has started, so far."""
        ticks = 0
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = entry.read_text().rpartition(")")[2].split()
                if int(fields[2]) == self._process.pid:  # its process group
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


class Worker(Measured):
    """A ``celery worker`` with so many processes; ``reuse``: it keeps its database connections."""

    ready_line = " ready."

    def __init__(self, home: Path, broker: str, *, queue: str = "celery", concurrency: int = 1, reuse: bool) -> None:
        env = {
            "BENCH_BROKER": broker,
            "BENCH_DB_REUSE_MAX": "100000" if reuse else "",
            "BENCH_WORKER": "1",
            "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        }
        words = f"-A benchmarks.worker worker -Q {queue} -n {queue}@%h -c {concurrency} -l WARNING --without-mingle"
        super().__init__(
            [sys.executable, "-m", "celery", *words.split(), "--without-gossip", "--without-heartbeat"],
            home=home,
            env=env,
        )


class Cluster(Measured):
    """The workers of Django Q2, by which django-q-signals runs its receivers; two, as the settings say."""

    def __init__(self, home: Path, broker: str, **given: Any) -> None:
        env = {"BENCH_BROKER": broker, "BENCH_WORKER": "1", "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
        super().__init__([sys.executable, "-m", "django", "qcluster"], home=home, env=env)
