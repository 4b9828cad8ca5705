"""pytest-celery's nodes on local processes: its containers wrap a ``tests.servers.Process`` instead of a Docker one.

Broker nodes and worker nodes stay pytest-celery's own; only the fixtures that would start containers are ours, in
``conftest``. With ``DEFERRED_SIGNALS_TEST_DOCKER=1`` the brokers run in pytest-celery's containers. The worker is a
local process either way: it must see this checkout and the test's database.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar, Self

from celery import Celery
from pytest_celery import (
    CeleryTestContainer,
    CeleryTestSetup,
    CeleryWorkerContainer,
    RabbitMQContainer,
    RedisContainer,
)

from tests.servers import Process, RabbitMQ, Redis

DOCKER = bool(os.environ.get("DEFERRED_SIGNALS_TEST_DOCKER"))


class LocalContainer(CeleryTestContainer):
    """Asks the process for what pytest-celery reads from Docker's network facts and live logs."""

    _container: Process

    @classmethod
    def of(cls, process: Process) -> Self:
        return cls(process.wait_ready())

    def ready(self) -> bool:
        return self._container.ready()

    def restart(self, timeout: float = 20) -> None:
        self._container.restart(timeout)
        self._container.wait_ready()

    @property
    def port(self) -> int | None:
        return self._container.port

    @property
    def hostname(self) -> str:
        return "localhost"

    @property
    def url(self) -> Any:
        return self.host_url  # the worker stands in the same network as the test


class LocalRedis(LocalContainer, RedisContainer):
    _container: Redis

    def version(self) -> str:
        return self._container.version


class LocalRabbitMQ(LocalContainer, RabbitMQContainer):
    _container: RabbitMQ

    def version(self) -> str:
        return self._container.version


class WorkerProcess(Process):
    """A ``celery worker`` of a project."""

    ready_line: ClassVar[str] = " ready."

    @classmethod
    def of_project(cls, home: Path, env: dict[str, str], project: str, name: str, *options: str) -> Self:
        """Start one with these options, under a name that is its own on its queue."""
        program = [sys.executable, "-m", "celery", "-A", f"{project}.celery", "worker"]
        usual = ["--loglevel=INFO", "--without-mingle", "--without-gossip", "-n", f"{name}@{env['SHOP_QUEUE']}"]
        return cls([*program, *usual, *options], home=home, env=env | {"TMPDIR": str(home)})

    def stop(self, timeout: float = 60) -> None:
        """Ask it, and wait for its end: to kill one that takes long would give back deliveries that have run.

        A child waits up to 30 s for its main process to take its last result.
        """
        if self.status == "running":
            self._process.send_signal(self.stop_signal)
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                log = self.logs().decode(errors="replace")
                raise AssertionError(
                    f"{self.name} was asked to stop, and still runs after {timeout} s:\n{log}"
                ) from None
        self.kill()


class LocalWorker(LocalContainer, CeleryWorkerContainer):
    """A ``celery worker`` of the shop; one child, so that deliveries are run in the order of the queue."""

    @classmethod
    def start(cls, home: Path, env: dict[str, str], project: str = "tests.integration.project") -> Self:
        return cls.of(WorkerProcess.of_project(home, env, project, "shop", "--concurrency=1"))


class Setup(CeleryTestSetup):
    @classmethod
    def create_setup_app(cls, celery_setup_config: dict[str, Any], celery_setup_app_name: str) -> Celery:
        """A plain app that can put messages into the broker; the shop's own app lives in the shop's processes."""
        # Not the current app: the tests that run in this process have theirs.
        return Celery(celery_setup_app_name, set_as_current=False, fixups=[], changes=celery_setup_config)
