"""The relay as Celery's workers and ``manage.py relay_outbox`` run it, with the real broken thing each time."""

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from typing import Any

import psutil
import pytest
import redis as redis_client
from pytest_celery import CeleryTestBroker

from deferred_signals.outbox.processes import name_of
from tests.servers import Process

from .conftest import Hire
from .local_nodes import WorkerProcess
from .shop import DEADLINE, Shop, with_outbox

REDIS_SQLITE = pytest.mark.parametrize("stack", ["redis-sqlite"], indirect=True)
REDIS_POSTGRESQL = pytest.mark.parametrize("stack", ["redis-postgresql"], indirect=True)


@pytest.fixture
def settings() -> dict[str, Any]:
    """DEFERRED_SIGNALS of the shop. A lease is longer than a test waits, so nothing comes of one that runs out."""
    return {"LEASE": 300, "RING_AGAIN": 1}


@pytest.fixture
def shop_env(settings: dict[str, Any]) -> dict[str, str]:
    return with_outbox(**settings)


def relays_of(worker: WorkerProcess) -> list[psutil.Process]:
    children = psutil.Process(worker._process.pid).children()
    return [child for child in children if any("relay_process" in word for word in child.cmdline())]


def relay_of(shop: Shop, worker: WorkerProcess) -> psutil.Process:
    """The process of a worker's relay, as soon as it is there."""
    shop.wait_until(lambda: len(relays_of(worker)) == 1, "the relay's process")
    return relays_of(worker)[0]


def turns(worker: WorkerProcess) -> int:
    """How often a relay of this worker has become the leader."""
    return len(re.findall(rb"The relay of 'default' is \d+@", worker.logs()))


def leading(shop: Shop, worker: WorkerProcess) -> psutil.Process:
    """The process of a worker's relay, as soon as it leads."""
    shop.wait_until(lambda: turns(worker) == 1, "a relay that leads")
    return relay_of(shop, worker)


def all_succeed(shop: Shop, count: int) -> None:
    shop.wait_until(lambda: shop.books("states") == {"succeeded": count}, f"{count} deliveries that have succeeded")


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def manage(shop: Shop, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "django", *words]
    return subprocess.run(program, env={**os.environ, **shop.env, **env}, capture_output=True, text=True, check=False)


@pytest.fixture
def broker(celery_broker: CeleryTestBroker) -> Process:
    server: Process = celery_broker.container._container
    return server


# What it rings for.


def test_durable_deliveries_are_run_and_their_rows_say_so(shop: Shop, hire: Hire):
    hire("--concurrency=1")
    shop.books("send", signal="sale", count=3)
    all_succeed(shop, 3)
    assert shop.books("bookings") == [1, 2, 3]


def test_what_waits_for_its_countdown_is_run_then_although_no_message_waits_for_it(shop: Shop, hire: Hire):
    hire("--concurrency=1")
    shop.books("send", signal="reminder_due", count=3)
    all_succeed(shop, 3)
    assert len(shop.notes("remind")) == 3


def test_a_retry_is_a_row_and_is_rung_for_when_it_is_due(shop: Shop, hire: Hire):
    hire("--concurrency=1")
    shop.books("send", signal="refund_due")
    all_succeed(shop, 1)
    assert [note["attempt"] for note in shop.notes("refund")] == [1, 2]
    assert len({note["delivery"] for note in shop.notes("refund")}) == 1


@REDIS_POSTGRESQL
@pytest.mark.parametrize("settings", [{"NOTIFY": True}])
def test_with_notify_only_the_relay_rings(shop: Shop, hire: Hire, broker: Process):
    broker.stop()
    shop.books("send", signal="sale", count=3)  # the sender does not find out
    assert "broker" not in shop.log()
    broker.start()
    broker.wait_ready()
    hire("--concurrency=1")
    all_succeed(shop, 3)
    shop.books("send", signal="sale", first=4)
    all_succeed(shop, 4)


@REDIS_SQLITE
def test_what_redis_has_forgotten_is_rung_for_again(shop: Shop, hire: Hire, broker: Process):
    shop.books("send", signal="sale", count=120)
    with redis_client.Redis(port=broker.port or 0) as redis:
        assert redis.llen(shop.queue) == 2
        redis.flushall()
    hire("--concurrency=1")
    all_succeed(shop, 120)
    assert shop.books("bookings") == list(range(1, 121))


def knocks(relay: psutil.Process, port: int, times: int) -> None:
    """Stand in the place of a broker that is away until a relay has tried so often to reach it; answer nobody."""
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(DEADLINE)
        while times:
            connection, peer = server.accept()
            # The worker and the sender knock as well.
            times -= peer[1] in {one.laddr.port for one in relay.net_connections("tcp4")}
            connection.close()


@pytest.mark.parametrize("stack", ["redis-sqlite", "redis-postgresql"], indirect=True)
def test_what_was_sent_while_the_broker_was_down_is_delivered_without_another_send(
    shop: Shop, hire: Hire, broker: Process
):
    worker = hire("--concurrency=1")
    relay = leading(shop, worker)
    broker.stop()
    shop.books("send", signal="sale", count=3)
    shop.wait_until(lambda: b"does not take doorbells" in worker.logs(), "the relay finds the broker away")
    # In which an attempt that is used up wrongly would be.
    knocks(relay, broker.port or 0, 3)
    assert {row["attempt"] for row in shop.books("rows")} == {1}
    broker.start()
    broker.wait_ready()
    shop.wait_until(lambda: b"takes doorbells again" in worker.logs(), "the relay finds the broker back")
    all_succeed(shop, 3)
    assert shop.books("bookings") == [1, 2, 3]


@pytest.mark.parametrize("stack", ["rabbitmq-postgresql"], indirect=True)
def test_a_rabbitmq_that_restarts_is_found_again(shop: Shop, hire: Hire, broker: Process):
    worker = hire("--concurrency=1")
    leading(shop, worker)
    broker.stop()
    shop.books("send", signal="sale", count=3)
    shop.wait_until(lambda: b"does not take doorbells" in worker.logs(), "the relay finds the broker away")
    broker.start()
    broker.wait_ready()
    all_succeed(shop, 3)


# What becomes of it.


def test_the_relay_that_is_killed_is_started_again_and_leads_again(shop: Shop, hire: Hire):
    worker = hire("--concurrency=1")
    leading(shop, worker).kill()
    shop.books("send", signal="reminder_due", count=3)  # which only a relay rings for
    all_succeed(shop, 3)
    assert b"The relay's process has ended (exit code -9)" in worker.logs()
    assert turns(worker) == 2


def test_another_workers_relay_takes_over_when_all_of_a_worker_is_killed(shop: Shop, hire: Hire):
    first = hire("--concurrency=1")
    relay = leading(shop, first)
    second = hire("--concurrency=1")
    relay_of(shop, second)
    relay.suspend()  # so it cannot give its lead up
    first.kill()
    relay.kill()
    shop.books("send", signal="reminder_due", count=3)
    shop.wait_until(lambda: turns(second) == 1, "the end of the leader's lease, of 15 s")
    all_succeed(shop, 3)


@REDIS_SQLITE
@pytest.mark.parametrize("pool", ["prefork", "solo", "threads", "gevent"])
def test_it_runs_in_every_pool_and_ends_with_a_warm_shutdown(shop: Shop, hire: Hire, pool: str):
    worker = hire("-P", pool, "-c", "2")
    relay = leading(shop, worker)
    shop.books("send", signal="reminder_due")
    all_succeed(shop, 1)
    worker.kill("SIGTERM")
    shop.wait_until(lambda: worker.status == "exited", "the worker's end")
    shop.wait_until(lambda: is_gone(relay), "the relay's end")
    assert b"The relay's process has ended" not in worker.logs()


@REDIS_SQLITE
@pytest.mark.parametrize("pool", ["prefork", "solo", "threads", "gevent"])
def test_it_ends_with_a_cold_shutdown(shop: Shop, hire: Hire, pool: str):
    worker = hire("-P", pool, "-c", "2")
    relay = leading(shop, worker)
    worker.kill("SIGQUIT")
    shop.wait_until(lambda: is_gone(relay), "the relay's end")


@REDIS_SQLITE
def test_a_worker_that_is_killed_leaves_no_relay_although_its_child_lives_on(shop: Shop, hire: Hire):
    worker = hire("--concurrency=1")
    relay = leading(shop, worker)
    shop.books("send", signal="audit_due", seconds=3600)
    [started] = shop.wait_for("audit started")
    os.kill(worker._process.pid, signal.SIGKILL)
    worker._process.wait()
    shop.wait_until(lambda: is_gone(relay), "the relay's end")
    assert psutil.pid_exists(started["pid"])
    shop.open_gate()


@REDIS_SQLITE
@pytest.mark.parametrize("settings", [{"RELAY": False}])
def test_there_is_none_where_the_settings_say_so(shop: Shop, hire: Hire):
    worker = hire("--concurrency=1")
    shop.books("send", signal="sale")
    all_succeed(shop, 1)
    assert relays_of(worker) == []


# Lost children.


def test_what_a_killed_child_ran_runs_again_long_before_its_lease_ends(shop: Shop, hire: Hire):
    worker = hire("--concurrency=1")
    leading(shop, worker)
    shop.books("send", signal="atomic_audit_due", seconds=3600)
    [first] = shop.wait_for("book_audit started")
    killed = time.monotonic()
    os.kill(first["pid"], signal.SIGKILL)
    [_, second] = shop.wait_for("book_audit started", 2)
    assert time.monotonic() - killed < 30  # of 300
    assert [first["crashes"], second["crashes"]] == [0, 1]
    shop.open_gate()
    all_succeed(shop, 1)
    assert shop.books("bookings") == [1]


@REDIS_POSTGRESQL
@pytest.mark.parametrize("settings", [{"LEASE": 300, "RING_AGAIN": 1, "CRASH_LIMIT": 1}])
def test_a_quarantined_delivery_tells_of_the_process_and_of_the_signal(shop: Shop, hire: Hire):
    worker = hire("--concurrency=1")
    leading(shop, worker)
    shop.books("send", signal="audit_due", seconds=3600)
    [first] = shop.wait_for("audit started")
    os.kill(first["pid"], signal.SIGKILL)
    shop.wait_until(lambda: shop.books("states") == {"dead": 1}, "the quarantine")
    [error] = shop.books("errors")
    assert f"{name_of(first['pid'])}, signal 9 (SIGKILL)" in error
    assert len(shop.notes("audit started")) == 1


@REDIS_POSTGRESQL
@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_what_a_killed_worker_without_children_ran_runs_again_before_its_lease_ends(shop: Shop, hire: Hire, pool: str):
    worker = hire("-P", pool, "-c", "1")
    relay = leading(shop, worker)
    shop.books("send", signal="audit_due", seconds=3600)
    shop.wait_for("audit started")
    worker.kill()
    hire("--concurrency=1")
    [_, second] = shop.wait_for("audit started", 2)
    assert second["crashes"] == 1
    shop.wait_until(lambda: is_gone(relay), "the relay's end")
    shop.open_gate()
    all_succeed(shop, 1)


# The command.


@pytest.mark.parametrize("settings", [{"RELAY": False, "RING_AGAIN": 1}])
def test_a_backlog_is_drained_by_the_command_and_says_how_much(shop: Shop, hire: Hire):
    shop.books("send", signal="reminder_due", count=250)
    hire("--concurrency=1")
    shop.wait_until(lambda: shop.books("due") == 250, "their countdown is over")
    done = manage(shop, "relay_outbox", "--once")
    assert (done.returncode, done.stdout) == (0, "default: rung for 250 of 250 deliveries that are due\n"), done.stderr
    all_succeed(shop, 250)
    assert manage(shop, "relay_outbox", "--once").stdout == "default: rung for 0 of 0 deliveries that are due\n"


@pytest.mark.parametrize("stack", ["redis-sqlite", "rabbitmq-postgresql", "redis-mariadb"], indirect=True)
@pytest.mark.parametrize("settings", [{"RELAY": False, "RING_AGAIN": 3600}])
def test_several_that_work_at_once_ring_once_for_each_row(shop: Shop):
    shop.books("send", signal="reminder_due", count=1200)
    shop.wait_until(lambda: shop.books("due") == 1200, "their countdown is over")
    program = [sys.executable, "-m", "django", "relay_outbox", "--once"]
    started = [
        subprocess.Popen(program, env={**os.environ, **shop.env}, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    said = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [0] * 4
    assert sum(int(re.findall(r"rung for (\d+) of", text)[0]) for text in said) == 1200
    assert shop.books("rings") == [1]


@REDIS_SQLITE
@pytest.mark.parametrize("settings", [{"RELAY": False, "RING_AGAIN": 3600}])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_rings_until_it_is_asked_to_end_and_gives_its_lead_up(shop: Shop, hire: Hire, number: int):
    program = [sys.executable, "-m", "django", "relay_outbox"]
    process = Process(program, home=shop.home, env=shop.env)
    try:
        shop.books("send", signal="reminder_due", count=3)
        shop.wait_until(lambda: b"rung for 3 deliveries" in process.logs(), "three rings")
        process._process.send_signal(number)
        assert process._process.wait(30) == 0
        assert process.logs().endswith(b"The relay has ended.\n")
        assert shop.books("leader") == ""
    finally:
        process.remove()


@REDIS_SQLITE
@pytest.mark.parametrize("settings", [{"RELAY": False}])
def test_the_command_says_that_the_broker_is_away(shop: Shop, broker: Process):
    broker.stop()
    shop.books("send", signal="reminder_due")
    shop.wait_until(lambda: shop.books("due") == 1, "its countdown is over")
    done = manage(shop, "relay_outbox", "--once")
    assert done.returncode == 1
    assert "rung for 0 of 1" in done.stdout
    assert "The broker does not take doorbells" in done.stderr


# A worker's relay knows what the worker knows.


@REDIS_SQLITE
def test_it_has_the_workers_app_and_settings_although_only_the_worker_knows_where_they_are(shop: Shop):
    """A project in the worker's directory. Its package does not import its app, no variable names its settings."""
    home = shop.home / "elsewhere"
    (home / "solitary").mkdir(parents=True)
    (home / "solitary" / "__init__.py").touch()
    (home / "solitary" / "settings.py").write_text(
        textwrap.dedent(
            f"""
            SECRET_KEY = "solitary"
            INSTALLED_APPS = ["deferred_signals", "deferred_signals.outbox", "solitary"]
            DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": {str(home / "db")!r},
                                     "OPTIONS": {{"timeout": 20, "transaction_mode": "IMMEDIATE"}}}}}}
            USE_TZ = True
            CELERY_BROKER_URL = {shop.env["SHOP_BROKER_URL"]!r}
            CELERY_TASK_DEFAULT_QUEUE = {shop.queue!r}
            DEFERRED_SIGNALS = {{"RING_AGAIN": 1}}
            """
        )
    )
    (home / "solitary" / "queue.py").write_text(
        textwrap.dedent(
            """
            import os
            from celery import Celery

            os.environ.setdefault("DJANGO_SETTINGS_MODULE", "solitary.settings")
            lonely = Celery("solitary")
            lonely.config_from_object("django.conf:settings", namespace="CELERY")
            lonely.autodiscover_tasks()
            """
        )
    )
    (home / "solitary" / "tasks.py").write_text(  # which only autodiscovery imports
        textwrap.dedent(
            """
            from deferred_signals import Signal, receiver

            sent = Signal()

            @receiver(sent, deferred=True, durable=True, countdown=1, queue="solitary")
            def heard(sender, **kwargs):
                open("heard", "a").write("x")
            """
        )
    )
    (home / "send.py").write_text(
        textwrap.dedent(
            """
            import solitary.queue, django
            django.setup()
            from django.core.management import call_command
            from django.db import transaction
            call_command("migrate", verbosity=0)
            from solitary.tasks import sent
            with transaction.atomic():
                sent.send(None)
            """
        )
    )
    env = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    env["PYTHONPATH"] = shop.env["PYTHONPATH"]
    subprocess.run([sys.executable, "send.py"], cwd=home, env=env, check=True)
    program = [sys.executable, "-m", "celery", "-A", "solitary.queue:lonely", "worker", "--loglevel=INFO", "-c", "1"]
    with (home / "log").open("wb") as log:
        worker = subprocess.Popen(
            [*program, "-Q", f"{shop.queue},solitary"], cwd=home, env=env, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        shop.wait_until((home / "heard").exists, "the receiver's run")
    except AssertionError:
        print((home / "log").read_text())
        raise
    finally:
        worker.terminate()
        worker.wait(30)
    assert "The relay of 'default' is" in (home / "log").read_text()  # what it logs reaches the worker's stderr
    assert (home / "heard").read_text() == "x"
