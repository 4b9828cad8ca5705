"""``manage.py deferred_doctor`` on real brokers with real workers: what it finds, and that it never hangs."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from celery import Celery
from pytest_celery import CeleryTestBroker

from tests.servers import Process

from .conftest import Stack
from .local_nodes import WorkerProcess
from .shop import Shop

PROJECT = "tests.integration.project.clinic"
DOCS = Path(__file__).parents[2] / "docs"
#: A broker that says nothing is asked twice at most; the rest is Python's start on a busy machine.
BOUND = 20.0
BILLS = f"{PROJECT}.receivers.send_bill"


class Said(NamedTuple):
    code: int
    report: dict[str, Any]
    seconds: float

    def lines(self, title: str) -> list[tuple[str, str]]:
        """Marks and texts of a section."""
        [section] = [section for section in self.report["sections"] if section["title"] == title]
        return [(one["mark"], one["text"]) for one in section["findings"]]

    def wrong(self) -> list[str]:
        """All texts of problems and warnings."""
        found = [one for section in self.report["sections"] for one in section["findings"]]
        return [one["text"] for one in found if one["mark"] in {"warning", "problem"}]


@pytest.fixture(params=["redis-sqlite", "rabbitmq-sqlite"])
def stack(request: pytest.FixtureRequest) -> Stack:
    """What differs is the broker."""
    return Stack(*request.param.split("-"))


@pytest.fixture
def clinic(celery_broker: CeleryTestBroker, tmp_path: Path) -> Iterator[Shop]:
    """A project for which nobody works yet. It has a channel of its own for Celery's remote control."""
    name = f"clinic-{tmp_path.parent.name}-{tmp_path.name}"[-60:]
    env = {
        "DJANGO_SETTINGS_MODULE": f"{PROJECT}.settings",
        "SHOP_BROKER_URL": celery_broker.config()["host_url"],
        "SHOP_DATABASE_URL": f"sqlite://{tmp_path}/clinic.sqlite3",
        "SHOP_QUEUE": name,
        "SHOP_SETTINGS": json.dumps({"CELERY_CONTROL_EXCHANGE": name}),
    }
    with closing(Shop(tmp_path, **env)) as shop:
        yield shop


Hire = Callable[..., Process]


@pytest.fixture
def hire(clinic: Shop) -> Iterator[Hire]:
    """Start a worker, with these options and in this environment."""
    with ExitStack() as stack:

        def hire(*options: str, **env: str) -> Process:
            quiet = ["--loglevel=INFO", "--pool=solo", "--without-mingle", "--without-gossip", "-n", "ward@clinic"]
            program = [sys.executable, "-m", "celery", "-A", "tests.integration.project.celery", "worker"]
            worker = WorkerProcess([*program, *quiet, *options], home=clinic.home, env={**clinic.env, **env})
            stack.callback(worker.remove)
            return worker.wait_ready()

        yield hire


def command(shop: Shop, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "django", "deferred_doctor", "--no-color", *options],
        env={**os.environ, **shop.env, **env},
        cwd=shop.home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def ask(shop: Shop, *options: str, **env: str) -> Said:
    begun = time.monotonic()
    done = command(shop, "--json", *options, **env)
    assert done.stdout, done.stderr
    assert "Traceback" not in done.stderr
    return Said(done.returncode, json.loads(done.stdout), time.monotonic() - begun)


def broker_name(clinic: Shop) -> str:
    return clinic.env["SHOP_BROKER_URL"].partition("://")[0]


def test_all_is_well(clinic: Shop, hire: Hire):
    hire()
    said = ask(clinic)
    assert said.wrong() == []
    assert (said.code, said.report["healthy"]) == (0, True)
    [(mark, text)] = said.lines("Workers")
    assert (mark, text.partition(" (")[0]) == ("ok", "ward@clinic knows all receivers of its queues")
    assert said.lines("Queues") == [
        ("ok", f"{clinic.queue}: consumed by ward@clinic (9 receivers, 0 messages waiting).")
    ]


@pytest.mark.parametrize("stack", ["rabbitmq-sqlite"], indirect=True)
def test_a_queue_that_sender_and_worker_declare_differently_is_a_problem(clinic: Shop, hire: Hire):
    hire()
    settings = json.loads(clinic.env["SHOP_SETTINGS"]) | {"CELERY_TASK_DEFAULT_QUEUE_TYPE": "quorum"}
    [text] = ask(clinic, SHOP_SETTINGS=json.dumps(settings)).wrong()
    assert text.startswith(
        f"{clinic.queue}: ward@clinic declares it as a classic queue, this process as a quorum one: RabbitMQ refuses"
    )


@pytest.mark.parametrize("stack", ["redis-sqlite"], indirect=True)
def test_nothing_of_it_is_left_in_redis(clinic: Shop):
    with redis_of(clinic) as client:
        assert ask(clinic, "--timeout=0.2").lines("Broker")[-1][0] == "ok"
        # What there is belongs to Celery's own remote control, which notes where it listened for answers.
        left = [*client.keys("*"), *client.zrange("_kombu.binding_deadlines", 0, -1)]
        assert [name for name in left if b"pidbox" not in name] in ([], [b"_kombu.binding_deadlines"])


@contextmanager
def redis_of(clinic: Shop) -> Iterator[Any]:
    app = Celery(broker=clinic.env["SHOP_BROKER_URL"], set_as_current=False, fixups=[])
    with app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        yield channel.client


@pytest.mark.parametrize("stack", ["redis-sqlite"], indirect=True)
def test_a_redis_whose_memory_is_full_takes_no_messages(clinic: Shop):
    with redis_of(clinic) as client:
        client.config_set("maxmemory", 1)
    said = ask(clinic)
    assert said.code == 1
    [text] = said.wrong()
    assert "does not take messages: " in text
    assert "command not allowed when used memory > 'maxmemory'" in text


@pytest.mark.parametrize("stack", ["rabbitmq-sqlite"], indirect=True)
def test_a_rabbitmq_with_a_memory_alarm_takes_no_messages_and_does_not_freeze_the_doctor(
    clinic: Shop, celery_broker: CeleryTestBroker
):
    server = celery_broker.container._container
    server.ctl("set_vm_memory_high_watermark", "0.0000001")
    try:
        said = ask(clinic, "--timeout=1")
    finally:
        server.ctl("set_vm_memory_high_watermark", "0.4")
    assert said.code == 1
    [text] = said.wrong()
    assert text.endswith(" takes connections but no messages: no answer within 1 s.")
    assert said.seconds < BOUND


def test_without_a_worker_it_says_what_waits_and_how_to_start_one(clinic: Shop):
    clinic.call("send", signal="payment_due")
    said = ask(clinic, "--timeout=0.5")
    assert said.code == 1
    assert said.lines("Workers") == [("problem", "There is no worker to be seen: no worker answered within 0.5 s.")]
    assert said.lines("Queues") == [
        ("problem", f"{clinic.queue}: no worker consumes it (9 receivers, 1 message waiting).")
    ]


def test_a_queue_that_no_worker_consumes_is_named_with_its_receivers(clinic: Shop, hire: Hire):
    hire()
    said = ask(clinic, CLINIC_BILLS="bills")
    assert said.code == 1
    text = {"redis": "no worker consumes it"}.get(
        broker_name(clinic), "it does not exist yet, for no worker ever consumed it"
    )
    assert said.wrong() == [f"bills: {text} (1 receiver, 0 messages waiting)."]
    findings = [one for section in said.report["sections"] for one in section["findings"] if one["mark"] == "problem"]
    assert findings[0]["cure"] == f"celery -A ... worker --queues bills (for {BILLS})"
    hire("-n", "bills@clinic", "--queues=bills")
    assert ask(clinic, CLINIC_BILLS="bills").wrong() == []


def test_a_worker_of_an_older_release_lacks_a_receiver(clinic: Shop, hire: Hire):
    hire(CLINIC_RELEASE="old")
    said = ask(clinic)
    assert said.wrong() == [f"ward@clinic does not know {BILLS}: no worker can run it."]
    hire("-n", "new@clinic")
    said = ask(clinic)
    assert said.wrong() == [f"ward@clinic does not know {BILLS}: its deliveries wait until another worker takes them."]
    assert said.code == 0
    assert command(clinic, "--fail-level=warning").returncode == 1


@pytest.mark.parametrize("stack", ["redis-sqlite"], indirect=True)
def test_a_worker_with_another_key_would_let_every_delivery_die(clinic: Shop, hire: Hire):
    settings = json.loads(clinic.env["SHOP_SETTINGS"]) | {
        "SECRET_KEY": "quite another key than that of the sender " * 2
    }
    hire(SHOP_SETTINGS=json.dumps(settings))
    said = ask(clinic)
    assert said.wrong() == ["ward@clinic does not accept the signature of this process: every delivery would be dead."]
    assert "quite another key" not in json.dumps(said.report)


@pytest.mark.parametrize("stack", ["redis-sqlite"], indirect=True)
def test_a_worker_without_our_app_would_throw_deliveries_away(clinic: Shop, hire: Hire):
    settings = json.loads(clinic.env["SHOP_SETTINGS"]) | {"INSTALLED_APPS": []}
    hire(SHOP_SETTINGS=json.dumps(settings))
    assert ask(clinic).wrong() == ["ward@clinic has no task deferred_signals.deliver: it would throw deliveries away."]


def test_workers_that_may_not_be_asked_are_no_problem(clinic: Shop, hire: Hire):
    settings = json.loads(clinic.env["SHOP_SETTINGS"]) | {"CELERY_WORKER_ENABLE_REMOTE_CONTROL": False}
    hire(SHOP_SETTINGS=json.dumps(settings))
    # The worker's settings say so, this process's do not.
    said = ask(clinic, "--timeout=0.5")
    assert said.lines("Workers")[0][0] == "problem"
    # RabbitMQ counts who consumes; Redis does not know them.
    known = broker_name(clinic) != "redis"
    assert ("by workers that did not answer" in said.lines("Queues")[0][1]) is known
    # As they should be: the same in both.
    said = ask(clinic, "--timeout=0.5", SHOP_SETTINGS=json.dumps(settings))
    assert said.code == 0
    assert said.lines("Workers")[0][0] == "note"
    assert said.lines("Queues")[0][0] == ("warning" if known else "note")


def test_a_broker_that_is_down_is_the_problem_and_all_that_is_said(clinic: Shop, celery_broker: CeleryTestBroker):
    celery_broker.kill()
    said = ask(clinic)
    celery_broker.restart()
    assert said.code == 1
    [text] = said.wrong()
    assert re.match(r"(redis|amqp)://\S+ cannot be reached: OperationalError: .*refused", text)
    assert said.lines("Workers") == [("note", "Not looked at. They cannot be asked without the broker.")]
    assert said.seconds < BOUND


def test_a_broker_that_is_frozen_does_not_freeze_the_doctor(clinic: Shop, celery_broker: CeleryTestBroker):
    celery_broker.kill("SIGSTOP")
    try:
        said = ask(clinic, "--timeout=1")
    finally:
        celery_broker.kill("SIGCONT")
    assert said.code == 1
    [text] = said.wrong()
    assert text.endswith(" does not answer: no answer within 1 s.")
    assert said.seconds < BOUND


def normal(text: str) -> list[str]:
    """What differs from run to run, taken out."""
    for pattern, stands in [
        (r"\d+ ms", "N ms"),
        (r"deferred_signals [\w.]+", "deferred_signals V"),
        (r"(Python|Django|Celery|kombu|redis) \d+[\w.]*", r"\1 V"),
        (r"localhost:\d+", "localhost:PORT"),
        (r"redis://(127\.0\.0\.1|localhost)", "redis://localhost"),
    ]:
        text = re.sub(pattern, stands, text)
    return text.strip().splitlines()


@pytest.mark.parametrize("stack", ["redis-sqlite"], indirect=True)
def test_the_sample_in_the_documentation_is_what_it_prints(clinic: Shop, hire: Hire):
    settings = json.loads(clinic.env["SHOP_SETTINGS"]) | {"INSTALLED_APPS": ["deferred_signals", PROJECT]}
    env = {"SHOP_SETTINGS": json.dumps(settings), "CLINIC_BILLS": "bills", "CLINIC_LETTERS_AFTER": "7200"}
    hire(**env)
    done = command(clinic, **env)
    sample = re.search(
        r"```console\n\$ python manage\.py deferred_doctor\n(.*?)```", (DOCS / "doctor.md").read_text(), re.DOTALL
    )
    assert sample
    printed = (
        (done.stdout + done.stderr).replace(clinic.queue, "shop").replace(f"{PROJECT}.receivers", "shop.receivers")
    )
    assert normal(printed) == normal(sample[1])
