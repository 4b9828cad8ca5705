"""What goes on beside receivers: leases are renewed, and doorbells passed on."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction

from deferred_signals.handing_on import next_of
from deferred_signals.outbox import heartbeat as module
from deferred_signals.outbox import remainder, renewal
from deferred_signals.outbox.heartbeat import Heartbeat, heartbeat
from deferred_signals.outbox.lease import Claim, claim
from deferred_signals.outbox.models import OutboxDelivery
from deferred_signals.outbox.remainder import passing_on
from deferred_signals.outbox.renewal import renewing
from tests import receivers
from tests.outbox.waiting import DEADLINE, wait_until

from .holding import expire, parcel_sent, send


def beating() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("deferred_signals-heartbeat")}


class TestTheHeartbeat:
    def test_does_what_it_is_asked_again_and_again_until_the_block_ends(self):
        beat, done = Heartbeat(), []
        with beat.every(0.001, lambda: done.append(1) or True):
            wait_until(lambda: len(done) >= 3)
        assert not beat._plans

    def test_does_it_no_more_once_it_has_answered_no(self):
        beat, done, others = Heartbeat(), [], []
        with beat.every(0.001, lambda: bool(done.append(1))), beat.every(0.001, lambda: others.append(1) or True):
            wait_until(lambda: len(others) >= 5)
            assert len(done) == 1

    def test_ends_with_a_block_that_raises(self):
        beat = Heartbeat()
        with pytest.raises(ZeroDivisionError), beat.every(1000, lambda: True):
            1 / 0  # noqa: B018
        assert not beat._plans

    def test_has_one_thread_however_many_blocks_there_are(self):
        before, beat = beating(), Heartbeat()
        for _ in range(100):
            with beat.every(1000, lambda: True), beat.every(1000, lambda: True):
                assert len(beating() - before) == 1

    def test_has_no_thread_while_nothing_is_held(self, monkeypatch):
        monkeypatch.setattr(module, "LINGER", 0.02)
        before, beat, done = beating(), Heartbeat(), []
        for _ in range(3):
            assert not beating() - before
            with beat.every(0.001, lambda: done.append(1) or True):
                wait_until(lambda: done)
                assert len(beating() - before) == 1
            done.clear()
            wait_until(lambda: not beating() - before, "it ends")

    def test_keeps_its_thread_for_a_moment_for_what_comes_next(self, monkeypatch):
        monkeypatch.setattr(module, "LINGER", 1000)
        before, beat, done = beating(), Heartbeat(), []
        with beat.every(0.001, lambda: done.append(1) or True):
            wait_until(lambda: done)
        (thread,) = beating() - before
        wait_until(lambda: beat._wakes_at == float("inf"), "it waits for something to do")
        with beat.every(0.001, lambda: done.append(1) or True):
            wait_until(lambda: len(done) > 2)
            assert beating() - before == {thread}
        monkeypatch.setattr(module, "LINGER", 0)
        with beat.every(1000, lambda: True):
            pass
        wait_until(lambda: not beating() - before, "it ends")

    def test_does_no_more_what_has_ended_while_another_one_was_done(self):
        beat, both, begun, go_on, done = Heartbeat(), threading.Event(), threading.Event(), threading.Event(), []

        def act() -> bool:
            done.append(1)
            begun.set()
            return not go_on.wait(DEADLINE)

        with beat.every(0, lambda: not both.wait(DEADLINE)):
            with beat.every(0, act), beat.every(0, act):
                both.set()
                assert begun.wait(DEADLINE)
            go_on.set()
            with beat.every(0, lambda: bool(done.append(2))):
                wait_until(lambda: 2 in done)
        assert done == [1, 2]

    def test_is_not_woken_by_each_of_many_quick_blocks(self, monkeypatch):
        beat, woken = Heartbeat(), []
        real = beat._changed.notify
        with beat.every(1000, lambda: True):
            wait_until(lambda: beat._wakes_at < float("inf"))
            monkeypatch.setattr(beat._changed, "notify", lambda: (woken.append(1), real()))
            for _ in range(50):
                with beat.every(500, lambda: True):
                    wait_until(lambda: beat._wakes_at < time.monotonic() + 600)
        assert len(woken) == 1

    def test_wakes_sooner_for_what_is_sooner(self):
        beat, done = Heartbeat(), []
        with beat.every(1000, lambda: True):
            wait_until(lambda: beat._wakes_at < float("inf"))
            with beat.every(0.001, lambda: done.append(1) or True):
                wait_until(lambda: done)

    def test_survives_what_fails_in_it(self, caplog):
        beat, done = Heartbeat(), []

        def fail() -> bool:
            done.append(1)
            raise ZeroDivisionError

        with beat.every(0.001, fail):
            wait_until(lambda: len(done) >= 2)
        assert "is tried again" in caplog.text

    def test_whose_thread_is_gone_gets_another(self, monkeypatch):
        beat, done = Heartbeat(), []
        gone = threading.Thread(target=lambda: None)
        gone.start()
        gone.join()
        beat._thread = gone
        with beat.every(0.001, lambda: done.append(1) or True):
            wait_until(lambda: done)

    def test_of_a_forked_child_is_its_own(self):
        mine = heartbeat("default")
        with mine.every(1000, lambda: True):
            reading, writing = os.pipe()
            child = os.fork()
            if not child:  # pragma: no cover - another process
                os.close(reading)
                done: list[int] = []
                its = heartbeat("default")
                with its.every(0.001, lambda: bool(done.append(1))):
                    deadline = time.monotonic() + DEADLINE
                    while not done and time.monotonic() < deadline:
                        time.sleep(0.005)
                os.write(writing, b"yes" if done and its is not mine and len(its._plans) == 0 else b"no")
                os.kill(os.getpid(), signal.SIGKILL)
            os.close(writing)
            try:
                assert os.read(reading, 10) == b"yes"
            finally:
                os.close(reading)
                os.waitpid(child, 0)
        assert heartbeat("default") is mine

    @pytest.mark.django_db(transaction=True)
    def test_leaves_no_connection_open(self):
        beat, done, seen = Heartbeat(), [], []

        def ask() -> bool:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            done.append(connections["default"])
            return True

        real = module._close

        def close(action: Callable[[], None]) -> None:
            real(action)
            seen.append(1)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(module, "_close", close)
            with beat.every(0.001, ask):
                wait_until(lambda: len(seen) >= 2)
        # It may just be at it once more.
        wait_until(lambda: done[0].connection is None or getattr(done[0], "is_in_memory_db", lambda: False)())

    def test_is_not_ended_by_a_connection_that_cannot_be_closed(self, caplog):
        def close() -> None:
            raise OperationalError("gone")

        caplog.set_level(logging.DEBUG, "deferred_signals")
        module._close(close)
        assert "had broken" in caplog.text


@pytest.fixture
def held(link: Any) -> Claim:
    link(parcel_sent, receivers.first, durable=True)
    (key,) = send()
    made = claim("default", key)
    assert isinstance(made, Claim)
    return made


@contextmanager
def by_hand(monkeypatch: pytest.MonkeyPatch, where: Any) -> Iterator[list[tuple[float, Callable[[], bool]]]]:
    """Takes down what is asked of the heartbeat."""
    asked: list[tuple[float, Callable[[], bool]]] = []

    class Taking:
        def __init__(self, key: str) -> None:
            pass

        @contextmanager
        def every(self, pause: float, action: Callable[[], bool]) -> Iterator[None]:
            asked.append((pause, action))
            yield

    with monkeypatch.context() as patched:
        patched.setattr(where, "heartbeat", Taking)
        yield asked


@pytest.mark.django_db(transaction=True)
class TestRenewal:
    def test_is_for_receivers_that_take_longer_than_a_third_of_the_lease(self, held, rows, monkeypatch, settings):
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "LEASE": 60}
        with by_hand(monkeypatch, renewal) as asked, renewing(held, atomic=False):
            ((pause, renew),) = asked
            assert pause == 20
            expire()
            assert renew() is True
            assert claim("default", held.row.delivery_id) is None

    def test_of_what_another_has_renews_nothing_and_says_so_once(self, held, rows, monkeypatch, caplog):
        with by_hand(monkeypatch, renewal) as asked, renewing(held, atomic=False):
            ((_, renew),) = asked
            expire()
            assert isinstance(claim("default", held.row.delivery_id), Claim)
            before = rows("due", "lease")
            assert renew() is False
            assert rows("due", "lease") == before
        assert "another worker has it" in caplog.text

    def test_of_what_is_over_says_nothing(self, held, monkeypatch, caplog):
        with by_hand(monkeypatch, renewal) as asked, renewing(held, atomic=False):
            held.complete()
            assert asked[0][1]() is False
        assert caplog.text == ""

    def test_is_left_out_where_it_would_make_the_receivers_transaction_fail(self, held, monkeypatch):
        for disturbs in (True, False):
            monkeypatch.setattr(renewal, "_disturbs", lambda alias, found=disturbs: found)
            with by_hand(monkeypatch, renewal) as asked, renewing(held, atomic=True):
                assert len(asked) == (0 if disturbs else 1)

    def test_is_left_out_where_that_cannot_be_told(self, held, monkeypatch):
        def away(alias: str) -> bool:
            raise OperationalError("away")

        monkeypatch.setattr(renewal, "_disturbs", away)
        with by_hand(monkeypatch, renewal) as asked, renewing(held, atomic=True):
            assert asked == []

    def test_would_make_nothing_fail_on_servers_as_django_connects_to_them(self):
        """``test_interleavings`` asks under other levels."""
        renewal._disturbs.cache_clear()
        assert renewal._disturbs("default") is (connection.vendor == "sqlite")

    @pytest.mark.parametrize(
        ("vendor", "answers", "disturbs"),
        [
            ("postgresql", [[("read committed",)]], False),
            ("postgresql", [[("repeatable read",)]], True),
            ("postgresql", [[("serializable",)]], True),
            ("mysql", [[]], False),
            ("mysql", [[("innodb_snapshot_isolation", "OFF")]], False),
            ("mysql", [[("innodb_snapshot_isolation", "ON")], [("tx_isolation", "READ-COMMITTED")]], False),
            ("mysql", [[("innodb_snapshot_isolation", "ON")], [("tx_isolation", "REPEATABLE-READ")]], True),
        ],
    )
    def test_depends_on_how_transactions_are_isolated(self, monkeypatch, vendor, answers, disturbs):
        class Server:
            """A connection that answers so, for not every server is at hand in every run."""

            def __init__(self) -> None:
                self.vendor, self.answers = vendor, list(answers)

            def cursor(self) -> Any:
                return nullcontext(self)

            def execute(self, text: str) -> None:
                self.found = self.answers.pop(0)

            def fetchone(self) -> Any:
                return self.found[0] if self.found else None

            def fetchall(self) -> Any:
                return self.found

        renewal._disturbs.cache_clear()
        with monkeypatch.context() as patched:
            patched.setattr(renewal, "connections", {"default": Server()})
            patched.setattr(transaction, "atomic", lambda using: nullcontext())
            assert renewal._disturbs("default") is disturbs
        renewal._disturbs.cache_clear()


class TestWhatHangs:
    """A database, or a broker, that does not answer keeps nobody waiting but who waits for it."""

    @pytest.fixture
    def hangs(self) -> Iterator[Callable[..., bool]]:
        go_on = threading.Event()

        def hang(*given: Any) -> bool:
            return not go_on.wait(DEADLINE)

        yield hang
        go_on.set()

    @pytest.fixture
    def renewed(self, monkeypatch, settings, hangs) -> list[str]:
        """The aliases of what is renewed, three times in each tenth of a second; those of ``other`` hang."""
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "LEASE": 0.1}
        aliases: list[str] = []

        def renew(claim: Claim) -> bool:
            aliases.append(claim.alias)
            return hangs() if claim.alias == "other" else True

        monkeypatch.setattr(Claim, "renew", renew)
        return aliases

    def test_of_one_database_lets_the_leases_of_others_be_renewed(self, renewed):
        one, other = Claim("default", OutboxDelivery(), 1), Claim("other", OutboxDelivery(), 1)
        with renewing(other, atomic=False):
            wait_until(lambda: "other" in renewed)
            with renewing(one, atomic=False):
                wait_until(lambda: renewed.count("default") > 3)
        assert renewed.count("other") == 1

    @pytest.mark.usefixtures("passes_on")
    def test_of_the_broker_lets_leases_be_renewed(self, renewed, hangs):
        rung: list[int] = []
        with passing_on("default", deque([1]), lambda part: hangs(rung.extend(part))):
            wait_until(lambda: rung)
            with renewing(Claim("default", OutboxDelivery(), 1), atomic=False):
                wait_until(lambda: renewed.count("default") > 3)

    @pytest.mark.usefixtures("passes_on")
    def test_of_one_database_lets_the_doorbells_of_others_be_passed_on(self, hangs):
        rung: list[int] = []
        with passing_on("other", deque([1]), hangs):
            with passing_on("default", deque([2]), lambda part: rung.extend(part) or True):
                wait_until(lambda: rung)


@pytest.mark.skipif(connection.vendor == "sqlite", reason="a SQLite that is locked says so at once")
@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_a_row_that_is_locked_in_one_database_lets_the_leases_of_others_be_renewed(link, settings, rows):
    """The real thing: a renewal that waits in the server until somebody else ends a transaction."""
    settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "LEASE": 0.3}
    link(parcel_sent, receivers.first, durable=True)
    link(parcel_sent, receivers.second, durable=True, using="other")
    send()
    claims = [claim(alias, *rows("delivery_id", alias=alias)) for alias in ("other", "default")]
    first, second = (one for one in claims if isinstance(one, Claim))
    with transaction.atomic(using="other"):
        OutboxDelivery.objects.using("other").select_for_update().get()
        with renewing(first, atomic=False), renewing(second, atomic=False):
            (begin,) = rows("due")
            (held,) = rows("due", alias="other")
            wait_until(lambda: (rows("due")[0] - begin).total_seconds() > 0.6)
            assert rows("due", alias="other") == [held]


class TestPassingOn:
    @pytest.mark.usefixtures("passes_on")
    def test_happens_a_moment_after_the_beginning_and_in_halves(self, monkeypatch):
        rest, rung = deque([1, 2, 3]), []
        with (
            by_hand(monkeypatch, remainder) as asked,
            passing_on("default", rest, lambda part: rung.append(part) or True),
        ):
            ((pause, pass_on),) = asked
            assert pause == 0.1
            assert pass_on() is False
        assert (rung, list(rest)) == ([[1, 2], [3]], [])

    def test_is_nothing_where_nothing_is_left(self, monkeypatch):
        with by_hand(monkeypatch, remainder) as asked, passing_on("default", deque(), lambda part: True):
            assert asked == []

    def test_leaves_here_what_the_broker_does_not_take(self, monkeypatch):
        rest = deque([1, 2, 3])
        with by_hand(monkeypatch, remainder) as asked, passing_on("default", rest, lambda part: 3 in part):
            asked[0][1]()
        assert list(rest) == [1, 2]

    def test_leaves_here_what_it_fails_at(self, monkeypatch):
        rest = deque([1])

        def fail(part: list[int]) -> bool:
            raise OperationalError("away")

        with (
            by_hand(monkeypatch, remainder) as asked,
            passing_on("default", rest, fail),
            pytest.raises(OperationalError),
        ):
            asked[0][1]()
        assert list(rest) == [1]

    @pytest.mark.usefixtures("passes_on")
    def test_by_the_heartbeat_itself_comes_while_the_receiver_runs(self):
        rest, rung = deque([1]), []
        with passing_on("default", rest, lambda part: rung.append(part) or True):
            wait_until(lambda: rung)
        assert rung == [[1]]

    def test_and_running_never_take_the_same_twice(self):
        rest, taken = deque(range(20_000)), []

        def take() -> None:
            while (one := next_of(rest)) is not None:
                taken.append(one)

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken) == list(range(20_000))


@pytest.mark.django_db(transaction=True)
def test_a_claim_that_is_made_for_a_quick_receiver_is_never_renewed(link, memory, monkeypatch):
    link(parcel_sent, receivers.first, durable=True)
    send(20)
    monkeypatch.setattr(Claim, "renew", lambda self: pytest.fail("it was quick"))
    memory.deliver()
    assert set(OutboxDelivery.objects.values_list("state", flat=True)) == {"succeeded"}
