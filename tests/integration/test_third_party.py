"""What third parties' applications send in real use, through a real broker and worker: the tests of ``third_party``.

One Redis and one worker for all of them; the visits wait for the worker after each page.
"""

import sys
from collections.abc import Iterator

import pytest

from tests.servers import Redis
from tests.third_party.test_applications import PROJECT, Arrivals, Journal, environment, visit

from .conftest import covered, need
from .local_nodes import WorkerProcess


@pytest.fixture(autouse=True)
def _redis(request: pytest.FixtureRequest) -> None:
    need(request, Redis)
    covered(request, Redis.title, request.getfixturevalue("redis").version)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    server = Redis(tmp_path_factory.mktemp("redis")).wait_ready()
    yield server
    server.remove()


@pytest.fixture(scope="module")
def journal(redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journal]:
    home = tmp_path_factory.mktemp("magazine")
    broker = {"MAGAZINE_BROKER_URL": f"redis://127.0.0.1:{redis.port}/0"}
    program = [sys.executable, "-m", "celery", "-A", f"{PROJECT}.celery", "worker"]
    options = ["--loglevel=INFO", "--concurrency=1", "--without-mingle", "--without-gossip", "-n", "magazine@localhost"]
    worker = WorkerProcess([*program, *options], home=home, env=environment(home, **broker) | {"TMPDIR": str(home)})
    worker.wait_ready()
    try:
        yield visit(home, **broker)
    except BaseException:
        print(worker.logs().decode(errors="replace"))
        raise
    finally:
        worker.remove()


class TestThroughAWorker(Arrivals):
    def test_the_receivers_run_on_the_worker(self, journal: Journal) -> None:
        senders = {entry["pid"] for entry in journal.of("sent") if entry["signal"].startswith("allauth.")}
        workers = {entry["pid"] for entry in journal.of("arrived")}
        assert len(senders) == len(workers) == 1
        assert senders.isdisjoint(workers)
        # What a receiver causes is sent by the worker, and delivered as well.
        thumbnails = {entry["pid"] for entry in journal.of("sent") if entry["signal"].endswith(".thumbnail_created")}
        assert thumbnails == workers
