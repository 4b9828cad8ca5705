"""The process of relays, what it hears of its worker, and the worker's side of it; and the command."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from io import StringIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.apps.worker import Worker
from celery.exceptions import WorkerLostError
from celery.worker import WorkController
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.test.utils import override_settings

from deferred_signals import backends, worker_request
from deferred_signals.exceptions import ConfigurationError, PublishError
from deferred_signals.outbox import apps, bootstep, relay_process
from deferred_signals.outbox.batch import Batch
from deferred_signals.outbox.bootstep import RelayStep, Supervisor, command, place_of
from deferred_signals.outbox.management.commands import relay_outbox
from deferred_signals.outbox.relay_process import Line, aliases_for_the_outbox, run
from tests.outbox.waiting import DEADLINE, wait_until


@pytest.fixture
def pipe() -> Iterator[tuple[int, Callable[[bytes], None]]]:
    """The end that the process reads, and a function that writes to the other one; nothing ends it."""
    reading, writing = os.pipe()
    closed = False

    def say(text: bytes) -> None:
        nonlocal closed
        if text:
            os.write(writing, text)
        else:
            os.close(writing)
            closed = True

    yield reading, say
    os.close(reading)
    if not closed:
        os.close(writing)


class FakeRelay:
    """Notes what the process says to its relays; the real ones are tested in test_relay."""

    made: list["FakeRelay"]

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.heard: list[Any] = []
        self.ended = threading.Event()
        FakeRelay.made.append(self)

    def run(self) -> None:
        self.ended.wait()

    def lost(self, pid: int, how: str, *, is_gone: bool = False) -> None:
        self.heard.append((pid, how, "gone") if is_gone else (pid, how))

    def stop(self) -> None:
        self.heard.append("stop")
        self.ended.set()


@pytest.fixture
def relays(monkeypatch) -> list[FakeRelay]:
    FakeRelay.made = []
    monkeypatch.setattr("deferred_signals.outbox.relay.Relay", FakeRelay)
    return FakeRelay.made


class TestTheProcess:
    def test_hears_of_lost_children_and_ends_when_the_worker_says_bye(self, relays, pipe):
        reading, say = pipe
        say(b"of a newer release\nlost 12 signal 9 (SIGKILL)\nlost 13 exit")
        threading.Timer(0.1, say, [b"code 1\nbye\n"]).start()
        run(["default", "other"], Line(reading, os.getppid()))
        heard = [(12, "signal 9 (SIGKILL)"), (13, "exitcode 1"), "stop"]
        assert [(one.alias, one.heard) for one in relays] == [("default", heard), ("other", heard)]

    def test_ends_when_the_pipe_does(self, relays, pipe, monkeypatch):
        monkeypatch.setattr(relay_process, "PAUSE", 0.05)
        reading, say = pipe
        say(b"")
        run(["default"], Line(reading, os.getppid()))
        assert relays[0].heard == ["stop"]

    def test_ends_when_the_worker_is_gone_although_its_children_hold_the_pipe(self, relays, pipe, monkeypatch):
        reading, _ = pipe
        monkeypatch.setattr(relay_process, "PAUSE", 0.01)
        run(["default"], Line(reading, os.getppid() + 1))
        assert relays[0].heard == [(os.getppid() + 1, "its process ended", "gone"), "stop"]

    def test_waits_a_little_for_the_end_of_a_worker_that_has_hung_up(self, relays, pipe, monkeypatch):
        reading, say = pipe
        say(b"")
        parent = iter([1, 1, 1])
        monkeypatch.setattr(os, "getppid", lambda: next(parent, 2))
        run(["default"], Line(reading, 1))
        assert relays[0].heard == [(1, "its process ended", "gone"), "stop"]

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_ends_with_a_signal_and_leaves_the_handlers_as_they_were(self, relays, number):
        before = signal.getsignal(number)
        threading.Timer(0.2, os.kill, [os.getpid(), number]).start()
        seen: list[int] = []
        run(["default"], report=lambda those: seen.append(len(those)))
        assert relays[0].heard == ["stop"]
        assert signal.getsignal(number) is before
        assert seen == [1]

    def test_reports_about_once_a_second(self, relays, monkeypatch):
        monkeypatch.setattr(relay_process, "PAUSE", 0.01)
        seen: list[Sequence[Any]] = []

        def report(those: Sequence[Any]) -> None:
            seen.append(those)
            if len(seen) == 3:
                os.kill(os.getpid(), signal.SIGTERM)

        run(["default"], report=report)
        assert seen[0] == relays

    def test_is_for_the_databases_that_the_routers_allow(self):
        assert aliases_for_the_outbox() == ["default", "other"]

        class NotThere:
            def allow_migrate(self, alias: str, app_label: str, **hints: Any) -> bool:
                return alias == "other" or app_label != "deferred_signals_outbox"

        with override_settings(DATABASE_ROUTERS=[NotThere()]):
            assert aliases_for_the_outbox() == ["other"]

    def test_goes_on_where_a_module_of_the_project_cannot_be_imported(self, monkeypatch, caplog):
        class Broken:
            def import_default_modules(self) -> None:
                raise ImportError("no module named mail")

        monkeypatch.setattr(relay_process, "app_or_default", lambda: SimpleNamespace(loader=Broken()))
        relay_process.know_receivers()
        assert "could be imported" in caplog.text


class TestWhatAWorkerSpawns:
    @pytest.fixture
    def started(self, relays, pipe, monkeypatch) -> Callable[..., Any]:
        reading, say = pipe
        say(b"bye\n")
        seen: list[Any] = []
        monkeypatch.setattr(
            "celery.app.log.Logging.setup", lambda self, *given, **named: seen.append((self.app, *given, named))
        )

        def start(app: Any) -> Any:
            known = {"pid": os.getppid(), "app": app, "hostname": "w1@here", "loglevel": 20, "logfile": "%n.log"}
            relay_process.main(json.dumps(known), reading)
            return seen

        return start

    def test_takes_over_the_app_and_how_it_logs(self, started, relays, monkeypatch):
        module = ModuleType("lonely_project")
        app = Celery("lonely", set_as_current=False)
        module.lonely = app  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "lonely_project", module)
        became: list[Any] = []
        monkeypatch.setattr(app, "set_default", lambda: became.append(app))
        assert started(["lonely_project", "lonely"]) == [(app, 20, "%n.log", {"hostname": "w1@here"})]
        assert became == [app]
        assert [one.alias for one in relays] == ["default", "other"]

    def test_does_without_an_app_that_nobody_could_import(self, started, relays):
        ((_, level, *_),) = started(None)
        assert level == 20
        assert [one.heard for one in relays] == [["stop"], ["stop"]]


ECHO = "import sys\nfor line in sys.stdin: print(line.strip(), file=open(sys.argv[1], 'a'), flush=True)"


class TestTheSupervisor:
    @pytest.fixture
    def supervised(self, tmp_path, monkeypatch) -> Iterator[Callable[..., Supervisor]]:
        """Supervise a Python program that gets the path of a file to write to."""
        monkeypatch.setattr(bootstep, "PAUSE", 0.01)
        made = []

        def supervise(code: str) -> Supervisor:
            made.append(Supervisor([sys.executable, "-c", code, str(tmp_path / "said")]))
            made[-1].start()
            return made[-1]

        yield supervise
        for one in made:
            one.stop()

    @pytest.fixture
    def said(self, tmp_path) -> Callable[[], list[str]]:
        path = tmp_path / "said"
        return lambda: path.read_text().splitlines() if path.exists() else []

    def test_tells_its_process_what_was_lost_and_bye(self, supervised, said):
        one = supervised(ECHO)
        one.lost(7, "signal 9\n(SIGKILL)")
        wait_until(lambda: said() == ["lost 7 signal 9 (SIGKILL)"], "it has heard")
        process = one.process
        one.stop()
        assert process.returncode == 0
        assert said() == ["lost 7 signal 9 (SIGKILL)", "bye"]

    def test_starts_another_one_when_it_ends_and_tells_it_of_that(self, supervised, said, caplog):
        first = "import sys, os\nif not os.path.exists(sys.argv[1]): open(sys.argv[1], 'w'); sys.exit(3)\n"
        one = supervised(first + ECHO)
        wait_until(lambda: len(said()) == 1, "the second has heard")
        assert said()[0].endswith(" exit code 3")
        assert "The relay's process has ended (exit code 3), and is started again in 0.01 s" in caplog.text
        one.stop()

    def test_waits_longer_each_time_and_begins_anew_after_one_that_lasted(self, supervised, caplog, monkeypatch):
        supervised("raise SystemExit(4)")
        wait_until(lambda: "again in 0.04 s" in caplog.text, "the third")
        monkeypatch.setattr(bootstep, "LONGEST_PAUSE", 0.0)  # whatever time it was, it lasted
        caplog.clear()
        wait_until(lambda: "again in 0.01 s" in caplog.text, "a short pause")

    def test_spawns_without_a_pipe_that_a_fork_of_the_worker_could_hold(self, supervised, said, monkeypatch):
        monkeypatch.setattr(subprocess, "_fork_exec", lambda *args: pytest.fail("this is the way with the pipe"))
        supervised("import sys\nopen(sys.argv[1], 'w').write('on')\nsys.stdin.read()")
        wait_until(lambda: said() == ["on"], "it is there")

    def test_tries_again_where_no_process_can_be_spawned(self, caplog, monkeypatch):
        monkeypatch.setattr(bootstep, "PAUSE", 0.01)
        one = Supervisor(["/nowhere/python"])
        one.start()
        wait_until(lambda: "again in 0.02 s" in caplog.text, "the second")
        one.stop()
        assert "No such file" in caplog.text

    def test_kills_a_process_that_does_not_end(self, supervised, monkeypatch, said):
        monkeypatch.setattr(bootstep, "GRACE", 0.1)
        one = supervised("import sys, time\nopen(sys.argv[1], 'w').write('on')\ntime.sleep(3600)")
        wait_until(lambda: said() == ["on"], "it is there")
        one.stop()
        one._thread.join(DEADLINE)
        assert one.process.returncode == -signal.SIGKILL

    def test_waits_for_nobody_who_does_not_listen(self, supervised, said):
        one = supervised("import sys, time\nopen(sys.argv[1], 'w').write('on')\ntime.sleep(3600)")
        wait_until(lambda: said() == ["on"], "it is there")
        for number in range(5000):  # a pipe takes 64 KiB
            one.lost(number, "signal 9 (SIGKILL)")
        assert len(one._lines) == bootstep.MOST_LINES
        one.process.kill()

    def test_that_is_stopped_before_it_began_starts_nothing(self):
        one = Supervisor(["/nowhere/python"])
        one._stopping.set()
        one.start()
        one.stop()
        assert one.process is None

    def test_that_is_stopped_while_it_spawns_ends_what_it_has_spawned(self, supervised, said, monkeypatch):
        spawn = subprocess.Popen
        one: list[Supervisor] = []

        def late(*args: Any, **kwargs: Any) -> Any:
            one[0].terminate()
            return spawn(*args, **kwargs)

        monkeypatch.setattr(subprocess, "Popen", late)
        one.append(Supervisor([sys.executable, "-c", "import sys; sys.exit(len(sys.stdin.read()))"]))
        one[0].start()
        one[0]._thread.join(DEADLINE)
        assert one[0].process
        assert one[0].process.returncode is not None


class TestTheBootstep:
    @pytest.fixture
    def app(self) -> Celery:
        return Celery("steps", set_as_current=False, broker="memory://")

    def test_is_added_when_a_worker_is_set_up_and_in_no_other_process(self, app):
        assert not any("RelayStep" in str(step) for step in app.steps["worker"])
        apps._have_the_worker_ring(SimpleNamespace(app=app))
        assert RelayStep in app.steps["worker"]

    def test_is_for_celerys_own_worker_unless_the_settings_say_no(self, app):
        worker = object.__new__(Worker)
        step = object.__new__(RelayStep)
        assert step.include_if(worker)
        with override_settings(DEFERRED_SIGNALS={"RELAY": False}):
            assert not step.include_if(worker)
        # Celery's worker for tests: its process has a test's database, which no other can see.
        assert not step.include_if(object.__new__(WorkController))

    def test_hands_lost_children_to_the_supervisor(self, app, monkeypatch):
        monkeypatch.setattr(worker_request, "on_loss", [])
        worker = SimpleNamespace(app=app, loglevel=20, logfile=None, hostname="w1@here")
        made = object.__new__(RelayStep).create(worker)
        assert worker_request.on_loss == [made.lost]

    def test_tells_the_process_what_the_worker_knows(self, app, monkeypatch):
        monkeypatch.setattr(sys, "path", ["", "/srv/project"])
        argv, env = command(SimpleNamespace(app=app, loglevel=10, logfile="/var/log/%n.log", hostname="w1@here"))
        known = json.loads(argv[-1])
        assert known == {
            "pid": os.getpid(),
            "app": None,
            "hostname": "w1@here",
            "loglevel": 10,
            "logfile": "/var/log/%n.log",
        }
        assert env["PYTHONPATH"] == f"{Path.cwd()}{os.pathsep}/srv/project"
        _, env = command(SimpleNamespace(app=app, loglevel=10, logfile=sys.stderr, hostname="w1@here"))
        assert env["DJANGO_SETTINGS_MODULE"] == "tests.settings"

    def test_finds_the_app_where_it_was_made(self, app, monkeypatch):
        assert place_of(app) is None
        main, first, later = ModuleType("__main__"), ModuleType("lonely.queue"), ModuleType("lonely.tasks")
        for module in (main, first, later):
            module.celery_app = app  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, module.__name__, module)
        assert place_of(app) == ("lonely.queue", "celery_app")


class TestALostChild:
    @pytest.fixture
    def told(self, monkeypatch) -> list[Any]:
        told: list[Any] = []
        monkeypatch.setattr(worker_request, "on_loss", [lambda *said: told.append(said)])
        return told

    @pytest.fixture
    def request_of(self, monkeypatch) -> Callable[[int | None], Any]:
        def make(pid: int | None) -> Any:
            one = object.__new__(worker_request.DeliveryRequest)
            one.worker_pid = pid  # type: ignore[assignment]  # celery-types says str
            return one

        monkeypatch.setattr("celery.worker.request.Request.on_failure", lambda *args, **kwargs: None)
        return make

    @pytest.mark.parametrize(
        ("said", "how"),
        [
            ("Worker exited prematurely: signal 9 (SIGKILL) Job: 3.", "signal 9 (SIGKILL)"),
            ("Worker exited prematurely: exitcode 70.", "exitcode 70"),
            ("Something else", "Something else"),
        ],
    )
    def test_is_told_of_with_what_has_ended_it(self, told, request_of, said, how):
        request_of(42).on_failure(SimpleNamespace(exception=WorkerLostError(said)))
        assert told == [(42, how)]

    def test_that_had_not_begun_is_nobodys(self, told, request_of):
        request_of(None).on_failure(
            SimpleNamespace(exception=WorkerLostError("Worker exited prematurely: exitcode 1."))
        )
        assert told == []

    def test_is_not_one_that_a_receiver_raised(self, told, request_of):
        request_of(42).on_failure(SimpleNamespace(exception=WorkerLostError("no")), return_ok=True)
        assert told == []


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
class TestTheCommand:
    @staticmethod
    def run(*words: str, terminal: bool = False) -> str:
        out = StringIO()
        out.isatty = lambda: terminal  # type: ignore[method-assign]
        call_command("relay_outbox", *words, stdout=out, stderr=out)
        return out.getvalue()

    def test_says_how_many_it_has_rung_for(self, monkeypatch):
        monkeypatch.setattr(relay_outbox, "drain", lambda aliases: {alias: Batch(7, 5, None) for alias in aliases})
        assert self.run("--once", "--database", "other") == "other: rung for 5 of 7 deliveries that are due\n"

    def test_rings_for_all_databases_that_have_an_outbox(self):
        assert self.run("--once").splitlines() == [
            "default: rung for 0 of 0 deliveries that are due",
            "other: rung for 0 of 0 deliveries that are due",
        ]

    def test_fails_where_the_broker_is_away(self, monkeypatch):
        refused = Batch(7, 5, PublishError("The broker did not answer for 1 s."))
        monkeypatch.setattr(relay_outbox, "drain", lambda aliases: {"default": refused, "other": Batch(0, 0, None)})
        with pytest.raises(CommandError, match=r"does not take doorbells: PublishError: The broker did not answer"):
            self.run("--once")

    def test_tells_a_machine(self, monkeypatch):
        monkeypatch.setattr(relay_outbox, "drain", lambda aliases: {"other": Batch(7, 5, None)})
        assert json.loads(self.run("--once", "--json")) == {
            "databases": {"other": {"due": 7, "rung": 5}},
            "outage": None,
        }
        refused = Batch(7, 0, PublishError("gone"))
        monkeypatch.setattr(relay_outbox, "drain", lambda aliases: {"other": refused})
        out = StringIO()
        with pytest.raises(CommandError, match="does not take doorbells"):
            call_command("relay_outbox", "--once", "--json", stdout=out)
        assert json.loads(out.getvalue())["outage"] == "PublishError: gone"

    def test_tells_a_machine_only_what_has_an_end(self):
        with pytest.raises(CommandError, match="--json is for --once"):
            self.run("--json")

    def test_fails_where_a_database_ends(self, monkeypatch):
        def away(aliases: Any) -> Any:
            raise OperationalError("server closed the connection")

        monkeypatch.setattr(relay_outbox, "drain", away)
        with pytest.raises(CommandError, match="server closed"):
            self.run("--once")

    def test_knows_no_database_that_is_not_there(self):
        with pytest.raises(CommandError, match="no database 'replica'"):
            self.run("--once", "--database", "replica")

    @pytest.mark.parametrize("words", [[], ["--database", "other"]])
    def test_says_what_to_do_without_tables(self, monkeypatch, words):
        monkeypatch.setattr(relay_outbox, "has_table", lambda alias: False)
        alias = words[-1] if words else "default"
        with pytest.raises(CommandError, match=f"manage.py migrate --database={alias} deferred_signals_outbox"):
            self.run(*words)

    def test_waits_for_a_database_that_is_away_unless_it_was_asked_for(self, monkeypatch, relays):
        def away(alias: str) -> bool:
            raise OperationalError("connection refused")

        monkeypatch.setattr(relay_outbox, "has_table", away)
        with pytest.raises(CommandError, match="'other' does not answer: connection refused"):
            self.run("--database", "other")
        monkeypatch.setattr(relay_outbox, "run", lambda aliases, report: None)
        assert "'default' does not answer, and is waited for: connection refused" in self.run()

    def test_does_not_wait_for_one_that_hangs(self, monkeypatch):
        released = threading.Event()

        def hang(alias: str) -> bool:
            return alias == "other" or released.wait(60)

        begun: list[Any] = []
        monkeypatch.setattr(relay_outbox, "PATIENCE", 0.05)
        monkeypatch.setattr(relay_outbox, "has_table", hang)
        monkeypatch.setattr(relay_outbox, "run", lambda aliases, report: begun.append(aliases))
        try:
            assert "'default' does not answer, and is waited for: it has said nothing for 0.05 s" in self.run()
        finally:
            released.set()
        assert begun == [["default", "other"]]

    def test_says_what_is_wrong_with_the_project(self, monkeypatch):
        def no_app() -> None:
            raise ConfigurationError("This process has no Celery app")

        monkeypatch.setattr(backends.current(), "check", no_app)
        with pytest.raises(CommandError, match="no Celery app"):
            self.run("--once")

    @staticmethod
    def relay(alias: str, rung: int, leads: bool) -> Any:
        return SimpleNamespace(alias=alias, rung=rung, leadership=SimpleNamespace(leads=leads))

    def test_shows_what_it_does(self, monkeypatch):
        def run(aliases: Any, report: Any) -> None:
            report([self.relay("default", 0, leads=False)])
            report([self.relay("default", 0, leads=False)])
            report([self.relay("default", 1200, leads=True), self.relay("other", 0, leads=True)])
            report([self.relay("default", 1300, leads=True), self.relay("other", 0, leads=True)])

        monkeypatch.setattr(relay_outbox, "run", run)
        assert self.run().splitlines() == [
            "Relay of default, other. Ctrl-C ends it.",
            "default: rung for 0 deliveries, not leading",
            "default: rung for 1,200 deliveries",
            "other: rung for 0 deliveries",
            "default: rung for 1,300 deliveries",
            "The relay has ended.",
        ]
        assert self.run(terminal=True).split("\r\x1b[K") == [
            "Relay of default, other. Ctrl-C ends it.\n",
            "default: rung for 0 deliveries, not leading",
            "default: rung for 1,200 deliveries  other: rung for 0 deliveries",
            "default: rung for 1,300 deliveries  other: rung for 0 deliveries\nThe relay has ended.\n",
        ]
