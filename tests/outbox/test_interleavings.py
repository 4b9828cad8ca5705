"""Processes that stop or die at each named point while another goes on: what is left is what was promised.

Each step is taken by hand, so every interleaving is the same each time. Durable receivers may run twice; of atomic ones
the effect is there once. On SQLite a transaction that has written keeps everybody else out, which is said where it
matters.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from tests.outbox.waiting import DEADLINE, wait_until
from tests.servers import PostgreSQL

ROOT = Path(__file__).parents[2]
IS_SQLITE = connection.vendor == "sqlite"
ON_POSTGRESQL = pytest.mark.skipif(connection.vendor != "postgresql", reason="about PostgreSQL")

KINDS = pytest.mark.parametrize("kind", ["durable", "atomic"])
WORKER_POINTS = [
    "worker.before_claim",
    "worker.after_claim",
    "receiver.before_effect",
    "receiver.after_effect",
    "worker.before_completion",
    "worker.after_completion",
]
#: Where a run has written, and not committed its end.
AFTER_EFFECT = {"receiver.after_effect", "worker.before_completion"}


class Stranger:
    """Another process of the project; see ``process``."""

    def __init__(self, home: Path, database: dict[str, Any], **options: Any) -> None:
        home.mkdir(exist_ok=True)
        self.home = home
        self.is_busy = False
        env = {
            "PROCESS_HOME": str(home),
            "PROCESS_DATABASE": json.dumps(database),
            "PROCESS_OPTIONS": json.dumps(options),
            "PYTHONPATH": str(ROOT),
        }
        with (home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.outbox.process"],
                env={**os.environ, **env},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def begin(self, name: str, **arguments: Any) -> None:
        """Have it do something, and do not wait."""
        self.is_busy = True
        assert self._process.stdin
        self._process.stdin.write(json.dumps([name, arguments]) + "\n")
        self._process.stdin.flush()

    def end(self) -> Any:
        """What came of it."""
        assert self._process.stdout
        assert wait([self._process.stdout.fileno()], DEADLINE), "no answer"
        said = self._process.stdout.readline()
        assert said, f"it ended: {(self.home / 'log').read_text()}"
        answer = json.loads(said)
        self.is_busy = False
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def do(self, name: str, **arguments: Any) -> Any:
        self.begin(name, **arguments)
        return self.end()

    def stops(self) -> None:
        """Wait until it has come to the point where it is to stop."""
        wait_until((self.home / "stopped").exists, "to come to the point")

    def goes_on(self) -> Any:
        (self.home / "go on").touch()
        return self.end()

    def dies(self) -> None:
        assert self._process.wait(DEADLINE) == -9
        self.leave()

    def leave(self) -> None:
        self._process.kill()
        self._process.communicate()
        self.is_busy = False
        for name in ("stopped", "go on"):
            (self.home / name).unlink(missing_ok=True)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("interleavings")


@pytest.fixture(scope="module")
def crowd(home: Path) -> Iterator[dict[Any, Stranger]]:
    """Processes that go from test to test, for they take a second to start."""
    made: dict[Any, Stranger] = {}
    yield made
    for stranger in made.values():
        stranger.leave()


Call = Callable[..., Stranger]


@pytest.fixture
def call(transactional_db: None, home: Path, crowd: dict[Any, Stranger]) -> Iterator[Call]:
    """Have a process come: of this name, with these OPTIONS of its connection."""
    database = {"NAME": connection.settings_dict["NAME"]}
    if IS_SQLITE:
        database = {"NAME": str(home / "database")}

    def come(name: str, **options: Any) -> Stranger:
        if IS_SQLITE:
            options |= {"timeout": 0.2}
        key = (name, json.dumps(options, sort_keys=True))
        if key not in crowd or not crowd[key].is_alive:
            new = IS_SQLITE and not (home / "database").exists()
            crowd[key] = Stranger(home / f"{name}{len(crowd)}", database, **options)
            if new:
                crowd[key].do("migrate")
        return crowd[key]

    come("B").do("clear")
    yield come
    for stranger in crowd.values():
        if stranger.is_busy:  # a test has failed; it may hold locks
            stranger.leave()


@pytest.fixture
def b(call: Call) -> Stranger:
    return call("B")


class TestAWorkerIsKilled:
    @KINDS
    @pytest.mark.parametrize("point", WORKER_POINTS)
    def test_and_another_finishes_what_it_has_not(self, call, b, kind, point):
        a = call("A")
        b.do("send", kind=kind)
        a.do("at", point=point, action="kill")
        a.begin("answer")
        a.dies()
        ((row,), effects) = b.do("seen").values()
        if point == "worker.after_completion":
            assert (row["state"], effects) == ("succeeded", 1)
            assert b.do("answer") == []
            return
        is_claimed = point != "worker.before_claim"
        assert (row["state"], row["lease"]) == (("running", 1) if is_claimed else ("pending", 0))
        if is_claimed:
            assert b.do("answer") == [], "not before its lease is over"
            b.do("expire")
        assert b.do("answer") == ["succeeded"]
        ((row,), effects) = b.do("seen").values()
        assert (row["state"], row["crashes"], row["attempt"]) == ("succeeded", int(is_claimed), 1)
        assert effects == (2 if kind == "durable" and point in AFTER_EFFECT else 1)


class TestASenderIsKilled:
    @pytest.mark.parametrize("point", ["sender.before_row", "sender.after_row"])
    def test_before_its_commit_and_nothing_was_sent(self, call, b, point):
        a = call("A")
        a.do("at", point=point, action="kill")
        a.begin("send", kind="durable")
        a.dies()
        assert b.do("answer") == []
        assert b.do("seen") == {"rows": [], "effects": 0}

    @pytest.mark.parametrize("point", ["sender.after_commit", "sender.after_doorbell"])
    def test_after_its_commit_and_what_was_sent_is_there(self, call, b, point):
        a = call("A")
        a.do("at", point=point, action="kill")
        a.begin("send", kind="durable")
        a.dies()
        assert b.do("answer") == ["succeeded"]
        assert b.do("seen")["effects"] == 1


class TestAWorkerStallsForLongerThanItsLease:
    @KINDS
    @pytest.mark.parametrize("point", WORKER_POINTS)
    def test_and_wakes_when_another_has_finished(self, call, b, kind, point):
        a = call("A")
        b.do("send", kind=kind)
        a.do("at", point=point, action="stop")
        a.begin("answer")
        a.stops()
        if IS_SQLITE and kind == "atomic" and point in AFTER_EFFECT:
            # Nobody else can write, so nobody takes it over.
            assert b.do("answer") == []
            assert a.goes_on() == ["succeeded"]
            assert b.do("seen")["effects"] == 1
            return
        b.do("expire")
        b.begin("answer")
        if kind == "atomic" and point in AFTER_EFFECT:
            # Both change the same row, so the other one waits until this one has given up.
            wait_until(connection_waits, "the other one to wait for the lock")
            mine = a.goes_on()
            others = b.end()
        else:
            others = b.end()
            mine = a.goes_on()
        ((row,), effects) = b.do("seen").values()
        assert row["state"] == "succeeded"
        if point == "worker.before_claim":
            assert (others, mine, effects) == (["succeeded"], [], 1)
        elif point == "worker.after_completion":
            assert (others, mine, effects) == ([], ["succeeded"], 1)
        else:
            assert (others, mine) == (["succeeded"], ["discarded"])
            assert effects == (2 if kind == "durable" else 1)
            assert (row["lease"], row["crashes"]) == (2, 1)

    @KINDS
    def test_and_wakes_while_another_runs_and_only_that_one_counts(self, call, b, kind):
        a, c = call("A"), call("C")
        b.do("send", kind=kind)
        for stranger in (a, c):
            stranger.do("at", point="receiver.before_effect", action="stop")
        a.begin("answer")
        a.stops()
        b.do("expire")
        c.begin("answer")
        c.stops()
        assert a.goes_on() == ["discarded"]
        assert b.do("seen")["rows"][0]["state"] == "running"
        assert c.goes_on() == ["succeeded"]
        assert b.do("seen")["effects"] == (2 if kind == "durable" else 1)

    def test_and_without_the_fence_the_effect_would_be_there_twice(self, call, b):
        """The variant without the lease in the WHERE is kept, to show what it is for."""
        a = call("an unfenced one")
        a.do("unfence")
        b.do("send", kind="atomic")
        a.do("at", point="receiver.before_effect", action="stop")
        a.begin("answer")
        a.stops()
        b.do("expire")
        assert b.do("answer") == ["succeeded"]
        assert a.goes_on() == ["succeeded"]
        assert b.do("seen")["effects"] == 2


@pytest.mark.skipif(IS_SQLITE, reason="on SQLite rows are claimed one by one")
class TestAWorkerThatHoldsAWindow:
    """Three rows that are claimed and completed together (``batch_size``)."""

    @pytest.mark.parametrize("point", WORKER_POINTS)
    def test_is_killed_and_another_finishes_what_it_has_not(self, call, b, point):
        a = call("A")
        b.do("send", kind="batch", count=3)
        a.do("at", point=point, action="kill")
        a.begin("answer")
        a.dies()
        rows, before = b.do("seen").values()
        if point == "worker.after_completion":
            assert ([row["state"] for row in rows], before) == (["succeeded"] * 3, 3)
            assert b.do("answer") == []
            return
        is_claimed = point != "worker.before_claim"
        state = ("running", 1) if is_claimed else ("pending", 0)
        assert [(row["state"], row["lease"]) for row in rows] == [state] * 3
        assert before == {"receiver.after_effect": 1, "worker.before_completion": 3}.get(point, 0)
        if is_claimed:
            assert b.do("answer") == [], "not before their leases are over"
            b.do("expire")
        assert b.do("answer") == ["succeeded"] * 3
        rows, effects = b.do("seen").values()
        assert [(row["state"], row["crashes"]) for row in rows] == [("succeeded", int(is_claimed))] * 3
        assert effects == before + 3, "what had run and was not completed has run again"

    @pytest.mark.parametrize("point", ["worker.after_claim", "receiver.after_effect", "worker.before_completion"])
    def test_stalls_for_longer_than_its_leases_and_completes_nothing(self, call, b, point):
        a = call("A")
        b.do("send", kind="batch", count=3)
        a.do("at", point=point, action="stop")
        a.begin("answer")
        a.stops()
        b.do("expire")
        assert b.do("answer") == ["succeeded"] * 3
        assert set(a.goes_on()) == {"discarded"}
        rows, _ = b.do("seen").values()
        assert [(row["state"], row["lease"], row["crashes"]) for row in rows] == [("succeeded", 2, 1)] * 3

    def test_loses_its_session_and_nothing_is_lost_nor_run_twice(self, call, b):
        a = call("A")
        session = a.do("backend")
        b.do("send", kind="batch", count=3)
        a.do("at", point="worker.before_completion", action="stop")
        a.begin("answer")
        a.stops()
        end_session(session)
        assert a.goes_on() == ["succeeded"] * 3
        rows, effects = b.do("seen").values()
        assert ([row["state"] for row in rows], effects) == (["succeeded"] * 3, 3)


def levels() -> list[tuple[str, dict[str, Any]]]:
    """Ways to isolate transactions that keep to a snapshot, on this database."""
    if connection.vendor == "postgresql":
        # psycopg's numbers: its enum does not travel.
        return [("repeatable read", {"isolation_level": 3}), ("serializable", {"isolation_level": 4})]
    if connection.vendor == "mysql":
        snapshot = "SET SESSION innodb_snapshot_isolation = ON"
        return [
            ("repeatable read", {"isolation_level": "repeatable read"}),
            ("serializable", {"isolation_level": "serializable"}),
            ("snapshot", {"isolation_level": "repeatable read", "init_command": snapshot}),
        ]
    return []


@pytest.mark.skipif(IS_SQLITE, reason="about servers")
class TestTransactionsThatKeepToASnapshot:
    @pytest.mark.parametrize("options", [pytest.param(given, id=name) for name, given in levels()])
    @pytest.mark.parametrize("point", ["receiver.before_effect", "receiver.after_effect", "worker.before_completion"])
    def test_a_stale_worker_leaves_no_effect(self, call, b, options, point):
        locks_what_it_reads = options == {"isolation_level": "serializable"}  # MariaDB's way
        a = call("A", **options)
        b.do("send", kind="atomic")
        a.do("at", point=point, action="stop")
        a.begin("answer")
        a.stops()
        b.do("expire")
        # Both change the same row; where the stale one has done so already, the other one waits for it.
        b.begin("answer")
        if point == "receiver.before_effect" and not locks_what_it_reads:
            assert b.end() == ["succeeded"]
            assert a.goes_on() == ["discarded"]
        else:
            wait_until(connection_waits, "the other one to wait for the lock")
            assert a.goes_on() == ["discarded"]
            if (ended := b.end()) != ["succeeded"]:  # of two that deadlock, the database has chosen this one
                assert (ended, locks_what_it_reads) == (["retry"], True)
                b.do("expire")
                assert b.do("answer") == ["succeeded"]
        ((row,), effects) = b.do("seen").values()
        assert (row["state"], effects) == ("succeeded", 1)

    @pytest.mark.parametrize("options", [pytest.param(given, id=name) for name, given in levels()])
    def test_a_row_is_not_renewed_where_that_would_make_the_completion_fail(self, call, options):
        keeps = connection.vendor == "postgresql" or "init_command" in options
        assert call("A", **options).do("disturbs") is keeps

    @ON_POSTGRESQL
    @pytest.mark.parametrize("options", [pytest.param(given, id=name) for name, given in levels()])
    def test_a_serialization_failure_in_the_receiver_is_a_retry_that_uses_up_no_attempt(self, call, b, options):
        a = call("A", **options)
        b.do("send", kind="atomic")
        a.do("at", point="receiver.before_effect", action="stop")
        a.begin("answer")
        a.stops()
        b.do("bump")
        assert a.goes_on() == ["retry"], "though max_retries is 0"
        ((row,), effects) = b.do("seen").values()
        assert (row["state"], row["attempt"], effects) == ("pending", 1, 0)
        b.do("expire")
        assert a.do("answer") == ["succeeded"]
        assert b.do("seen")["effects"] == 1


def connection_waits() -> bool:
    """Whether a session of this database waits for a lock of another."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        else:
            # MariaDB makes this table anew only when nobody has read it for a tenth of a second, and tests of another
            # process may read it as well.
            time.sleep(random.uniform(0.15, 0.5))
            cursor.execute("SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'")
        return bool(cursor.fetchone()[0])


def end_session(number: int) -> None:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_terminate_backend(%s, 30000)", [number])
        else:
            cursor.execute(f"KILL {number}")


@pytest.mark.skipif(IS_SQLITE, reason="about servers")
class TestTheSessionIsEnded:
    @KINDS
    @pytest.mark.parametrize("point", ["worker.after_claim", "receiver.after_effect", "worker.before_completion"])
    def test_in_the_middle_and_nothing_is_lost_nor_doubled(self, call, b, kind, point):
        a = call("A")
        session = a.do("backend")
        b.do("send", kind=kind)
        a.do("at", point=point, action="stop")
        a.begin("answer")
        a.stops()
        end_session(session)
        mine = a.goes_on()
        if mine == ["retry"]:
            assert kind == "atomic" or point == "worker.after_claim"
            ((row,), _) = b.do("seen").values()
            assert (row["state"], row["attempt"], row["crashes"]) == ("pending", 1, 0)
            b.do("expire")
            assert a.do("answer") == ["succeeded"], "over a connection of its own making"
        else:
            # Before the transaction began it may have been noticed, and mended, by what is asked about its isolation.
            assert mine == ["succeeded"]
            assert kind == "durable" or point == "worker.after_claim"
        ((row,), effects) = b.do("seen").values()
        assert (row["state"], effects) == ("succeeded", 1)

    @ON_POSTGRESQL
    def test_during_the_commit_whose_result_is_not_known_then(self, call, b):
        a = call("A")
        session = a.do("backend")
        b.do("send", kind="atomic")
        with connection.cursor() as cursor:
            cursor.execute(
                "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$"
            )
            cursor.execute(
                "CREATE CONSTRAINT TRIGGER dawdle AFTER INSERT ON shop_customer DEFERRABLE INITIALLY DEFERRED "
                "FOR EACH ROW EXECUTE FUNCTION dawdle()"
            )
        try:
            a.begin("answer")
            wait_until(lambda: is_committing(session), "the commit")
            end_session(session)
            assert a.end() == ["retry"]
        finally:
            with connection.cursor() as cursor:
                cursor.execute("DROP FUNCTION dawdle() CASCADE")
        b.do("expire")
        assert b.do("answer") == ["succeeded"]
        assert b.do("seen")["effects"] == 1


def is_committing(session: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND query = 'COMMIT'", [session])
        return bool(cursor.fetchone()[0])


@pytest.fixture
def server() -> Iterator[PostgreSQL]:
    """One that a test may stop, where the tests run on PostgreSQL anyway."""
    made = PostgreSQL().wait_ready()
    made.execute("CREATE DATABASE outbox")
    yield made
    made.remove()


@ON_POSTGRESQL
class TestTheServerIsRestarted:
    @pytest.fixture
    def a(self, server: PostgreSQL, tmp_path: Path) -> Iterator[Stranger]:
        where = {"HOST": "127.0.0.1", "PORT": server.port, "USER": "postgres", "NAME": "outbox"}
        made = Stranger(tmp_path / "A", where)
        made.do("migrate")
        made.do("clear")
        yield made
        made.leave()

    def test_before_a_claim_and_a_connection_that_has_broken_is_no_matter(self, server, a):
        ids = a.do("send", kind="durable")
        server.restart()
        server.wait_ready()
        assert a.do("answer", ids=ids) == ["succeeded"]

    def test_and_is_away_at_a_claim_which_leaves_the_worker_alive_and_the_row_to_the_relay(self, server, a):
        ids = a.do("send", kind="durable")
        server.stop()
        assert a.do("answer", ids=ids) == []
        server.start()
        server.wait_ready()
        assert a.do("answer", ids=ids) == ["succeeded"]

    @KINDS
    def test_while_a_receiver_ends_and_its_end_is_not_lost(self, server, a, kind):
        a.do("send", kind=kind)
        a.do("at", point="worker.before_completion", action="stop")
        a.begin("answer")
        a.stops()
        server.stop()
        (a.home / "go on").touch()
        wait_until(lambda: not (a.home / "stopped").exists(), "the worker to go on")
        server.start()
        server.wait_ready()
        ended = a.end()
        if kind == "atomic":  # its transaction is gone
            assert ended == ["retry"]
            a.do("expire")
            ended = a.do("answer")
        assert ended == ["succeeded"]
        assert a.do("seen")["effects"] == 1
