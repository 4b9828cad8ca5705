"""What a worker does with the rows that it is rung for, and what becomes of them."""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Callable
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from celery.exceptions import SoftTimeLimitExceeded
from cryptography.fernet import Fernet
from django.core.signing import Signer
from django.db import DatabaseError, OperationalError, connection, connections, transaction
from django.test import override_settings

from deferred_signals import Discard, Retry, current_delivery
from deferred_signals.attempt import run
from deferred_signals.bell import MOST, Bell
from deferred_signals.envelope import seal, unseal
from deferred_signals.exceptions import LeaseLost, OpenError, UnknownReceiver, WorkerLost
from deferred_signals.outbox import answering, custody
from deferred_signals.outbox import lease as leases
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.lease import Claim
from deferred_signals.outbox.models import OutboxDelivery, State
from deferred_signals.signals import delivery_finished, delivery_started
from deferred_signals.signature import SALT, signed
from deferred_signals.strict_json import dump
from deferred_signals.tasks import deliver
from tests import receivers
from tests.shop.models import Customer

from .holding import expire, once, parcel_sent, ring, send, states

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

BOTH = pytest.mark.parametrize("atomic", [False, True], ids=["durable", "atomic"])


def effect(**kwargs: Any) -> None:
    Customer.objects.create(name="effect")


def effects() -> int:
    return Customer.objects.filter(name="effect").count()


def failing(times: int) -> Callable[..., None]:
    """An effect that is followed by an error, the first so many times."""
    left = [ZeroDivisionError] * times

    def effect_and_fail(**kwargs: Any) -> None:
        effect()
        if left:
            raise left.pop()

    return effect_and_fail


async def effect_of_a_coroutine(sender: Any, **kwargs: Any) -> None:
    await Customer.objects.acreate(name="effect")
    await sync_to_async(effect)()
    raise ZeroDivisionError


class TestARun:
    @BOTH
    def test_that_succeeds_completes_the_row_and_is_not_repeated(self, link, rows, atomic):
        link(parcel_sent, receivers.curious, durable=True, atomic=atomic)
        receivers.inquiries[:] = [effect]
        send()
        assert states(ring()) == ["succeeded"]
        assert rows("state", "lease", "due", "ring_at", "crashes") == [("succeeded", 1, None, None, 0)]
        assert ring() == []
        assert effects() == 1

    @BOTH
    def test_that_raises_is_a_row_that_waits_and_no_message(self, link, memory, rows, atomic, calls):
        link(parcel_sent, receivers.curious, durable=True, atomic=atomic, retry_jitter=False)
        receivers.inquiries[:] = [failing(1), lambda **_: attempts.append(current_delivery().attempt)]
        attempts: list[int] = []
        send()
        memory.payloads.clear()
        assert states(ring()) == ["retry"]
        assert memory.payloads == []
        assert rows("state", "attempt", "crashes", "error_type") == [("pending", 2, 0, "ZeroDivisionError")]
        assert ring() == [], "not before its countdown is over"
        expire()
        assert states(ring()) == ["succeeded"]
        assert attempts == [2]
        assert effects() == (1 if atomic else 2)

    def test_that_is_retried_leaves_a_line_that_says_what_was_raised(self, link, caplog):
        """Celery, which says it of its own retries, takes the doorbell for a task that has succeeded."""
        link(parcel_sent, receivers.troubled, durable=True)
        receivers.troubles.append(ConnectionError("the bank is closed"))
        send()
        ring()
        assert "the receiver raised (ConnectionError: the bank is closed)" in caplog.text

    def test_that_asks_for_a_retry_waits_as_long_as_it_says(self, link, rows):
        link(parcel_sent, receivers.wants_later, durable=True)
        send()
        ring()
        found = OutboxDelivery.objects.filter(due__gt=DatabaseNow(6), due__lte=DatabaseNow(7), state=State.PENDING)
        assert found.count() == 1

    @BOTH
    def test_that_discards_is_over(self, link, rows, atomic):
        link(parcel_sent, receivers.discards, durable=True, atomic=atomic)
        send()
        assert states(ring()) == ["discarded"]
        assert rows("state", "due", "ring_at") == [("discarded", None, None)]

    def test_of_an_atomic_receiver_that_discards_leaves_no_writes(self, link, rows):
        link(parcel_sent, receivers.curious, durable=True, atomic=True)

        def write_and_discard(**kwargs: Any) -> None:
            effect()
            raise Discard("not needed")

        receivers.inquiries[:] = [write_and_discard]
        send()
        assert states(ring()) == ["discarded"]
        assert effects() == 0

    def test_that_dies_keeps_why(self, link, rows):
        link(parcel_sent, receivers.curious, durable=True, max_retries=0)
        receivers.inquiries[:] = [failing(1)]
        send()
        assert states(ring()) == ["dead"]
        ((state, due, error, trace),) = rows("state", "due", "error_type", "traceback")
        assert (state, due, error) == ("dead", None, "ZeroDivisionError")
        assert "effect_and_fail" in trace

    @pytest.mark.parametrize("text", ["\0", "\ud800", "x" * 100_000], ids=["NUL", "half", "long"])
    def test_can_die_of_an_error_whose_text_no_database_takes(self, link, rows, text):
        link(parcel_sent, receivers.curious, durable=True, max_retries=0)

        def fail(**kwargs: Any) -> None:
            raise ValueError(text)

        receivers.inquiries[:] = [fail]
        send()
        assert states(ring()) == ["dead"]
        assert rows("state") == ["dead"]

    def test_of_one_row_leaves_the_others_of_its_doorbell_alone(self, link, rows):
        link(parcel_sent, receivers.troubled, durable=True, dont_autoretry_for=(ZeroDivisionError,))
        receivers.troubles[:] = [ZeroDivisionError(), Retry(countdown=5), Discard("no")]
        send(4)
        assert states(ring()) == ["dead", "retry", "discarded", "succeeded"]
        assert rows("state") == ["dead", "pending", "discarded", "succeeded"]

    def test_is_told_to_observers_once_for_each_delivery(self, link):
        link(parcel_sent, receivers.troubled, durable=True)
        receivers.troubles[:] = [Retry(countdown=5)]
        told: list[Any] = []

        def started(delivery: Any, **kwargs: Any) -> None:
            told.append(("started", delivery.id))

        def finished(delivery: Any, outcome: Any, **kwargs: Any) -> None:
            told.append((outcome.state, delivery.id))

        delivery_started.connect(started)
        delivery_finished.connect(finished)
        try:
            first, second = (str(one) for one in send(2))
            ring()
            ring()
        finally:
            delivery_started.disconnect(started)
            delivery_finished.disconnect(finished)
        assert told == [("started", first), ("retry", first), ("started", second), ("succeeded", second)]

    def test_of_what_has_expired_is_none(self, link, rows, calls, monkeypatch):
        link(parcel_sent, receivers.first, durable=True, expires=30)
        send()
        monkeypatch.setattr("deferred_signals.attempt.time.time", lambda: 1e10)
        assert states(ring()) == ["discarded"]
        assert (rows("state"), calls) == (["discarded"], [])

    def test_heeds_no_age_limit_for_the_row_was_never_at_the_broker(self, link, monkeypatch, calls):
        link(parcel_sent, receivers.first, durable=True)
        with override_settings(DEFERRED_SIGNALS={"BACKEND": "memory", "MAX_AGE": 10}):
            send()
            monkeypatch.setattr("deferred_signals.envelope.time.time", lambda: 1e10)
            assert states(ring()) == ["succeeded"]
        assert len(calls) == 1

    def test_of_an_encrypted_delivery_is_one_of_any_other(self, link, calls, rows):
        keys = {"BACKEND": "memory", "ENCRYPTION_KEYS": [Fernet.generate_key().decode()]}
        with override_settings(DEFERRED_SIGNALS=keys):
            link(parcel_sent, receivers.troubled, durable=True, encrypt=True)
            receivers.troubles[:] = [Retry(countdown=0)]
            send(secret="tea")
            assert "tea" not in rows("payload")[0]
            assert states(ring() + ring()) == ["retry", "succeeded"]
            assert "tea" not in rows("payload")[0]

    def test_that_leaves_a_transaction_open_has_failed_and_its_end_is_committed_all_the_same(self, link, rows):
        link(parcel_sent, receivers.curious, durable=True, max_retries=0)

        def enter() -> None:
            transaction.atomic().__enter__()
            effect()

        receivers.inquiries[:] = [once(enter)]
        send()
        assert states(ring()) == ["dead"]
        assert not connection.in_atomic_block
        assert effects() == 0
        ((state, error),) = rows("state", "error")
        assert state == "dead"
        assert "left a transaction open" in error

    def test_that_leaves_autocommit_off_has_failed_too(self, link, rows):
        link(parcel_sent, receivers.curious, durable=True, max_retries=0)
        receivers.inquiries[:] = [once(lambda: transaction.set_autocommit(False))]
        send()
        assert states(ring()) == ["dead"]
        assert connection.get_autocommit()
        assert rows("state") == ["dead"]

    @BOTH
    def test_that_leaves_autocommit_off_on_another_database_has_failed_and_keeps_nothing_from_the_next(
        self, link, rows, atomic
    ):
        link(parcel_sent, receivers.curious, durable=True, atomic=atomic, max_retries=0)
        receivers.inquiries[:] = [
            once(lambda: transaction.set_autocommit(False, using="other")),
            lambda **_: Customer.objects.using("other").create(name="effect"),
        ]
        send(2)
        ring()
        connections["other"].close()
        assert Customer.objects.using("other").count() == 1
        assert rows("state") == (["succeeded", "succeeded"] if atomic else ["dead", "succeeded"])

    def test_may_work_on_a_database_whose_commits_are_its_own_business(self, link, rows, monkeypatch):
        link(parcel_sent, receivers.curious, durable=True)
        other = connections["other"]
        other.close()
        monkeypatch.setitem(other.settings_dict, "AUTOCOMMIT", False)

        def effect_and_commit(**kwargs: Any) -> None:
            Customer.objects.using("other").create(name="effect")
            transaction.commit(using="other")

        receivers.inquiries[:] = [effect_and_commit]
        send(2)
        ended = states(ring())
        other.close()
        kept = Customer.objects.using("other").count()
        other.close()  # as it was begun, it would not commit what later tests write
        assert (ended, kept) == (["succeeded", "succeeded"], 2)

    def test_that_leaves_a_block_open_in_an_atomic_run_is_not_taken_for_completed(self, link, rows):
        link(parcel_sent, receivers.curious, durable=True, atomic=True)

        def enter() -> None:
            effect()
            transaction.atomic().__enter__()

        receivers.inquiries[:] = [once(enter), effect]
        send()
        assert states(ring()) == ["retry"]
        assert effects() == 0
        expire()
        receivers.inquiries[:] = [effect]
        assert states(ring()) == ["succeeded"]
        assert effects() == 1

    def test_that_fails_with_a_transaction_open_fails_with_its_own_error(self, link, rows):
        link(parcel_sent, receivers.curious, durable=True, max_retries=0)

        def enter_and_fail(**kwargs: Any) -> None:
            transaction.atomic().__enter__()
            raise ZeroDivisionError

        receivers.inquiries[:] = [enter_and_fail]
        send()
        ((_, end),) = ring()
        assert isinstance(end.error, ZeroDivisionError)
        assert rows("state", "error_type") == [("dead", "ZeroDivisionError")]


class TestAStaleRun:
    """Its lease runs out in the receiver, and another run takes the row over and finishes it."""

    @BOTH
    def test_counts_for_nothing_and_of_an_atomic_one_the_writes_are_gone(self, link, rows, atomic):
        link(parcel_sent, receivers.curious, durable=True, atomic=atomic)

        def others(**kwargs: Any) -> None:
            # What another worker would do; in this transaction, where there is one: it is rolled back by the stale run.
            if not atomic:
                expire()
                assert states(ring()) == ["succeeded"]

        receivers.inquiries[:] = [effect, once(others)]
        if atomic:
            receivers.inquiries[:] = [effect, once(lambda: OutboxDelivery.objects.update(lease=7))]
        send()
        ((_, end),) = ring()
        assert end.state == "discarded"
        assert isinstance(end.error, LeaseLost)
        if atomic:
            assert effects() == 0
        else:
            assert effects() == 2, "without atomic=True a receiver may run twice"
            assert rows("state", "lease") == [("succeeded", 2)]

    def test_that_fails_does_not_undo_the_success_of_the_other(self, link, rows):
        link(parcel_sent, receivers.curious, durable=True, max_retries=0)

        def others() -> None:
            expire()
            assert states(ring()) == ["succeeded"]
            raise ZeroDivisionError

        receivers.inquiries[:] = [once(others)]
        send()
        ((_, end),) = ring()
        assert isinstance(end.error, LeaseLost)
        assert "dead" in end.reason
        assert rows("state", "lease") == [("succeeded", 2)]

    def test_that_wants_a_retry_does_not_undo_it_either(self, link, rows):
        link(parcel_sent, receivers.curious, durable=True)

        def others() -> None:
            expire()
            assert states(ring()) == ["succeeded"]
            raise Retry

        receivers.inquiries[:] = [once(others)]
        send()
        assert states(ring()) == ["discarded"]
        assert rows("state", "attempt") == [("succeeded", 1)]

    def test_is_what_only_the_outbox_can_say(self, link, rows):
        link(parcel_sent, receivers.curious, durable=True)

        def pretend(**kwargs: Any) -> None:
            raise LeaseLost

        receivers.inquiries[:] = [pretend]
        send()
        assert states(ring()) == ["discarded"]
        assert rows("state", "due") == [("discarded", None)]


class TestAnAtomicReceiver:
    def test_that_is_async_writes_in_the_transaction(self, link, rows):
        link(parcel_sent, effect_of_a_coroutine, durable=True, atomic=True, max_retries=0)
        send()
        assert states(ring()) == ["dead"]
        assert effects() == 0

    def test_writes_to_another_database_outside_of_the_transaction(self, link):
        """Not covered, and documented: two databases have no common commit."""
        link(parcel_sent, receivers.curious, durable=True, atomic=True)

        def write_elsewhere_and_fail(**kwargs: Any) -> None:
            Customer.objects.using("other").create(name="effect")
            raise ZeroDivisionError

        receivers.inquiries[:] = [write_elsewhere_and_fail]
        send()
        ring()
        assert Customer.objects.using("other").count() == 1

    def test_that_opens_a_durable_block_is_dead_with_an_explanation(self, link, rows):
        link(parcel_sent, receivers.curious, durable=True, atomic=True)

        def nest(**kwargs: Any) -> None:
            with transaction.atomic(durable=True):
                effect()

        receivers.inquiries[:] = [nest]
        send()
        ((_, end),) = ring()
        assert end.state == "dead"
        assert "Leave one of the two out" in end.reason
        assert rows("state") == ["dead"]

    def test_whose_transaction_cannot_commit_has_failed(self, link, rows):
        """What it asks the commit to check is not so."""
        link(parcel_sent, receivers.curious, durable=True, atomic=True)
        receivers.inquiries[:] = [effect, lambda **_: transaction.set_rollback(True)]
        send()
        assert states(ring()) == ["retry"]
        assert effects() == 0
        assert rows("state") == ["pending"]

    def test_is_completed_even_if_a_hook_of_its_commit_raises(self, link, rows, caplog):
        link(parcel_sent, receivers.curious, durable=True, atomic=True)

        def hook() -> None:
            raise ZeroDivisionError

        receivers.inquiries[:] = [effect, lambda **_: transaction.on_commit(hook)]
        send()
        assert states(ring()) == ["succeeded"]
        assert rows("state") == ["succeeded"]
        assert effects() == 1
        assert "ZeroDivisionError" in caplog.text

    def test_sends_what_it_sends_with_its_own_commit(self, link, memory, rows):
        link(parcel_sent, receivers.curious, durable=True, atomic=True)

        def send_on(number: int, **kwargs: Any) -> None:
            if number == 0:
                parcel_sent.send(sender=None, number=1)
                seen.append(len(memory.payloads))

        seen: list[int] = []
        receivers.inquiries[:] = [send_on]
        send()
        memory.payloads.clear()
        ring()
        assert seen == [0]
        assert len(memory.payloads) == 1
        assert rows("state") == ["succeeded", "pending"]

    @pytest.mark.parametrize(
        "said",
        [
            type("Serialization", (Exception,), {"sqlstate": "40001"})(),
            type("Deadlock", (Exception,), {"sqlstate": "40P01"})(),
            Exception(1213, "Deadlock found"),
            Exception(1020, "Record has changed"),
            type("Busy", (Exception,), {"sqlite_errorcode": 517})(),
        ],
        ids=["serialization", "deadlock", "MySQL deadlock", "MariaDB snapshot", "SQLite busy"],
    )
    def test_whose_transaction_gives_way_runs_again_and_uses_up_no_attempt(self, link, rows, said):
        link(parcel_sent, receivers.curious, durable=True, atomic=True, max_retries=0)

        def give_way() -> None:
            raise OperationalError("gave way") from said

        receivers.inquiries[:] = [effect, once(give_way)]
        send()
        assert states(ring()) == ["retry"]
        assert rows("attempt") == [1]
        expire()
        assert states(ring()) == ["succeeded"]
        assert effects() == 1

    @pytest.mark.parametrize(
        "said", [None, Exception("no code"), type("Other", (Exception,), {"sqlstate": "42P01"})()], ids=str
    )
    def test_whose_database_error_is_another_has_failed(self, link, said):
        link(parcel_sent, receivers.curious, durable=True, atomic=True, max_retries=0)

        def fail(**kwargs: Any) -> None:
            raise OperationalError("something else") from said

        receivers.inquiries[:] = [fail]
        send()
        assert states(ring()) == ["dead"]

    def test_whose_connection_breaks_runs_again_and_uses_up_no_attempt(self, link, rows):
        """A session that is really ended is in ``test_interleavings``; here its connection is gone at the rollback."""
        link(parcel_sent, receivers.curious, durable=True, atomic=True, max_retries=0)

        def break_it() -> None:
            wrapper = connections["default"]
            fresh.append(wrapper.get_new_connection(wrapper.get_connection_params()))
            patched.setattr(wrapper, "connection", fresh[0])
            raise OperationalError("server closed the connection unexpectedly")

        fresh: list[Any] = []
        receivers.inquiries[:] = [once(break_it)]
        send()
        wrapper: Any = connections["default"]
        with pytest.MonkeyPatch.context() as patched:
            real = wrapper._rollback
            patched.setattr(wrapper, "_rollback", lambda: None)
            session = wrapper.connection
            assert states(ring()) == ["retry"]
            fresh.append(wrapper.connection)  # another one yet, where CONN_MAX_AGE has closed it
        assert wrapper.connection is session
        real()
        wrapper.set_autocommit(True)
        for one in fresh:
            with suppress(wrapper.Database.Error):
                one.close()
        expire()
        assert rows("attempt") == [1]
        assert states(ring()) == ["succeeded"]


class TestARunThatIsBrokenOff:
    @BOTH
    def test_gives_the_row_back_with_no_attempt_and_no_crash_used_up(self, link, rows, atomic, memory):
        link(parcel_sent, receivers.curious, durable=True, atomic=atomic)

        def stop() -> None:
            raise SystemExit(-241)

        receivers.inquiries[:] = [effect, once(stop)]
        send(2)
        with pytest.raises(SystemExit):
            ring()
        assert rows("state", "attempt", "crashes", "lease") == [("pending", 1, 0, 1), ("pending", 1, 0, 0)]
        assert states(ring()) == ["succeeded", "succeeded"], "at once"
        assert effects() == (2 if atomic else 3)

    @pytest.mark.parametrize("known", [True, False])
    def test_by_a_hard_time_limit_is_a_crash_and_does_not_come_back_at_once(self, link, rows, monkeypatch, known):
        """Its process hears of it as of a shutdown. Without this, it would come back for ever."""
        link(parcel_sent, receivers.curious, durable=True)
        receivers.inquiries[:] = [once(lambda: (_ for _ in ()).throw(SystemExit(-241)))]
        send()
        if known:
            monkeypatch.setattr(deliver, "time_limit", 1e-9)
        lease = 30 if known else 1e-6
        with override_settings(DEFERRED_SIGNALS={"BACKEND": "memory", "LEASE": lease}), pytest.raises(SystemExit):
            ring()
        assert rows("state") == ["running"]
        expire()
        assert [made.crashes for made, _ in ring()] == [1]

    def test_after_a_crash_has_still_crashed_once(self, link, rows):
        link(parcel_sent, receivers.curious, durable=True)
        receivers.inquiries[:] = [once(lambda: (_ for _ in ()).throw(SystemExit(-241)))]
        send()
        OutboxDelivery.objects.update(state=State.RUNNING, lease=1, worker="1@gone", due=DatabaseNow(-1))
        with pytest.raises(SystemExit):
            ring()
        assert rows("state", "crashes") == [("pending", 1)]

    def test_by_what_the_receiver_has_raised_itself_is_an_error_of_its_own(self, link, rows):
        link(parcel_sent, receivers.curious, durable=True)
        receivers.inquiries[:] = [once(lambda: (_ for _ in ()).throw(SystemExit(1)))]
        send()
        assert states(ring(passes=lambda error: False)) == ["retry"]
        assert rows("state", "attempt") == [("pending", 2)]

    def test_while_the_database_is_away_waits_for_the_end_of_its_lease(self, link, rows, monkeypatch, caplog):
        link(parcel_sent, receivers.curious, durable=True)
        receivers.inquiries[:] = [once(lambda: (_ for _ in ()).throw(SystemExit(-241)))]
        tries: list[int] = []

        def away(self: Claim) -> bool:
            tries.append(1)
            raise OperationalError("away")

        monkeypatch.setattr(Claim, "release", away)
        send()
        with pytest.raises(SystemExit):
            ring()
        assert len(tries) == 2
        assert rows("state") == ["running"]
        assert "when its lease is over" in caplog.text

    def test_by_an_error_of_ours_is_not_repeated_at_once_but_counts_as_a_crash(self, link, rows, monkeypatch):
        link(parcel_sent, receivers.first, durable=True)
        monkeypatch.setattr(custody, "report", lambda end: 1 / 0)
        monkeypatch.setattr(Claim, "complete", lambda self: 1 / 0)
        send()
        with pytest.raises(ZeroDivisionError):
            ring()
        assert rows("state") == ["running"]
        expire()
        monkeypatch.undo()
        assert states(ring()) == ["succeeded"]
        assert rows("crashes") == [1]


class TestACrash:
    def test_is_counted_apart_from_what_is_raised_and_seen_by_the_receiver(self, link, rows):
        link(parcel_sent, receivers.curious, durable=True)
        seen: list[tuple[int, int]] = []
        receivers.inquiries[:] = [lambda **_: seen.append((current_delivery().attempt, current_delivery().crashes))]
        send()
        OutboxDelivery.objects.update(state=State.RUNNING, lease=1, worker="1@gone", due=DatabaseNow(-1))
        assert states(ring()) == ["succeeded"]
        assert seen == [(1, 1)]
        assert rows("lease", "attempt", "crashes") == [(2, 1, 1)]

    def test_at_the_limit_is_the_last_and_names_the_worker_and_how_it_was_lost(self, link, rows, calls):
        link(parcel_sent, receivers.first, durable=True)
        send()
        OutboxDelivery.objects.update(
            state=State.RUNNING, lease=10, crashes=9, worker="4711@host", loss="SIGKILL", due=DatabaseNow(-1)
        )
        ((delivery, end),) = ring()
        assert (delivery.crashes, end.state, type(end.error)) == (10, "dead", WorkerLost)
        assert "4711@host, SIGKILL" in end.reason
        ((state, error, due),) = rows("state", "error", "due")
        assert (state, due, calls) == ("dead", None, [])
        assert "4711@host, SIGKILL" in error

    def test_before_an_error_is_forgotten_for_the_worker_was_not_lost(self, link, rows):
        link(parcel_sent, receivers.curious, durable=True)
        receivers.inquiries[:] = [failing(1)]
        send()
        OutboxDelivery.objects.update(state=State.RUNNING, lease=1, crashes=3, due=DatabaseNow(-1))
        ring()
        assert rows("crashes") == [0]
        assert unseal(rows("payload")[0]).crashes == 0


class TestAPayloadThatCannotBeRun:
    def told(self) -> list[Any]:
        return [(delivery, end.state, type(end.error)) for delivery, end in ring()]

    def test_whose_key_is_gone_is_dead_and_kept_and_told(self, link, rows, caplog):
        link(parcel_sent, receivers.first, durable=True)
        heard: list[Any] = []

        def finished(delivery: Any, outcome: Any, **kwargs: Any) -> None:
            heard.append((delivery, outcome.state))

        send()
        (before,) = rows("payload")
        delivery_finished.connect(finished)
        try:
            with override_settings(DEFERRED_SIGNALS={"BACKEND": "memory", "SIGNING_KEYS": ["another"]}):
                assert self.told() == [(None, "dead", OpenError)]
        finally:
            delivery_finished.disconnect(finished)
        assert heard == [(None, "dead")]
        assert "is dead" in caplog.text
        assert rows("state", "payload") == [("dead", before)]

    def test_of_a_newer_wire_waits_as_it_is(self, link, rows, calls):
        link(parcel_sent, receivers.first, durable=True)
        send()
        newer = {**json.loads(rows("payload")[0].rpartition(":")[0]), "v": 2, "attempt": {"of": "another kind"}}
        OutboxDelivery.objects.update(payload=seal(dump(newer)))
        assert states(ring()) == ["retry"]
        ((state, attempt, payload),) = rows("state", "attempt", "payload")
        assert (state, attempt, calls) == ("pending", 1, [])
        assert newer.items() <= json.loads(payload.rpartition(":")[0]).items()

    def test_to_an_unknown_receiver_waits_for_a_release_and_is_then_dead(self, link, rows, settings):
        link(parcel_sent, receivers.first, durable=True)
        send()
        unknown = {**json.loads(rows("payload")[0].rpartition(":")[0]), "to": "nobody.knows"}
        OutboxDelivery.objects.update(payload=seal(dump(unknown)))
        assert states(ring()) == ["retry"]
        expire()
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "RELEASE_WINDOW": 0.001}
        ((_, end),) = ring()
        assert (end.state, type(end.error)) == ("dead", UnknownReceiver)
        assert rows("state") == ["dead"]

    def test_is_run_as_what_is_signed_whatever_the_other_columns_say(self, link, rows):
        link(parcel_sent, receivers.curious, durable=True, atomic=True)
        receivers.inquiries[:] = [failing(1)]
        send()
        OutboxDelivery.objects.update(receiver="x" * 255)
        assert states(ring()) == ["retry"]
        assert effects() == 0, "it was atomic all the same"

    @pytest.mark.parametrize(("missing", "state"), [("discard", "discarded"), ("dead", "dead"), ("retry", "pending")])
    def test_whose_instance_is_gone_follows_the_policy(self, link, rows, missing, state):
        link(parcel_sent, receivers.on_instance, durable=True, missing=missing)
        customer = Customer.objects.create(name="Ada")
        send(instance=customer)
        customer.delete()
        ring()
        assert rows("state") == [state]


class TestADatabaseThatIsAway:
    """The real thing is in test_interleavings and in the integration tests; here its errors come when we say."""

    def test_at_the_claim_leaves_the_doorbell_to_the_relay(self, link, rows, monkeypatch, caplog):
        link(parcel_sent, receivers.first, durable=True)
        asked: list[int] = []

        def away(*args: Any) -> Any:
            asked.append(1)
            raise OperationalError("away")

        send(3)
        monkeypatch.setattr(answering, "claim", away)
        monkeypatch.setattr(answering, "database_is_away", lambda: True)
        assert ring() == []
        assert len(asked) == answering.TRIES, "the others are not asked for"
        assert "rung for again" in caplog.text
        assert rows("state") == ["pending"] * 3

    def test_for_a_moment_at_the_claim_is_no_matter(self, link, rows, monkeypatch):
        link(parcel_sent, receivers.first, durable=True)
        real, asked = leases.claim, []

        def away_once(*args: Any) -> Any:
            asked.append(1)
            if len(asked) == 1:
                raise OperationalError("away")
            return real(*args)

        monkeypatch.setattr(answering, "claim", away_once)
        send()
        assert states(ring()) == ["succeeded"]

    def test_for_one_claim_only_does_not_keep_the_others(self, link, monkeypatch, calls):
        link(parcel_sent, receivers.first, durable=True)
        real = leases.claim
        first, second = send(2)

        def refuse_one(alias: str, key: uuid.UUID) -> Any:
            if key == first:
                raise DatabaseError("this one not")
            return real(alias, key)

        monkeypatch.setattr(answering, "claim", refuse_one)
        assert states(ring(first, second)) == ["succeeded"]

    def test_at_the_end_is_waited_for(self, link, rows, monkeypatch):
        link(parcel_sent, receivers.first, durable=True)
        real, left = Claim.complete, [OperationalError("away")] * 3

        def away(self: Claim) -> bool:
            if left:
                raise left.pop()
            return real(self)

        monkeypatch.setattr(Claim, "complete", away)
        send()
        assert states(ring()) == ["succeeded"]
        assert rows("state") == ["succeeded"]

    def test_at_the_end_is_waited_for_beyond_a_soft_time_limit(self, link, rows, monkeypatch):
        """It comes once; the effect is there, and would be there twice."""
        link(parcel_sent, receivers.curious, durable=True)
        receivers.inquiries[:] = [effect]
        troubles: list[Exception] = [OperationalError("away"), SoftTimeLimitExceeded(), OperationalError("broken off")]
        real = Claim.complete

        def away(self: Claim) -> bool:
            if troubles:
                raise troubles.pop(0)
            return real(self)

        monkeypatch.setattr(Claim, "complete", away)
        send()
        assert states(ring()) == ["succeeded"]
        assert rows("state") == ["succeeded"]
        assert effects() == 1

    def test_at_the_end_for_longer_than_a_lease_runs_again(self, link, rows, monkeypatch, caplog, calls):
        link(parcel_sent, receivers.first, durable=True)
        send()

        def away(self: Claim) -> bool:
            raise OperationalError("away")

        with monkeypatch.context() as patched, override_settings(DEFERRED_SIGNALS={"BACKEND": "memory", "LEASE": 0.1}):
            patched.setattr(Claim, "complete", away)
            ring()
        assert "could not be written down" in caplog.text
        expire()
        assert states(ring()) == ["succeeded"]
        assert len(calls) == 2

    @BOTH
    def test_whose_answer_to_the_completion_is_lost_has_completed(self, link, rows, monkeypatch, atomic):
        """The unknown result of a commit: it was one."""
        link(parcel_sent, receivers.curious, durable=True, atomic=atomic)
        receivers.inquiries[:] = [effect]
        send()
        wrapper: Any = type(connections["default"])
        real = wrapper._commit if atomic else Claim.complete
        done: list[int] = []

        def commit_and_lose_the_answer(self: Any) -> Any:
            real(self)
            if not done:
                done.append(1)
                raise OperationalError("server closed the connection unexpectedly")
            return False

        with monkeypatch.context() as patched:
            patched.setattr(*((wrapper, "_commit") if atomic else (Claim, "complete")), commit_and_lose_the_answer)
            assert states(ring()) == ["succeeded"]
        assert rows("state") == ["succeeded"]
        assert effects() == 1


class TestADoorbellThatNobodyOfOursHasMade:
    @pytest.fixture
    def key(self, link) -> uuid.UUID:
        link(parcel_sent, receivers.first, durable=True)
        (made,) = send()
        return made

    def genuine(self, **changes: Any) -> str:
        return dump({"bell": "default", "v": 1, "ids": [], **changes})

    def test_is_not_believed_without_a_signature(self, key, calls, rows):
        for payload in (
            self.genuine(ids=[str(key)]),
            self.genuine(ids=[str(key)]) + ":forged",
            Signer(key="another", salt=SALT).sign(self.genuine(ids=[str(key)])),
            Signer(salt="another").sign(self.genuine(ids=[str(key)])),
            Bell("default", (key,)).payload.replace("default", "other"),
            Bell("default", (key,)).payload[:-1],
            '{"bell":',
        ):
            delivery, end = run(payload)
            assert (delivery, end.state, type(end.error)) == (None, "dead", OpenError), payload
        assert calls == []
        assert rows("state") == ["pending"], "and it is not kept among the dead"

    @pytest.mark.parametrize(
        "changes",
        [
            {"ids": "all"},
            {"ids": {"a": 1}},
            {"ids": [1]},
            {"ids": [None]},
            {"ids": ["no uuid"]},
            {"ids": [["5b0e0000-0000-0000-0000-000000000000"]]},
            {"ids": ["5b0e0000-0000-0000-0000-00000000000' OR 1=1"]},
            {"bell": 1},
            {"bell": None},
            {"bell": ["default"]},
            {"v": 0},
            {"v": True},
            {"v": "1"},
            {"v": None},
        ],
        ids=str,
    )
    def test_is_dead_if_it_is_signed_but_says_nonsense(self, key, calls, rows, changes):
        delivery, end = run(signed(self.genuine(**changes)))
        assert (delivery, end.state, type(end.error)) == (None, "dead", OpenError)
        assert rows("state") == ["pending"]

    def test_is_dead_if_it_rings_for_a_million(self, key, calls):
        text = self.genuine(ids=[str(key)] * 1_000_000)
        _, end = run(signed(text))
        assert (end.state, type(end.error)) == ("dead", OpenError)
        assert calls == []

    def test_may_ring_for_the_same_row_again_and_again(self, key, calls):
        _, end = run(Bell("default", (key,) * MOST).payload)
        assert end.state == "succeeded"
        assert len(calls) == 1

    def test_of_a_newer_version_is_left_to_newer_workers(self, key, rows):
        _, end = run(signed(self.genuine(v=2, ids=[str(key)])))
        assert end.state == "discarded"
        assert rows("state") == ["pending"]

    def test_rings_in_vain_for_rows_that_are_not_there(self, key, rows):
        _, end = run(Bell("default", (uuid.uuid4(),)).payload)
        assert end.state == "succeeded"
        _, end = run(Bell("other", (key,)).payload)
        assert end.state == "succeeded"
        assert rows("state") == ["pending"]

    def test_rings_in_vain_for_an_alias_that_this_process_does_not_have(self, key, rows, caplog):
        _, end = run(Bell("elsewhere", (key,)).payload)
        assert end.state == "succeeded"
        assert "elsewhere" in caplog.text
        assert rows("state") == ["pending"]

    def test_rings_in_vain_a_second_time(self, key, calls):
        payload = Bell("default", (key,)).payload
        assert [run(payload)[1].state for _ in range(3)] == ["succeeded"] * 3
        assert len(calls) == 1

    def test_is_no_delivery_and_a_delivery_is_none(self, key, rows, calls):
        (payload,) = rows("payload")
        with pytest.raises(OpenError):
            unseal(Bell("default", (key,)).payload)
        as_a_bell = signed('{"bell":"default",' + payload.rpartition(":")[0][1:])
        _, end = run(as_a_bell)
        assert (end.state, type(end.error)) == ("dead", OpenError)
        assert calls == []


class TestTheRestOfADoorbell:
    def test_is_passed_on_in_halves_while_a_receiver_is_slow(self, link, memory, rows, monkeypatch):
        link(parcel_sent, receivers.curious, durable=True)
        monkeypatch.setattr(answering, "passing_on", at_once)
        receivers.inquiries[:] = [once(lambda: None)]
        ids = send(8)
        memory.payloads.clear()
        assert states(ring(*ids)) == ["succeeded"]
        passed = [re.findall(r"[0-9a-f-]{36}", payload) for _, payload in memory.payloads]
        assert [len(part) for part in passed] == [4, 3]
        assert [uuid.UUID(one) for part in passed for one in part] == ids[1:]
        while memory.payloads:  # each half is passed on again
            memory.deliver()
        assert rows("state") == ["succeeded"] * 8

    def test_is_run_here_if_nobody_takes_the_doorbells(self, link, memory, rows, monkeypatch):
        link(parcel_sent, receivers.curious, durable=True)
        monkeypatch.setattr(answering, "passing_on", at_once)
        ids = send(5)
        memory.payloads.clear()
        monkeypatch.setattr(type(memory), "publish", lambda self, given: [(one, OSError()) for one in given])
        assert states(ring(*ids)) == ["succeeded"] * 5

    def test_is_rung_for_anew_when_the_doorbell_has_taken_long(self, link, memory, rows, monkeypatch):
        link(parcel_sent, receivers.first, durable=True)
        monkeypatch.setattr(answering, "LONGEST", -1.0)
        ids = send(3)
        memory.payloads.clear()
        assert states(ring(*ids)) == ["succeeded"]
        ((_, payload),) = memory.payloads
        assert [uuid.UUID(one) for one in re.findall(r"[0-9a-f-]{36}", payload)] == ids[1:]

    def test_is_run_here_however_long_it_takes_if_nobody_takes_the_doorbell(self, link, memory, rows, monkeypatch):
        link(parcel_sent, receivers.first, durable=True)
        monkeypatch.setattr(answering, "LONGEST", -1.0)
        ids = send(3)
        monkeypatch.setattr(type(memory), "publish", lambda self, given: [(one, OSError()) for one in given])
        assert states(ring(*ids)) == ["succeeded"] * 3

    def test_stays_where_the_receivers_are_quick(self, link, memory):
        link(parcel_sent, receivers.first, durable=True)
        ids = send(5)
        memory.payloads.clear()
        ring(*ids)
        assert memory.payloads == []


@contextmanager
def at_once(alias: str, rest: Any, ring_for: Any) -> Any:
    """Passes on as the heartbeat does after its moment: from another thread, while the receiver runs."""
    from deferred_signals.outbox import remainder

    class Now:
        def __init__(self, key: str) -> None:
            pass

        @contextmanager
        def every(self, pause: float, action: Callable[[], bool]) -> Any:
            thread = threading.Thread(target=lambda: (action(), connections.close_all()))
            thread.start()
            thread.join()
            yield

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(remainder, "heartbeat", Now)
        with remainder.passing_on(alias, rest, ring_for):
            yield


def test_a_countdown_of_a_timedelta_is_heeded_by_the_row(link, rows):
    link(parcel_sent, receivers.first, durable=True, countdown=timedelta(minutes=5))
    send()
    assert ring() == []
    assert OutboxDelivery.objects.filter(due__gt=DatabaseNow(290), due__lte=DatabaseNow(300)).exists()
