"""Claiming a row, holding it, and what those may write who do not hold it any more."""

from __future__ import annotations

import os
import re
import socket
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections
from django.db.models.signals import post_save, pre_save
from django.test.utils import CaptureQueriesContext

from deferred_signals import failpoints
from deferred_signals.outbox import processes
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.lease import Claim, claim
from deferred_signals.outbox.models import OutboxDelivery, State
from deferred_signals.outbox.processes import me, name_of
from tests import receivers

from .holding import expire, parcel_sent, send

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def key(link: Any) -> uuid.UUID:
    link(parcel_sent, receivers.first, durable=True)
    (made,) = send()
    return made


def claimed(key: uuid.UUID) -> Claim:
    made = claim("default", key)
    assert isinstance(made, Claim)
    return made


class TestTheNameOfAProcess:
    """By which the leases of a process are ended that is lost."""

    @pytest.fixture(autouse=True)
    def _anew(self) -> Iterator[None]:
        processes._mark.cache_clear()
        yield
        processes._mark.cache_clear()

    def test_says_its_number_and_its_host(self):
        assert me() == name_of(os.getpid())
        assert re.fullmatch(rf"{os.getpid()}@{re.escape(socket.gethostname())}(/[0-9a-f]{{8}})?", me())

    def test_is_another_one_in_a_container_of_the_same_name(self, monkeypatch):
        monkeypatch.setattr(Path, "read_text", lambda path: "ea80f54f-370f-422f-aefb-e6b99bea5c7b")
        names = []
        for number in (4026532178, 4026532179, 4026532178):
            monkeypatch.setattr(Path, "readlink", lambda path, number=number: Path(f"pid:[{number}]"))
            processes._mark.cache_clear()
            names.append(name_of(7))
        assert names[0] != names[1]
        assert names[0] == names[2]

    def test_has_no_more_where_the_system_does_not_tell(self, monkeypatch):
        def missing(path: Path) -> Path:
            raise FileNotFoundError(path)

        monkeypatch.setattr(Path, "readlink", missing)
        assert name_of(7) == f"7@{socket.gethostname()}"


class TestAClaim:
    def test_holds_the_row_for_a_lease_and_says_who_has_it(self, key, rows, settings):
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "LEASE": 100}
        made = claimed(key)
        assert (made.lease, made.lost) == (1, "")
        assert rows("state", "lease", "worker") == [("running", 1, me())]
        soon, late = DatabaseNow(90), DatabaseNow(100)
        held = OutboxDelivery.objects.filter(due__gt=soon, due__lte=late, ring_at__gt=soon, ring_at__lte=late)
        assert held.count() == 1

    def test_is_made_once(self, key):
        claimed(key)
        assert claim("default", key) is None

    def test_is_not_made_before_the_row_is_due_nor_after_it_has_ended(self, key):
        OutboxDelivery.objects.update(due=DatabaseNow(60))
        assert claim("default", key) is None
        OutboxDelivery.objects.update(due=None, state=State.DEAD)
        assert claim("default", key) is None
        assert claim("default", uuid.uuid4()) is None

    def test_of_a_row_that_somebody_else_claims_at_this_moment_is_none(self, key, monkeypatch):
        from deferred_signals.outbox import keyed

        def meanwhile(row: Any) -> bool:
            OutboxDelivery.objects.update(lease=1, state=State.RUNNING)
            return False

        monkeypatch.setattr(keyed, "has_key", meanwhile)
        assert claim("default", key) is None

    def test_of_a_row_whose_lease_is_over_counts_the_crash_and_says_who_had_it(self, key, rows):
        claimed(key)
        OutboxDelivery.objects.update(worker="7@elsewhere", loss="signal 9")
        expire()
        made = claimed(key)
        assert (made.lease, made.lost, made.row.crashes) == (2, "7@elsewhere, signal 9", 1)
        assert rows("crashes", "loss") == [(1, "")]

    @pytest.mark.parametrize("point", ["worker.before_claim", "worker.after_claim"])
    def test_has_points_at_which_a_test_can_break_it_off(self, key, rows, monkeypatch, point):
        def stop() -> None:
            raise KeyboardInterrupt

        monkeypatch.setitem(failpoints.actions, "another.point", stop)
        monkeypatch.setitem(failpoints.actions, point, stop)
        with pytest.raises(KeyboardInterrupt):
            claim("default", key)
        assert rows("state") == ["pending" if point == "worker.before_claim" else "running"]

    def test_takes_two_statements(self, key):
        with CaptureQueriesContext(connection) as asked:
            claimed(key)
        assert len(asked) == 2

    def test_and_its_end_send_no_signal_of_the_orm(self, key):
        heard: list[Any] = []

        def listen(sender: Any, **kwargs: Any) -> None:
            heard.append(sender)

        for signal in (pre_save, post_save):
            signal.connect(listen)
        try:
            made = claimed(key)
            made.renew()
            made.again(0)
            claimed(key).complete()
        finally:
            for signal in (pre_save, post_save):
                signal.disconnect(listen)
        assert heard == []

    @pytest.mark.skipif(connection.vendor == "sqlite", reason="threads share the lock of SQLite's database in memory")
    def test_is_made_by_one_of_many_that_come_at_once(self, key, rows):
        barrier = threading.Barrier(8)
        made: list[Claim] = []

        def come() -> None:
            try:
                barrier.wait(30)
                found = claim("default", key)
                if isinstance(found, Claim):
                    made.append(found)
            finally:
                connections.close_all()

        threads = [threading.Thread(target=come) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(made) == 1
        assert rows("lease", "crashes") == [(1, 0)]


class TestWhoHoldsARow:
    @pytest.mark.parametrize("end", ["complete", "release", "again"])
    def test_writes_its_end_once(self, key, end):
        made = claimed(key)
        ends = {"complete": made.complete, "release": made.release, "again": lambda: made.again(5)}
        assert ends[end]() is True
        assert made.is_over
        assert ends[end]() is False
        assert made.renew() is False

    def test_no_more_writes_nothing(self, key, rows):
        stale = claimed(key)
        expire()
        fresh = claimed(key)
        assert [stale.renew(), stale.complete(), stale.release(), stale.again(0), stale.end(State.DEAD)] == [False] * 5
        assert not stale.is_over
        assert rows("state", "lease") == [("running", 2)]
        assert fresh.complete()
        assert not stale.is_completed()
        assert fresh.is_completed()

    def test_by_a_lease_that_is_over_still_does_while_nobody_has_taken_it(self, key, rows):
        made = claimed(key)
        expire()
        assert made.renew()
        assert claim("default", key) is None
        expire()
        assert made.complete()
        assert rows("state", "due", "ring_at") == [("succeeded", None, None)]
        assert OutboxDelivery.objects.filter(finished__gt=DatabaseNow(-60)).exists()

    def test_of_a_retry_leaves_it_due_after_its_countdown(self, key, rows):
        claimed(key).again(100, attempt=2)
        soon, late = DatabaseNow(90), DatabaseNow(100)
        waiting = OutboxDelivery.objects.filter(due__gt=soon, due__lte=late, ring_at__gt=soon, ring_at__lte=late)
        assert waiting.count() == 1
        assert rows("state", "attempt", "rings", "crashes") == [("pending", 2, 0, 0)]

    def test_gives_it_back_to_be_run_at_once_without_forgetting_crashes(self, key, rows):
        claimed(key)
        expire()
        claimed(key).release()
        assert rows("state", "crashes", "lease") == [("pending", 1, 2)]
        assert claimed(key).lease == 3
        assert rows("crashes") == [1], "to be given back is no crash"
