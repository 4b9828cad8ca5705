"""With what people have: Celery's pools, and other packages installed beside, in a project with its own task class."""

import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
from celery import Celery
from pytest_celery import CeleryTestBroker

from tests.servers import Process

from .conftest import Stack
from .local_nodes import WorkerProcess
from .shop import Shop

NEIGHBOURS = "tests.integration.project.neighbours"
LANGUAGES = ["de", "fr", "es", "ja"]
SECRET = "hunter2"
#: Waiting for other workers takes a second.
QUIET = ("--without-mingle", "--without-gossip")


class BeatProcess(Process):
    ready_line: ClassVar[str] = "beat: Starting"


@pytest.fixture
def stack() -> Stack:
    """One, for what differs here is not the broker."""
    return Stack("redis", "sqlite")


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the tables of the neighbours."""
    home = tmp_path_factory.mktemp("neighbours")
    with closing(neighbourhood(home, f"sqlite://{home}/template.sqlite3", "memory://", {})) as shop:
        shop.call("create_tables")
    return home / "template.sqlite3"


def neighbourhood(home: Path, database: str, broker: str, settings: dict[str, Any]) -> Shop:
    return Shop(
        home,
        DJANGO_SETTINGS_MODULE=f"{NEIGHBOURS}.settings",
        SHOP_DATABASE_URL=database,
        SHOP_BROKER_URL=broker,
        SHOP_QUEUE=f"neighbours-{home.name}",
        SHOP_SETTINGS=json.dumps(settings),
    )


@pytest.fixture
def settings() -> dict[str, Any]:
    """The Django settings that a test adds."""
    return {}


@pytest.fixture
def shop(
    celery_broker: CeleryTestBroker, database_url: str, settings: dict[str, Any], tmp_path: Path
) -> Iterator[Shop]:
    with closing(neighbourhood(tmp_path, database_url, celery_broker.config()["host_url"], settings)) as shop:
        yield shop


Hire = Callable[..., Process]


@pytest.fixture
def hire(shop: Shop) -> Iterator[Hire]:
    """Start a program of Celery's with these options."""
    with ExitStack() as stack:

        def hire(program: str, *options: str, kind: type[Process] = WorkerProcess) -> Process:
            argv = [sys.executable, "-m", "celery", "-A", f"{NEIGHBOURS}.celery", program, "--loglevel=INFO", *options]
            process = kind(argv, home=shop.home, env=shop.env | {"TMPDIR": str(shop.home)})
            stack.callback(process.remove)
            return process.wait_ready()

        yield hire


def call(shop: Shop, scenario: str, **arguments: Any) -> Any:
    return shop.call("elsewhere", path=f"{NEIGHBOURS}.scenarios.{scenario}", **arguments)


@pytest.mark.parametrize(
    ("pool", "concurrency", "side_by_side"),
    [("prefork", 2, False), ("threads", 20, True), ("gevent", 20, True), ("solo", 1, False)],
)
def test_every_pool_runs_all_and_mixes_no_contexts(shop: Shop, hire: Hire, pool, concurrency, side_by_side):
    worker = hire("worker", f"--pool={pool}", f"--concurrency={concurrency}", *QUIET)
    call(shop, "call_many", count=12)
    # The receivers, async and not, and those that are reached through another one.
    shop.wait_for("succeeded", 72)
    assert not shop.notes("retry")
    assert not shop.notes("dead")
    for what in ("inward", "inward_async"):
        notes = shop.notes(what)
        assert sorted(note["number"] for note in notes) == list(range(24))
        assert [note["languages"] for note in notes] == [[LANGUAGES[note["number"] % 4]] * 2 for note in notes]
        assert (max(note["together"] for note in notes) > 1) is side_by_side
    worker.stop()
    assert worker._process.returncode == 0


@pytest.mark.parametrize(
    "settings",
    [
        {
            "CELERY_RESULT_BACKEND": "django-db",
            "CELERY_RESULT_EXTENDED": True,
            "CELERY_TASK_TRACK_STARTED": True,
            "CELERY_TASK_IGNORE_RESULT": False,
            "CELERY_TASK_SEND_SENT_EVENT": True,
            "CELERY_TASK_SERIALIZER": "pickle",
            "CELERY_ACCEPT_CONTENT": ["json"],
        }
    ],
    ids=["everything"],
)
def test_results_in_the_database_and_events_hold_no_values_and_start_no_chain(shop: Shop, hire: Hire):
    watch: list[dict[str, Any]] = []
    app = Celery(broker=shop.env["SHOP_BROKER_URL"], set_as_current=False, fixups=[])
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": watch.append})
        with receiver.consumer_context() as (watching, _, _):
            hire("worker", "--pool=solo", "--task-events", *QUIET)

            def heard(types: set[str], task: str | None = None) -> bool:
                with suppress(TimeoutError):
                    watching.drain_events(timeout=0.05)
                return types <= {event["type"] for event in watch if event.get("uuid") == task}

            # Redis has no events for who has not subscribed yet.
            shop.wait_until(lambda: heard({"worker-heartbeat"}), "a heartbeat")
            kept = call(shop, "keep", secret=SECRET)
            shop.wait_until(lambda: heard({"task-sent", "task-started", "task-succeeded"}, kept), "Celery's events")
    assert SECRET not in repr(watch)
    [row] = call(shop, "results")
    assert (row["task_id"], row["status"]) == (kept, "SUCCESS")
    assert SECRET not in repr(row)
    # The task class of the app that is the default one; the shop's own app came first.
    for what in ("apply_async", "before_start", "called", "on_success"):
        assert {note["task"] for note in shop.notes(what)} == {"deferred_signals.deliver"}
    # The row's own saves reached the receiver that listens to all models, whose result is not kept.
    assert {note["model"] for note in shop.wait_for("any_row")} == {"django_celery_results.TaskResult"}
    shop.wait_until(lambda: len(shop.notes("on_success")) == len(shop.notes("published")), "the end of all deliveries")
    assert len(call(shop, "results")) == 1


@pytest.mark.skipif(not importlib.util.find_spec("django_celery_beat"), reason="not released for this Django yet")
def test_what_beat_runs_sends_and_its_own_rows_can_be_listened_to(shop: Shop, hire: Hire):
    hire("worker", "--pool=solo", *QUIET)
    scheduler = "django_celery_beat.schedulers:DatabaseScheduler"
    call(shop, "schedule")
    hire("beat", f"--scheduler={scheduler}", "--max-interval=1", kind=BeatProcess)
    shop.wait_for("inward")
    assert shop.wait_for("any_row", model="django_celery_beat.PeriodicTask", created=True)
    assert not shop.notes("dead")


def test_the_debug_toolbar_shows_deferred_receivers_by_the_names_of_their_functions(shop: Shop):
    [listeners] = re.findall(r"<td>(greet, .*)</td>", call(shop, "page"))
    assert listeners.split(", ")[:3] == ["greet", "send_welcome_email", "any_row"]


def test_children_of_a_process_that_has_published_already_lose_nothing(shop: Shop, hire: Hire):
    hire("worker", "--pool=solo", *QUIET)
    assert call(shop, "call_in_children", count=4) == [0, 0, 0, 0]
    notes = shop.wait_for("inward", 10)
    assert sorted(note["number"] for note in notes) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
