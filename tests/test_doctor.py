"""``manage.py deferred_doctor``, in this process: a broker in memory, a worker in a thread, and what goes wrong."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from io import StringIO
from typing import Any, Self

import pytest
from celery import Celery
from celery.app import app_or_default
from celery.contrib.testing.worker import start_worker
from celery.signals import setup_logging
from cryptography.fernet import Fernet
from django.core.management import CommandError, call_command
from kombu import Queue
from kombu.exceptions import ChannelError

from deferred_signals import Signal, __version__, doctor, worker_control
from deferred_signals.doctor import broker as broker_module
from deferred_signals.doctor import examination
from deferred_signals.doctor.broker import Broker, Depth
from deferred_signals.doctor.findings import Finding, Section
from deferred_signals.doctor.patience import NoAnswer, within
from deferred_signals.doctor.verdicts import judge
from deferred_signals.doctor.workers import Worker, Workers, ask_workers
from deferred_signals.envelope import VERSION, unseal
from deferred_signals.exceptions import OpenError
from deferred_signals.signature import signed
from tests.receivers import first, second

knock = Signal()

PATIENCE = 0.3
FIRST, SECOND = "tests.receivers.first", "tests.receivers.second"


@pytest.fixture
def project(settings: Any) -> Iterator[Any]:
    """Make a project's Celery app the current one, and deliveries go through it."""
    before = app_or_default()
    settings.DEFERRED_SIGNALS = {"BACKEND": "celery"}
    settings.SECRET_KEY = "a key of the tests that is long enough to be nobody's guess"

    def make(broker: str = "memory://", **conf: Any) -> Celery:
        app = Celery("project", broker=broker, set_as_current=False, fixups=[])
        # Else there is something to say wherever the tests' own database is not SQLite.
        reuse = {"CELERY_DB_REUSE_MAX": 1000}
        app.conf.update({"broker_transport_options": {"polling_interval": 0.01}} | reuse | conf)
        app.set_current()
        return app

    yield make
    before.set_current()


@pytest.fixture
def app(project: Any, request: pytest.FixtureRequest) -> Celery:
    """One whose broker is kombu's own, inside this process, with a queue of its own; nobody works for it."""
    made: Celery = project(task_default_queue=request.node.name, control_exchange=request.node.name)
    return made


@pytest.fixture
def worked(app: Celery, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """The same with Celery's worker in a thread of this process."""

    def leave_alone(**kwargs: Any) -> None: ...

    monkeypatch.setenv("CELERY_SKIP_CHECKS", "1")
    setup_logging.connect(leave_alone)
    with start_worker(app, pool="solo", perform_ping_check=False, hostname="here@test"):
        yield app
    setup_logging.disconnect(leave_alone)


def report(patience: float = PATIENCE) -> dict[str, Section]:
    return {section.title: section for section in doctor.examine(patience)}


def said(section: Section) -> list[tuple[str, str]]:
    return [(one.mark, one.text) for one in section.findings]


class TestPatience:
    def test_an_answer_is_returned_and_an_error_raised(self):
        assert within(5, lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            within(5, lambda: 1 / 0)

    def test_what_does_not_answer_is_left_behind(self):
        never = threading.Event()
        with pytest.raises(NoAnswer, match=r"no answer within 0\.01 s"):
            within(0.01, never.wait)
        never.set()


class TestThisProcess:
    def test_it_tells_the_versions(self, app):
        [(mark, text)] = said(report()["Versions"])
        assert mark == "ok"
        assert f"deferred_signals {__version__}, Python 3." in text
        assert all(name in text for name in ("Django ", "Celery ", "kombu "))

    def test_it_counts_the_receivers(self, app, link):
        assert said(report()["This process"])[1] == ("warning", "No deferred receiver is connected.")
        link(knock, first)
        assert said(report()["This process"]) == [
            ("ok", "Deliveries are published by the Celery app 'project'."),
            ("ok", "1 deferred receiver is connected."),
        ]
        link(knock, second)
        assert said(report()["This process"])[1] == ("ok", "2 deferred receivers are connected.")

    def test_without_a_celery_app_that_is_the_problem_and_no_broker_is_asked(self, project):
        Celery("default", set_as_current=True)
        found = report()
        assert found["This process"].findings[0].mark == "problem"
        assert found["This process"].findings[0].text.startswith("This process has no Celery app")
        assert said(found["Broker"]) == [("note", "Not looked at. Deliveries do not go through it.")]
        assert "Workers" not in found

    def test_another_backend_is_a_warning_and_no_broker_is_asked(self, settings):
        settings.DEFERRED_SIGNALS = {"BACKEND": "immediate"}
        found = report()
        assert said(found["This process"])[0] == (
            "warning",
            "The backend is ImmediateBackend: deliveries do not go through Celery.",
        )
        assert said(found["System checks"]) == [
            ("ok", "Nothing to complain about, nor for production (manage.py check --deploy).")
        ]
        assert "Workers" not in found

    def test_eager_tasks_need_no_broker(self, project):
        project(task_always_eager=True)
        found = report()
        assert [one.id for one in found["System checks"].findings] == ["deferred_signals.W201"]
        assert "Workers" not in found

    def test_system_checks_are_run_those_for_production_too(self, project, link, settings):
        project("redis://localhost:1/0", accept_content=["pickle"], task_compression="gzip")
        link(knock, first, time_limit=90)
        marks = {one.id.removeprefix("deferred_signals."): one.mark for one in report()["System checks"].findings}
        assert marks == {"E101": "problem", "W210": "warning", "I201": "note"}
        settings.SILENCED_SYSTEM_CHECKS = [f"deferred_signals.{number}" for number in marks]
        assert [one.mark for one in report()["System checks"].findings] == ["ok"]

    def test_settings_of_celerys_that_cannot_be_read_are_the_problem(self, project):
        project()
        made = Celery("unreadable", set_as_current=False, fixups=[])
        made.config_from_object("tests.nowhere.settings")
        made.set_current()
        found = report()
        assert [one.id for one in found["System checks"].findings] == ["deferred_signals.E106"]
        assert "Workers" not in found


class TestTheBroker:
    def test_that_answers_gives_a_message_back_and_keeps_nothing(self, app):
        channel: Any = app.connection_for_read().default_channel  # kombu's memory is one for all connections
        before = set(channel.queues)
        broker = Broker(app, PATIENCE)
        marks, texts = zip(*said(broker.examine()), strict=True)
        assert set(marks) == {"ok"}
        assert texts[0] == "The transport is memory."
        assert "memory://localhost/ answers (" in texts[1]
        assert "A message was published, came back and is gone (" in texts[2]
        mine = channel.queues.keys() - before
        assert len(mine) == 1
        assert not any(channel.queues[name].qsize() for name in mine)

    @pytest.mark.parametrize("kind", [ImportError, AttributeError])
    def test_without_its_library_is_a_problem(self, app, monkeypatch, kind):
        def missing(**kwargs: Any) -> None:
            raise kind("no such library")

        monkeypatch.setattr(app, "connection_for_write", missing)
        broker = Broker(app, PATIENCE)
        [found] = broker.examine().findings
        assert (found.mark, found.text) == (
            "problem",
            "The library of the transport 'memory' is missing: no such library",
        )
        assert broker.connection is None

    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("reddis://broker/0", "'reddis': KeyError"),
            ("redis://:hunter2/3@broker:6379/0", "'redis': ValueError"),
        ],
    )
    def test_whose_url_is_none_is_a_problem_that_tells_no_password(self, project, link, url, why):
        link(knock, first)
        project(url)
        found = report()
        [(mark, text)] = said(found["Broker"])
        assert (mark, text) == ("problem", f"CELERY_BROKER_URL cannot be read, as one of the transport {why}.")
        assert "hunter2" not in repr(found)

    def test_that_takes_connections_and_says_nothing_is_given_up_in_time(self, project, link):
        """As one that is stopped (SIGSTOP): the kernel still answers for it."""
        link(knock, first)
        with socket.create_server(("127.0.0.1", 0)) as frozen:
            port = frozen.getsockname()[1]
            project(f"redis://:hunter2@127.0.0.1:{port}/0")
            found = report()
        where = f"redis://127.0.0.1:{port}/0"
        assert said(found["Broker"])[1] == ("problem", f"{where} does not answer: no answer within 0.3 s.")
        assert said(found["Workers"]) == [("note", "Not looked at. They cannot be asked without the broker.")]
        assert "Queues" not in found

    def test_that_refuses_is_a_problem(self, project):
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        project(f"amqp://ada:hunter2@127.0.0.1:{port}/shop")
        found = report(5)["Broker"].findings[1]
        assert found.mark == "problem"
        assert found.text.startswith(f"amqp://127.0.0.1:{port}/shop cannot be reached: OperationalError: ")
        assert "CELERY_BROKER_URL" in found.cure

    @pytest.mark.parametrize(
        ("password", "text"),
        [("hunter2", "AuthenticationError: wrong: **"), ("a/b", "AuthenticationError: wrong: ** (**)"), (None, None)],
    )
    def test_no_password_is_in_what_it_says(self, password, text, app):
        class AuthenticationError(Exception): ...

        connection = app.connection_for_write()
        connection.password = password
        error = AuthenticationError("wrong: a/b (a%2Fb)" if password == "a/b" else f"wrong: {password}")
        assert broker_module._said(error, connection) == (text or "AuthenticationError: wrong: None")

    @pytest.mark.parametrize(
        ("url", "where"),
        [
            ("redis://:hunter2@localhost:6380/2", "redis://localhost:6380/2"),
            ("amqp://ada:hunter2@broker//", "amqp://broker:5672/"),
            ("redis+socket:///run/redis.sock", "redis://"),
            ("memory://", "memory://localhost/"),
        ],
    )
    def test_its_address_is_without_user_and_password(self, url, where, project):
        assert broker_module._where(project(url).connection_for_write()) == where

    def test_that_takes_no_messages_is_given_up_in_time(self, app, monkeypatch):
        """As RabbitMQ with a memory alarm."""
        never = threading.Event()
        monkeypatch.setattr(broker_module, "_round_trip", lambda connection: never.wait())
        broker = Broker(app, 0.05)
        found = broker.examine().findings[-1]
        never.set()
        assert (found.mark, found.text) == (
            "problem",
            "memory://localhost/ takes connections but no messages: no answer within 0.05 s.",
        )
        assert "rabbitmq-diagnostics alarms" in found.cure
        assert broker.connection is None

    def test_that_refuses_a_message_is_a_problem(self, app, monkeypatch):
        monkeypatch.setattr(Queue, "get", lambda self, **kwargs: None)
        broker = Broker(app, PATIENCE)
        found = broker.examine().findings[-1]
        assert found.mark == "problem"
        assert found.text == (
            "memory://localhost/ does not take messages: RuntimeError: a message that was published did not arrive in "
            "its queue"
        )
        assert broker.connection is None

    def test_that_does_not_let_the_user_declare_queues_is_asked_all_the_rest(self, app, monkeypatch):
        class AccessRefused(Exception):
            code = 403

        def refuse(connection: Any) -> None:
            raise AccessRefused

        monkeypatch.setattr(broker_module, "_round_trip", refuse)
        broker = Broker(app, PATIENCE)
        assert said(broker.examine())[-1] == (
            "note",
            "A message was not tried: the user may not declare a queue for it.",
        )
        assert broker.connection is not None


class Channel:
    """Answers as RabbitMQ's does."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None: ...

    def queue_declare(self, *, queue: str, passive: bool) -> Any:
        assert passive, "the doctor changes nothing"
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Connection:
    channel_errors = (ChannelError,)

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def channel(self) -> Channel:
        return Channel(self.answer)


class Declared:
    message_count, consumer_count = 5, 2


class TestQueues:
    @pytest.mark.parametrize(
        ("url", "answer", "depth"),
        [
            ("amqp://localhost:1//", Declared, Depth(5, 2)),
            ("redis://localhost:1/0", Declared, Depth(5, None)),
            ("amqp://localhost:1//", ChannelError("(404) NOT_FOUND"), Depth(0, 0, exists=False)),
            ("redis://localhost:1/0", ChannelError("NOT_FOUND"), Depth(0, None, exists=True)),
        ],
    )
    def test_are_looked_into_as_far_as_the_broker_knows(self, url, answer, depth, project):
        connection: Any = Connection(answer)
        assert Broker(project(url), PATIENCE).depth(connection, "shop") == depth

    def look(self, app: Celery, answer: Any, found: Workers, wanted: dict[str, set[str]]) -> list[Finding]:
        section = Section("Queues")
        connection: Any = Connection(answer)
        examination._look_into(section, wanted, Broker(app, PATIENCE), connection, found)
        return section.findings

    def test_that_nobody_consumes_are_a_problem_with_the_command_that_helps(self, project):
        names = {f"shop.receivers.{name}" for name in "abcde"}
        [found] = self.look(project("amqp://localhost:1//"), ChannelError("NOT_FOUND"), Workers(), {"shop": names})
        assert (found.mark, found.text) == (
            "problem",
            "shop: it does not exist yet, for no worker ever consumed it (5 receivers, 0 messages waiting).",
        )
        assert found.cure == (
            "celery -A ... worker --queues shop (for shop.receivers.a, shop.receivers.b, shop.receivers.c and 2 more)"
        )

    @pytest.mark.parametrize(
        ("url", "conf", "mark", "text"),
        [
            ("redis://localhost:1/0", {}, "problem", "no worker consumes it (1 receiver, 5 messages waiting)"),
            (
                "redis://localhost:1/0",
                {"worker_enable_remote_control": False},
                "note",
                "whether it is consumed is not known, for remote control is off",
            ),
            ("amqp://localhost:1//", {}, "warning", "consumed 2 times, by workers that did not answer"),
            (
                "amqp://localhost:1//",
                {"worker_enable_remote_control": False},
                "warning",
                "consumed 2 times, by workers that did not answer",
            ),
        ],
    )
    def test_of_silent_workers_are_judged_by_what_the_broker_knows(self, url, conf, mark, text, project):
        [found] = self.look(project(url, **conf), Declared, Workers(), {"shop": {FIRST}})
        assert found.mark == mark
        assert text in found.text

    def test_that_cannot_be_looked_into_do_not_hide_the_others(self, project):
        app = project("amqp://localhost:1//")
        found = self.look(app, ChannelError("(403) ACCESS_REFUSED"), Workers(), {"a": {FIRST}, "b": {FIRST}})
        assert [(one.mark, one.text) for one in found] == [
            ("warning", f"{queue}: it cannot be looked into: ChannelError: (403) ACCESS_REFUSED") for queue in "ab"
        ]

    def test_of_a_broker_that_stops_answering_are_not_asked_one_by_one(self, project):
        app = project("amqp://localhost:1//")
        [found] = self.look(app, NoAnswer("none"), Workers(), {"a": {FIRST}, "b": {FIRST}})
        assert (found.mark, found.text) == ("problem", "a: the broker stopped answering (none).")

    def test_of_another_type_than_the_worker_declares_are_a_problem(self, project, link, monkeypatch):
        app = project("amqp://localhost:1//", task_default_queue_type="quorum")
        link(knock, first)
        _, types, section = examination._queues(app)
        assert types == {"celery": "quorum"}
        found = [Worker("a@test", {"celery": "classic", "more": "classic"}), Worker("b@test", {"celery": "quorum"})]
        examination._compare(section, types, Workers(found))
        [(mark, text)] = said(section)
        assert mark == "problem"
        assert text.startswith("celery: a@test declares it as a classic queue, this process as a quorum one: RabbitMQ")

    def test_to_which_nothing_leads_are_a_problem_and_exchanges_of_the_projects_own_a_note(self, project, link):
        app = project(task_create_missing_queues=False, task_queues=[Queue("celery")])
        link(knock, first, queue="nowhere")
        link(knock, second, exchange="mails", routing_key="welcome")
        wanted, types, section = examination._queues(app)
        assert (wanted, types) == ({}, {})
        assert [mark for mark, _ in said(section)] == ["problem", "note"]
        assert f"{FIRST} leads to no queue: QueueNotFound" in section.findings[0].text
        assert f"{SECOND} goes to the exchange 'mails' with the routing key 'welcome'" in section.findings[1].text


class TestWorkers:
    def test_one_that_is_well_is_said_to_be(self, worked, link, request):
        queue = request.node.name
        link(knock, first)
        link(knock, second, aliases=("tests.receivers.former",))
        found = report()
        assert {one.id for section in found.values() for one in section.findings if one.mark != "ok"} == {
            "deferred_signals.W205"  # memory:// is a broker for play
        }
        assert said(found["Workers"]) == [
            ("ok", f"here@test knows all receivers of its queues (deferred_signals {__version__}).")
        ]
        assert said(found["Queues"]) == [("ok", f"{queue}: consumed by here@test (2 receivers, 0 messages waiting).")]

    def test_one_on_rabbitmq_is_also_asked_for_the_types_of_its_queues(self, worked, link, monkeypatch):
        monkeypatch.setattr(Broker, "is_rabbitmq", True)
        link(knock, first)
        asked = []
        monkeypatch.setattr(examination, "_compare", lambda section, types, known: asked.append((types, known.found)))
        report()
        [(types, [worker])] = asked
        assert types == worker.queues == {worked.conf.task_default_queue: "classic"}

    def test_a_queue_that_it_does_not_consume_is_a_problem(self, worked, link):
        link(knock, first, queue="elsewhere")
        found = report()
        assert said(found["Workers"]) == [("note", "here@test consumes none of the queues of deferred receivers.")]
        assert said(found["Queues"]) == [
            ("problem", "elsewhere: no worker consumes it (1 receiver, 0 messages waiting).")
        ]

    def test_none_is_a_problem(self, app, link):
        link(knock, first)
        found = report(0.05)
        assert said(found["Workers"]) == [
            ("problem", "There is no worker to be seen: no worker answered within 0.05 s.")
        ]

    def test_none_is_no_problem_where_they_may_not_be_asked(self, app, link):
        app.conf.worker_enable_remote_control = False
        link(knock, first)
        found = report(0.05)
        assert [mark for mark, _ in said(found["Workers"])] == ["note"]
        assert [mark for mark, _ in said(found["Queues"])] == ["note"]

    def test_a_broker_that_freezes_in_between_is_given_up(self, app, monkeypatch):
        never = threading.Event()
        monkeypatch.setattr(app.control, "broadcast", lambda *args, **kwargs: never.wait())
        broker = Broker(app, 0.01)
        broker.examine()
        assert broker.connection
        assert ask_workers(app, broker.connection, 0.01).silence == "the broker stopped answering"
        never.set()

    @staticmethod
    def worker(**told: Any) -> Worker:
        answer = {"version": "1", "wire": VERSION, "receivers": {FIRST: []}, "time": 0.0, "same_key": True, **told}
        return Worker("w@test", {"shop": "classic"}, has_task=True, told=answer)

    def judged(self, *found: Worker, app: Celery | None = None, namesakes: list[str] | None = None) -> Section:
        known = Workers(list(found), namesakes or [])
        return judge(known, {"shop": {FIRST}}, app or Celery(set_as_current=False, fixups=[]), {FIRST, SECOND})

    def test_one_without_our_app_would_throw_deliveries_away(self):
        [found] = self.judged(Worker("w@test", {"shop": "classic"})).findings
        assert (found.mark, found.text) == (
            "problem",
            "w@test has no task deferred_signals.deliver: it would throw deliveries away.",
        )

    def test_one_of_an_older_release_cannot_tell(self):
        [found] = self.judged(Worker("w@test", {"shop": "classic"}, has_task=True)).findings
        assert found.mark == "warning"
        assert "it runs an older release of deferred_signals" in found.text

    def test_one_whose_settings_are_wrong_says_so(self, settings):
        settings.DEFERRED_SIGNALS = {"MAX_AGE": "never"}
        told = worker_control.tell(None, asked="x", encrypted="x")
        assert (told["same_key"], told["can_open"]) == (None, None)
        [found] = self.judged(Worker("w@test", {"shop": "classic"}, has_task=True, told=told)).findings
        assert found.mark == "problem"
        assert "w@test can run no delivery, for its settings are wrong: DEFERRED_SIGNALS['MAX_AGE']" in found.text

    def test_one_that_lacks_a_receiver_is_a_problem_unless_another_has_it(self):
        lacking = self.worker(receivers={})
        [found] = self.judged(lacking).findings
        assert (found.mark, found.text) == ("problem", f"w@test does not know {FIRST}: no worker can run it.")
        marks = [one.mark for one in self.judged(lacking, self.worker()).findings]
        assert marks == ["warning", "ok"]

    def test_a_receiver_may_be_known_by_its_former_name(self):
        assert [one.mark for one in self.judged(self.worker(receivers={"shop.r": [FIRST]})).findings] == ["ok", "note"]

    def test_receivers_that_only_it_knows_are_a_note(self):
        found = self.judged(self.worker(receivers={FIRST: [], SECOND: [], "blog.receivers.r": []}))
        assert said(found)[1] == (
            "note",
            "w@test also knows blog.receivers.r: another project's, or another release's.",
        )

    @pytest.mark.parametrize(
        ("wire", "mark"), [(VERSION - 1, "problem"), (VERSION, "ok"), (VERSION + 1, "ok"), (VERSION + 2, "problem")]
    )
    def test_one_must_read_what_this_process_writes(self, wire, mark):
        assert [one.mark for one in self.judged(self.worker(wire=wire)).findings] == [mark]

    def test_one_with_another_key_is_a_problem(self):
        [found] = self.judged(self.worker(same_key=False)).findings
        assert found.text == "w@test does not accept the signature of this process: every delivery would be dead."

    def test_one_that_cannot_decrypt_is_a_problem(self):
        [found] = self.judged(self.worker(can_open=False)).findings
        assert found.text.startswith("w@test cannot decrypt what this process encrypts")

    @pytest.mark.parametrize(
        ("ahead", "uncertain", "text"),
        [
            (90.0, 0.1, "The clock of w@test is 90 s ahead"),
            (-90.0, 0.1, "The clock of w@test is 90 s behind"),
            (90.0, 89.0, None),
            (1.5, 0.0, None),
        ],
    )
    def test_clocks_that_are_apart_are_a_warning(self, ahead, uncertain, text, monkeypatch):
        worker = self.worker()
        worker.ahead, worker.within = ahead, uncertain
        [found] = self.judged(worker).findings
        assert found.mark == ("warning" if text else "ok")
        assert text is None or found.text.startswith(text)

    def test_two_of_one_name_are_a_warning(self):
        found = self.judged(self.worker(), namesakes=["w@test"])
        assert said(found)[0] == ("warning", "Several workers are called w@test.")

    def test_answers_that_are_errors_are_no_answers(self, app, monkeypatch):
        """An older release does not know our command, and a worker may fail to answer any of them."""

        def broadcast(command: str, *, callback: Any, **kwargs: Any) -> list[dict[str, Any]] | None:
            reply = {"w@test": {"ok": "pong"} if command == "ping" else {"error": "KeyError('deferred_signals')"}}
            callback(reply)
            return [reply, {"late@test": []}] if command != "ping" else [reply, reply]

        monkeypatch.setattr(app.control, "broadcast", broadcast)
        broker = Broker(app, PATIENCE)
        broker.examine()
        assert broker.connection
        found = ask_workers(app, broker.connection, PATIENCE)
        assert (found.found, found.namesakes) == ([Worker("w@test")], ["w@test"])

    @pytest.mark.parametrize(
        "answer",
        [
            7,
            [7, {"name": 7, "queue_arguments": 7}, {}],
            {"receivers": 7},
            {"receivers": {"shop.r": 7}, "wire": 1, "time": 1},
            {"receivers": {}, "wire": "1", "time": 1},
            {"receivers": {}, "wire": 1, "time": "now"},
        ],
    )
    def test_answers_of_strangers_are_no_answers(self, answer, app, monkeypatch):
        def broadcast(command: str, *, callback: Any, **kwargs: Any) -> list[dict[str, Any]]:
            callback({"w@test": answer})
            return [{"w@test": answer}]

        monkeypatch.setattr(app.control, "broadcast", broadcast)
        broker = Broker(app, PATIENCE)
        broker.examine()
        assert broker.connection
        [found] = ask_workers(app, broker.connection, PATIENCE).found
        assert (found.has_task, found.told) == (False, None)


class TestWhatAWorkerTells:
    def test_is_names_and_numbers(self, link):
        link(knock, first, aliases=("tests.receivers.former",))
        told = worker_control.tell(None)
        assert told.pop("time") > 0
        assert told == {
            "version": __version__,
            "wire": VERSION,
            "receivers": {FIRST: ["tests.receivers.former"]},
            "wrong": None,
            "same_key": None,
            "can_open": None,
        }

    def test_is_whether_it_has_our_key_but_nothing_about_its_own(self, settings):
        asked = worker_control.question("nonce")
        assert worker_control.tell(None, asked=asked)["same_key"] is True
        settings.SECRET_KEY = "another key"
        told = worker_control.tell(None, asked=asked)
        assert told["same_key"] is False
        assert "another key" not in json.dumps(told)

    def test_no_question_is_asked_about_encryption_where_it_is_not_installed(self, settings, monkeypatch):
        settings.DEFERRED_SIGNALS = {"ENCRYPTION_KEYS": [Fernet.generate_key()]}
        monkeypatch.setitem(sys.modules, "cryptography.fernet", None)
        assert worker_control.token() is None

    def test_is_whether_it_can_decrypt(self, settings):
        assert worker_control.token() is None
        settings.DEFERRED_SIGNALS = {"ENCRYPTION_KEYS": [Fernet.generate_key()]}
        token = worker_control.token()
        assert worker_control.tell(None, encrypted=token)["can_open"] is True
        for keys in ([Fernet.generate_key()], None):
            settings.DEFERRED_SIGNALS = {"ENCRYPTION_KEYS": keys}
            assert worker_control.tell(None, encrypted=token)["can_open"] is False

    @pytest.mark.parametrize("asked", [7, "", "the doctor asks x", ["the doctor asks"], {}])
    def test_whatever_it_is_asked_it_answers(self, asked):
        told = worker_control.tell(None, asked=asked, encrypted=asked, more="of it")
        assert (told["same_key"], told["can_open"]) == (False, False)

    def test_a_delivery_is_no_question_and_a_question_no_delivery(self):
        assert not worker_control.is_ours(signed('{"v":1}'))
        with pytest.raises(OpenError):
            unseal(worker_control.question("nonce"))


class TestTheCommand:
    @pytest.fixture
    def findings(self, monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
        """What the examination finds."""
        found: list[Finding] = []

        def examine(patience: float) -> Iterator[Section]:
            yield Section("Workers", found)

        monkeypatch.setattr("deferred_signals.management.commands.deferred_doctor.examine", examine)
        return found

    @staticmethod
    def run(*options: str, **more: Any) -> tuple[str, str]:
        out = StringIO()
        try:
            call_command("deferred_doctor", *options, stdout=out, no_color=True, **more)
        except CommandError as error:
            return out.getvalue(), f"{error} ({error.returncode})"
        return out.getvalue(), ""

    def test_shows_a_mark_per_line_and_the_cure_beneath(self, findings):
        findings += [
            Finding("ok", "All is well."),
            Finding("note", "Only a note."),
            Finding("warning", "It may rain.", "Take an umbrella.", "deferred_signals.W101"),
        ]
        out, error = self.run()
        assert out.splitlines() == [
            "Workers",
            "  ok       All is well.",
            "  note     Only a note.",
            "  warning  It may rain. [deferred_signals.W101]",
            "           -> Take an umbrella.",
            "",
            "Healthy, with 1 warning.",
        ]
        assert error == ""

    def test_shows_nothing_that_a_terminal_would_obey(self, findings):
        findings += [Finding("problem", "w\x1b[2J\n  ok  @test", "rm\x07")]
        assert self.run()[0].splitlines()[1:] == ["  problem  w?[2J?  ok  @test", "           -> rm?"]

    def test_ends_with_1_where_there_is_a_problem(self, findings):
        findings += [Finding("problem", "It rains."), Finding("warning", "It may hail."), Finding("warning", "So.")]
        assert self.run()[1] == "1 problem, 2 warnings. (1)"

    def test_ends_with_1_where_there_is_a_warning_if_that_is_asked_for(self, findings):
        findings += [Finding("warning", "It may rain.")]
        assert self.run("--fail-level=warning")[1] == "0 problems, 1 warning. (1)"
        assert self.run("--fail-level=problem")[1] == ""

    def test_verbosity_0_shows_only_what_is_wrong(self, findings):
        findings += [Finding("ok", "All is well."), Finding("note", "A note.")]
        assert self.run(verbosity=0)[0] == "\nHealthy, with 0 warnings.\n"
        findings += [Finding("problem", "It rains.")]
        assert self.run(verbosity=0)[0] == "Workers\n  problem  It rains.\n"

    def test_json_is_one_object_whatever_is_found(self, findings):
        findings += [Finding("ok", "All is well."), Finding("problem", "It rains.", "Go in.", "deferred_signals.E101")]
        out, error = self.run("--json")
        assert error
        assert json.loads(out) == {
            "healthy": False,
            "counts": {"ok": 1, "note": 0, "warning": 0, "problem": 1},
            "sections": [
                {
                    "title": "Workers",
                    "findings": [
                        {"mark": "ok", "text": "All is well.", "cure": "", "id": ""},
                        {"mark": "problem", "text": "It rains.", "cure": "Go in.", "id": "deferred_signals.E101"},
                    ],
                }
            ],
        }
        findings.clear()
        assert json.loads(self.run("--json")[0])["healthy"] is True

    @pytest.mark.parametrize("timeout", ["0", "-1", "soon", "nan", "inf", "3601"])
    def test_a_timeout_is_a_number_of_seconds(self, timeout):
        with pytest.raises(CommandError, match=f"'{timeout}' is no number of seconds between 0 and 3600"):
            call_command("deferred_doctor", f"--timeout={timeout}")

    def test_runs_from_end_to_end(self, worked, link):
        link(knock, first)
        out, error = self.run("--timeout=0.3")
        assert error == ""
        assert out.splitlines()[-1] == "Healthy, with 1 warning."
        assert [line for line in out.splitlines() if line and line[0] != " "][:-1] == [
            "Versions", "This process", "System checks", "Broker", "Workers", "Queues"
        ]  # fmt: skip
