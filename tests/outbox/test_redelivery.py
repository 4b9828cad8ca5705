"""Redelivering and discarding by hand, over the functions that the commands and the admin use."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.signing import Signer
from django.db import connections, transaction
from django.db.models import QuerySet

from deferred_signals import Signal, attempt
from deferred_signals.backends.memory import MemoryBackend
from deferred_signals.bell import is_bell
from deferred_signals.delivery import Delivery
from deferred_signals.envelope import seal, unseal
from deferred_signals.outbox import lease, redelivery
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.models import Origin, OutboxDelivery, State
from deferred_signals.outbox.redelivery import discard, redeliver
from deferred_signals.outbox.rows import insert, row_of
from deferred_signals.signature import SALT
from deferred_signals.strict_json import dump, parse
from tests import receivers

knock = Signal()

pytestmark = pytest.mark.django_db(transaction=True)

DEFAULT = OutboxDelivery.objects.using("default")


def changed(payload: str, **keys: Any) -> str:
    return seal(dump({**parse(payload.rpartition(":")[0]), **keys}))


@pytest.fixture
def payload(link, memory) -> str:
    """Of a delivery that runs."""
    link(knock, receivers.first)
    knock.send(None, number=7)
    _, found = memory.payloads.pop()
    return str(found)


def put(payload: str, state: str = State.DEAD, /, **columns: Any) -> OutboxDelivery:
    """A row with this payload, as it would be in that state."""
    envelope = unseal(payload, of_any_age=True)
    connection = connections["default"]
    insert(connection, [row_of(connection, Delivery.of(envelope, envelope.texts()), Origin.SPILLED)])
    rows = DEFAULT.filter(delivery_id=envelope.id)
    ended: dict[str, Any] = {"due": None, "ring_at": None, "finished": DatabaseNow()} if state == State.DEAD else {}
    rows.update(**{"payload": payload, "state": state, "error": "no luck", **ended, **columns})
    return rows.get()


def another(payload: str) -> str:
    """The same for another id."""
    return changed(payload, id=str(uuid.uuid4()))


class TestRedeliver:
    def test_has_a_dead_delivery_run_again_at_once(self, payload, memory, calls, rows):
        put(payload, attempt=4, crashes=2)
        account = redeliver(DEFAULT.all())
        assert (account.changed, account.left) == (1, [])
        assert rows("state", "attempt", "crashes", "lease", "finished") == [("pending", 1, 0, 1, None)]
        ((_, bell),) = memory.payloads
        assert is_bell(bell)
        memory.deliver()
        assert calls == [("first", None, {"signal": knock, "number": 7})]
        assert rows("state") == ["succeeded"]

    def test_has_it_begin_anew(self, payload):
        at = time.time() - 7200
        put(changed(payload, attempt=4, crashes=9, depth=9, repeats=1, waiting=at))
        redeliver(DEFAULT.all())
        envelope = unseal(DEFAULT.get().payload)
        assert (envelope.attempt, envelope.crashes, envelope.depth, envelope.repeats) == (1, 0, 0, 0)
        assert envelope.waiting_since is None
        assert envelope.kwargs == {"number": 7}

    def test_runs_one_of_a_chain_that_was_too_long(self, payload, memory, calls):
        attempt.run(changed(payload, depth=9))
        assert DEFAULT.get().state == State.DEAD
        redeliver(DEFAULT.all())
        memory.deliver()
        assert len(calls) == 1

    def test_runs_one_that_was_too_old(self, payload, memory, calls, settings):
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "MAX_AGE": 60}
        attempt.run(changed(payload, at=time.time() - 61))
        redeliver(DEFAULT.all())
        memory.deliver()
        assert len(calls) == 1

    def test_runs_one_that_is_encrypted_and_stays_so(self, link, memory, calls, settings):
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "ENCRYPTION_KEYS": [Fernet.generate_key().decode()]}
        link(knock, receivers.second, encrypt=True)
        knock.send(None, word="Rosebud")
        _, payload = memory.payloads.pop()
        attempt.run(changed(payload, depth=9))
        redeliver(DEFAULT.all())
        assert "Rosebud" not in DEFAULT.get().payload
        memory.deliver()
        assert calls == [("second", None, {"signal": knock, "word": "Rosebud"})]

    def test_keeps_the_last_error_to_be_read_until_it_ends(self, payload):
        put(payload)
        redeliver(DEFAULT.all())
        assert DEFAULT.get().error == "no luck"

    @pytest.mark.parametrize("state", [State.PENDING, State.RUNNING, State.SUCCEEDED, State.DISCARDED])
    def test_leaves_what_is_not_dead_alone(self, payload, state, rows, memory):
        put(payload, state, lease=3)
        account = redeliver(DEFAULT.all())
        assert (account.changed, account.left) == (0, [])
        assert rows("state", "lease") == [(state, 3)]
        assert memory.payloads == []

    def test_leaves_one_whose_payload_cannot_be_verified_and_says_so(self, payload, rows, memory):
        put(payload, payload=payload[:-1] + "!")
        (left,) = redeliver(DEFAULT.all()).left
        assert left.receiver == "tests.receivers.first"
        assert "signature is wrong" in left.reason
        assert rows("state") == ["dead"]
        assert memory.payloads == []

    def test_leaves_one_of_a_newer_release(self, payload, rows):
        put(payload, payload=changed(payload, v=2))
        (left,) = redeliver(DEFAULT.all()).left
        assert "wire version 2" in left.reason
        assert rows("state") == ["dead"]

    def test_leaves_one_that_has_expired(self, payload, rows):
        put(changed(payload, expires=time.time() - 1))
        (left,) = redeliver(DEFAULT.all()).left
        assert left.reason == "Its expires has passed."
        assert rows("state") == ["dead"]

    def test_takes_one_that_has_not_expired(self, payload, memory, calls):
        put(changed(payload, expires=time.time() + 60))
        redeliver(DEFAULT.all())
        memory.deliver()
        assert len(calls) == 1

    def test_leaves_one_that_somebody_else_changes_at_the_same_time(self, payload, rows, monkeypatch):
        put(payload)

        def slowly(*given: Any, **named: Any) -> Any:
            DEFAULT.update(state=State.PENDING)
            return unseal(*given, **named)

        monkeypatch.setattr(redelivery, "unseal", slowly)
        account = redeliver(DEFAULT.all())
        assert account.changed == 0
        assert [left.reason for left in account.left] == ["Somebody else has changed it meanwhile."]

    def test_fences_a_worker_off_that_had_it_once(self, payload, rows):
        put(payload, State.PENDING)
        held = lease.claim("default", DEFAULT.get().delivery_id)
        assert isinstance(held, lease.Claim)
        DEFAULT.update(state=State.DEAD)
        redeliver(DEFAULT.all())
        assert not held.complete()
        assert not held.renew()
        assert rows("state", "lease") == [("pending", 2)]

    def test_rings_after_the_commit(self, payload, memory):
        put(payload)
        with transaction.atomic():
            redeliver(DEFAULT.all())
            assert memory.payloads == []
        assert len(memory.payloads) == 1

    def test_that_is_rolled_back_changes_nothing(self, payload, memory, rows):
        put(payload)
        with transaction.atomic():
            redeliver(DEFAULT.all())
            transaction.set_rollback(True)
        assert rows("state") == ["dead"]
        assert memory.payloads == []

    def test_leaves_the_ringing_to_the_relay_if_the_broker_is_away(self, payload, monkeypatch):
        def refuse(self: Any, deliveries: Any) -> Any:
            return [(delivery, ConnectionError()) for delivery in deliveries]

        put(payload)
        monkeypatch.setattr(MemoryBackend, "publish", refuse)
        assert redeliver(DEFAULT.all()).changed == 1
        assert DEFAULT.filter(state=State.PENDING, ring_at__lte=DatabaseNow()).exists()

    def test_leaves_the_ringing_to_the_relay_only_later_if_it_is_not(self, payload):
        put(payload)
        redeliver(DEFAULT.all())
        assert DEFAULT.filter(due__lte=DatabaseNow(), ring_at__gt=DatabaseNow(20)).exists()

    def test_goes_through_many_in_batches_and_tells_how_far_it_is(self, payload, monkeypatch, memory, rows):
        monkeypatch.setattr(redelivery, "BATCH", 2)
        for _ in range(5):
            put(another(payload))
        told: list[int] = []
        assert redeliver(DEFAULT.all(), told.append).changed == 5
        assert told == [2, 2, 1]
        assert set(rows("state")) == {"pending"}
        assert len(memory.payloads) == 3

    def test_takes_one_statement_for_each(self, payload, django_assert_max_num_queries):
        for _ in range(30):
            put(another(payload))
        with django_assert_max_num_queries(30 + 5):
            assert redeliver(DEFAULT.all()).changed == 30

    def test_does_not_meet_again_what_dies_again_meanwhile(self, payload, monkeypatch):
        monkeypatch.setattr(redelivery, "BATCH", 1)
        put(payload)
        put(another(payload))

        def die_again(count: int) -> None:
            DEFAULT.update(state=State.DEAD)

        assert redeliver(DEFAULT.all(), die_again).changed == 2


class TestRedeliverWhatCouldNotBeOpened:
    @pytest.fixture
    def rejected(self, payload) -> str:
        """Kept, for it was signed with a key that this process did not have."""
        text = payload.rpartition(":")[0]
        signed = Signer(key="the key that was taken back", salt=SALT).sign(text)
        attempt.run(signed)
        row = DEFAULT.get()
        assert (row.receiver, row.state) == ("", State.DEAD)
        return signed

    def test_runs_it_under_its_own_id_when_the_key_is_back(self, rejected, settings, memory, calls, rows):
        settings.DEFERRED_SIGNALS = {
            **settings.DEFERRED_SIGNALS,
            "SIGNING_KEYS": ["the new key", "the key that was taken back"],
        }
        assert redeliver(DEFAULT.all()).changed == 1
        row = DEFAULT.get()
        assert (row.receiver, row.signal) == ("tests.receivers.first", "tests.outbox.test_redelivery.knock")
        assert str(row.delivery_id) == unseal(rejected).id
        memory.deliver()
        assert len(calls) == 1
        assert rows("state") == ["succeeded"]

    def test_leaves_it_while_the_key_is_not(self, rejected, rows):
        (left,) = redeliver(DEFAULT.all()).left
        assert (left.receiver, rows("state")) == ("", ["dead"])

    def test_leaves_it_where_its_delivery_has_another_row(self, payload, rejected, settings, rows, memory):
        settings.DEFERRED_SIGNALS = {
            **settings.DEFERRED_SIGNALS,
            "SIGNING_KEYS": ["the new key", "the key that was taken back"],
        }
        put(rejected, State.SUCCEEDED)
        (left,) = redeliver(DEFAULT.all()).left
        assert "has another row" in left.reason
        assert rows("state") == ["dead", "succeeded"]
        assert memory.payloads == []


class TestDiscard:
    @pytest.mark.parametrize("state", [State.DEAD, State.PENDING])
    def test_ends_what_is_dead_or_waits_without_running_it(self, payload, state, rows, memory):
        put(payload, state)
        assert discard(DEFAULT.all()).changed == 1
        assert rows("state", "due", "ring_at", "lease") == [("discarded", None, None, 1)]
        assert DEFAULT.get().finished is not None
        assert memory.payloads == []

    def test_leaves_to_be_read_what_a_dead_one_died_of(self, payload, rows):
        put(payload)
        put(another(payload), State.PENDING)
        discard(DEFAULT.all())
        assert rows("error") == ["no luck", "discarded by hand"]

    @pytest.mark.parametrize("state", [State.RUNNING, State.SUCCEEDED, State.DISCARDED])
    def test_leaves_what_runs_or_has_ended_alone(self, payload, state, rows):
        put(payload, state)
        assert discard(DEFAULT.all()).changed == 0
        assert rows("state", "lease") == [(state, 0)]

    def test_leaves_one_that_a_worker_claims_at_the_same_time(self, payload, rows, monkeypatch):
        put(payload, State.PENDING)
        update = QuerySet.update

        def slowly(self: Any, **columns: Any) -> int:
            update(DEFAULT.all(), state=State.RUNNING, lease=1)
            return update(self, **columns)

        monkeypatch.setattr(QuerySet, "update", slowly)
        account = discard(DEFAULT.all())
        assert account.changed == 0
        assert [left.reason for left in account.left] == ["Somebody else has changed it meanwhile."]
        assert rows("state", "lease") == [("running", 1)]

    def test_tells_how_far_it_is(self, payload, monkeypatch):
        monkeypatch.setattr(redelivery, "BATCH", 2)
        for _ in range(3):
            put(another(payload))
        told: list[int] = []
        discard(DEFAULT.all(), told.append)
        assert told == [2, 1]


class TestKeys:
    def test_what_a_dead_one_has_parked_is_rung_for_when_that_is_discarded(self, payload, memory, calls, rows):
        put(payload, order_key="first:7")
        put(another(payload), State.PENDING, order_key="first:7")
        put(another(payload), State.PENDING, order_key="first:7")
        discard(DEFAULT.filter(state=State.DEAD))
        assert len(memory.payloads) == 1
        while memory.payloads:
            memory.deliver()
        assert len(calls) == 2
        assert rows("state") == ["discarded", "succeeded", "succeeded"]

    def test_what_a_dead_one_has_parked_runs_after_it_when_that_is_redelivered(self, payload, memory, rows):
        put(payload, order_key="first:7")
        put(another(payload), State.PENDING, order_key="first:7")
        redeliver(DEFAULT.filter(state=State.DEAD))
        while memory.payloads:
            memory.deliver()
        assert rows("state") == ["succeeded", "succeeded"]
        assert list(DEFAULT.order_by("finished").values_list("number", flat=True)) == sorted(rows("number"))

    def test_the_relay_rings_for_what_was_parked_if_the_broker_is_away(self, payload, monkeypatch):
        def refuse(self: Any, deliveries: Any) -> Any:
            return [(delivery, ConnectionError()) for delivery in deliveries]

        put(payload, order_key="first:7")
        put(another(payload), State.PENDING, order_key="first:7", ring_at=DatabaseNow(3600))
        monkeypatch.setattr(MemoryBackend, "publish", refuse)
        discard(DEFAULT.filter(state=State.DEAD))
        assert DEFAULT.filter(state=State.PENDING, ring_at__lte=DatabaseNow()).exists()
