"""The lines that failed attempts leave, for whoever wants to know what has become of a delivery."""

from __future__ import annotations

import time
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError, OperationalError, ProgrammingError, connection, transaction
from django.db.models import QuerySet
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from django.test.utils import CaptureQueriesContext

from deferred_signals.outbox import attempts, lease
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.lease import Claim, claim
from deferred_signals.outbox.models import Attempt, OutboxDelivery, State
from deferred_signals.outbox.processes import me
from deferred_signals.outbox.pruning import prune
from tests import receivers

from .holding import expire, parcel_sent, ring, send, states

pytestmark = pytest.mark.django_db(transaction=True)


def lines(*columns: str) -> list[Any]:
    return list(Attempt.objects.order_by("number").values_list(*columns, flat=len(columns) == 1))


def ended(*given: Any) -> None:
    """A row that has ended long ago, with a line of an attempt of it."""
    row = OutboxDelivery(delivery_id=uuid.uuid4(), state=State.SUCCEEDED, receiver="mail", payload="")
    row.created = row.finished = DatabaseNow(-3600)
    row.save()
    Attempt.objects.create(row=row, lease=1, attempt=1, outcome="retry", ended=DatabaseNow(-3600))


class TestAnAttempt:
    def test_that_succeeds_leaves_nothing_and_asks_for_nothing(self, link):
        link(parcel_sent, receivers.first, durable=True)
        send()
        with CaptureQueriesContext(connection) as asked:
            assert states(ring()) == ["succeeded"]
        assert lines("number") == []
        assert not any("deferred_signals_attempt" in one["sql"] for one in asked)

    def test_that_is_discarded_leaves_nothing(self, link):
        link(parcel_sent, receivers.discards, durable=True)
        send()
        assert states(ring()) == ["discarded"]
        assert lines("number") == []

    def test_that_is_retried_and_one_that_dies_leave_a_line_each(self, link):
        link(parcel_sent, receivers.troubled, durable=True, max_retries=1)
        receivers.troubles[:] = [ConnectionError("password=hunter2 is wrong"), ZeroDivisionError("once more")]
        send()
        ring()
        expire()
        ring()
        assert lines("outcome", "attempt", "lease", "worker", "error_type") == [
            ("retry", 1, 1, me(), "ConnectionError"),
            ("dead", 2, 2, me(), "ZeroDivisionError"),
        ]
        first, last = lines("error")
        assert "hunter2" not in first
        assert last == OutboxDelivery.objects.get().error
        for started, end in lines("started", "ended"):
            assert timedelta(0) <= end - started < timedelta(minutes=5)

    def test_of_a_worker_that_was_lost_leaves_a_line_when_another_one_takes_its_row(self, link, rows):
        link(parcel_sent, receivers.first, durable=True)
        send()
        (key,) = rows("delivery_id")
        assert isinstance(claim("default", key), Claim)
        OutboxDelivery.objects.update(worker="7@elsewhere", loss="signal 9 (SIGKILL)")
        expire()
        assert states(ring()) == ["succeeded"]
        assert lines("outcome", "lease", "worker", "error", "started") == [
            ("lost", 1, "7@elsewhere", "signal 9 (SIGKILL)", None)
        ]

    def test_of_a_worker_of_which_nothing_is_known_says_that_its_lease_ran_out(self, link, rows):
        link(parcel_sent, receivers.first, durable=True)
        send()
        (key,) = rows("delivery_id")
        stale = claim("default", key)
        assert isinstance(stale, Claim)
        expire()
        assert isinstance(claim("default", key), Claim)
        assert lines("outcome", "error") == [("lost", "its lease ran out")]
        assert not stale.end(State.DEAD, error="too late")
        assert not stale.again(0)
        assert lines("outcome") == ["lost"]

    def test_of_two_that_take_over_only_one_leaves_a_line(self, link, rows, monkeypatch):
        link(parcel_sent, receivers.first, durable=True)
        send()
        (key,) = rows("delivery_id")
        claim("default", key)
        expire()
        are_kept = attempts.are_kept

        def somebody_is_faster(alias: str) -> bool:
            monkeypatch.undo()
            assert isinstance(claim("default", key), Claim)
            return are_kept(alias)

        monkeypatch.setattr(attempts, "are_kept", somebody_is_faster)
        assert claim("default", key) is None
        assert lines("lease") == [1]

    def test_leaves_its_line_or_its_end_together_or_neither(self, link, rows, monkeypatch):
        link(parcel_sent, receivers.first, durable=True)
        send()
        (key,) = rows("delivery_id")
        held = claim("default", key)
        assert isinstance(held, Claim)

        def note(*given: Any, **columns: Any) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(attempts, "note", note)
        with pytest.raises(ZeroDivisionError):
            held.again(0)
        assert rows("state", "lease") == [("running", 1)]

    def test_tells_no_receiver_of_the_project(self, link):
        told: list[Any] = []

        def hear(sender: Any, **kwargs: Any) -> None:
            told.append(sender)

        link(parcel_sent, receivers.troubled, durable=True)
        receivers.troubles[:] = [ZeroDivisionError()]
        send()
        for one in (pre_save, post_save):
            one.connect(hear)
        try:
            ring()
        finally:
            for one in (pre_save, post_save):
                one.disconnect(hear)
        assert lines("outcome") == ["retry"]
        assert told == []


class TestLines:
    def test_are_kept_of_so_many_claims_of_a_row(self, link, rows, monkeypatch):
        monkeypatch.setattr(attempts, "MOST", 3)
        link(parcel_sent, receivers.troubled, durable=True, max_retries=None)
        receivers.troubles[:] = [ZeroDivisionError() for _ in range(5)]
        send()
        for _ in range(5):
            ring()
            expire()
        assert lines("lease") == [3, 4, 5]

    def test_go_with_their_row(self):
        told: list[Any] = []

        def hear(sender: Any, **kwargs: Any) -> None:
            told.append(sender)

        ended()
        ended()
        for one in (pre_delete, post_delete):
            one.connect(hear)
        try:
            assert prune("default", 60) == 2
        finally:
            for one in (pre_delete, post_delete):
                one.disconnect(hear)
        assert lines("number") == []
        assert told == []

    def test_stay_with_a_row_that_stays(self):
        ended()
        with transaction.atomic():
            attempts.forget("default", list(OutboxDelivery.objects.values_list("number", flat=True)))
        assert len(lines("number")) == 1

    def test_go_with_a_row_that_somebody_deletes(self):
        ended()
        OutboxDelivery.objects.all().delete()
        assert lines("number") == []


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """That of ``attempts``, which nobody has asked yet whether there are lines."""
    for name in ("_there", "_said", "_undeleted"):
        monkeypatch.setattr(attempts, name, set())
    monkeypatch.setattr(attempts, "_resting", {})
    made = Clock()
    monkeypatch.setattr(attempts, "time", made)
    return made


class Clock:
    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        return self.now


def lost(rows: Any) -> uuid.UUID:
    """The id of a row whose worker is lost."""
    (key,) = rows("delivery_id")
    assert isinstance(claim("default", key), Claim)
    expire()
    return uuid.UUID(str(key))


class TestWithoutTheTable:
    """Workers of a new release may be started before its tables are made, and outlive that these are taken away."""

    @pytest.fixture(autouse=True)
    def _before_the_migration(self, clock):
        call_command("migrate", "deferred_signals_outbox", "0001", verbosity=0)
        yield
        call_command("migrate", "deferred_signals_outbox", verbosity=0)

    def test_deliveries_fail_and_are_retried_and_pruned_as_ever(self, link, rows, caplog):
        link(parcel_sent, receivers.troubled, durable=True)
        receivers.troubles[:] = [ZeroDivisionError()]
        send()
        assert states(ring()) == ["retry"]
        assert "has no table for failed attempts yet" in caplog.text
        expire()
        lost(rows)
        assert states(ring()) == ["succeeded"]
        assert prune("default", -60) == 1

    def test_the_database_is_asked_once_a_minute_and_that_is_said_once(self, clock, caplog, monkeypatch):
        asked: list[str] = []
        monkeypatch.setattr(attempts, "has_table", lambda alias, model: asked.append(alias))
        for _ in range(3):
            assert not attempts.are_kept("default")
        assert asked == ["default"]
        clock.now += attempts.REST
        assert not attempts.are_kept("default")
        assert asked == ["default"] * 2
        assert caplog.text.count("has no table") == 1

    def test_it_is_found_when_it_is_made(self, clock):
        assert not attempts.are_kept("default")
        call_command("migrate", "deferred_signals_outbox", verbosity=0)
        clock.now += attempts.REST
        assert attempts.are_kept("default")

    def test_that_was_there_a_moment_ago_an_end_is_written_by_the_next_try(self, link, rows, caplog):
        link(parcel_sent, receivers.troubled, durable=True)
        receivers.troubles[:] = [ZeroDivisionError()]
        send()
        attempts._there.add("default")
        assert states(ring()) == ["retry"]
        assert rows("state", "attempt") == [("pending", 2)]
        assert caplog.text.count("Failed attempts cannot be noted down in the database 'default'") == 1

    @pytest.mark.parametrize("options", [{}, {"order_by": "number"}])
    def test_that_was_there_a_moment_ago_the_row_of_a_lost_worker_is_taken_over(self, link, rows, options):
        link(parcel_sent, receivers.first, durable=True, **options)
        send()
        key = lost(rows)
        attempts._there.add("default")
        assert isinstance(claim("default", key), Claim)
        assert rows("state", "crashes", "lease") == [("running", 1, 2)]

    def test_that_was_there_a_moment_ago_rows_are_pruned_by_the_next_try(self):
        OutboxDelivery(delivery_id=uuid.uuid4(), state=State.SUCCEEDED, created=DatabaseNow(-9), payload="").save()
        OutboxDelivery.objects.update(finished=DatabaseNow(-9))
        attempts._there.add("default")
        with pytest.raises(DatabaseError):
            prune("default", 1)
        assert OutboxDelivery.objects.count() == 1
        assert prune("default", 1) == 1


class TestATableThatCannotBeWritten:
    """There is one, but this role has no right to it, say."""

    @pytest.fixture(autouse=True)
    def _without_rights(self, clock, monkeypatch):
        def fails(*given: Any) -> None:
            raise ProgrammingError("permission denied for table hunter2")

        monkeypatch.setattr(QuerySet, "bulk_create", fails)
        monkeypatch.setattr(attempts, "_forget", fails)

    def test_keeps_no_end_from_being_written(self, link, rows, clock, caplog):
        link(parcel_sent, receivers.troubled, durable=True, max_retries=None)
        receivers.troubles[:] = [ZeroDivisionError() for _ in range(3)]
        send()
        for _ in range(3):
            assert states(ring()) == ["retry"]
            expire()
            clock.now += attempts.REST
        assert rows("state", "attempt") == [("pending", 4)]
        assert caplog.text.count("cannot be noted down") == 1
        assert "hunter2" not in caplog.text

    def test_keeps_no_row_from_being_taken_over(self, link, rows):
        link(parcel_sent, receivers.first, durable=True)
        send()
        lost(rows)
        assert states(ring()) == ["succeeded"]

    def test_has_rows_pruned_without_their_lines_in_the_end(self):
        for _ in range(2):
            ended()
        for _ in range(2):
            with pytest.raises(ProgrammingError):
                prune("default", 60)
        assert prune("default", 60) == 2

    def test_of_another_error_a_claim_is_not_tried_again(self, link, rows, monkeypatch):
        link(parcel_sent, receivers.first, durable=True)
        send()
        key = lost(rows)
        asked: list[Any] = []

        def fails(*given: Any) -> None:
            asked.append(given)
            raise ProgrammingError

        monkeypatch.setattr(lease, "_take", fails)
        with pytest.raises(ProgrammingError):
            claim("default", key)
        assert len(asked) == 1


def test_an_error_that_passes_leaves_no_line_behind_its_row(clock, monkeypatch):
    ended()
    forget = attempts._forget

    def fails_once(*given: Any) -> None:
        monkeypatch.setattr(attempts, "_forget", forget)
        raise OperationalError("deadlock")

    monkeypatch.setattr(attempts, "_forget", fails_once)
    with pytest.raises(OperationalError):
        prune("default", 60)
    assert prune("default", 60) == 1
    assert lines("number") == []
    assert attempts._undeleted == set()
