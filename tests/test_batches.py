"""Deliveries of one commit that share a message, the option ``batch_size``: what shares one, and what is told of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.db import transaction
from django.db.models.signals import post_save
from django.utils import translation

from deferred_signals import (
    Delivery,
    Signal,
    backends,
    batching,
    connect,
    handover,
    keeping,
    register_carrier,
    registry,
)
from deferred_signals.backends.base import Backend, Failure
from deferred_signals.backends.memory import MemoryBackend
from deferred_signals.context import unregister_carrier
from deferred_signals.envelope import seal, unseal
from deferred_signals.exceptions import ConnectError, PublishError
from deferred_signals.options import Options
from deferred_signals.outbox import ringing
from deferred_signals.outbox.backend import DatabaseOutbox
from deferred_signals.outbox.models import OutboxDelivery
from deferred_signals.signals import delivery_published, delivery_unpublished
from deferred_signals.strict_json import dump
from tests.receivers import curious, first, on_instance, second, troubled
from tests.shop.models import Customer

bell: Any = Signal()
other_bell: Any = Signal()


def ring(count: int, signal: Any = bell, **named: Any) -> list[str]:
    """Send so often in one transaction; the ids."""
    with transaction.atomic():
        return [signal.send(sender=None, number=number, **named)[0][1].id for number in range(count)]


def sizes(memory: MemoryBackend) -> list[int]:
    """How many deliveries each message has."""
    return [len(delivery.members) or 1 for delivery, _ in memory.payloads]


def numbers(memory: MemoryBackend) -> list[list[int]]:
    """The argument ``number`` of the deliveries of each message."""
    found = []
    for delivery, _ in memory.payloads:
        members = delivery.members or (delivery,)
        found.append([unseal(seal(member.text)).kwargs["number"] for member in members])
    return found


@pytest.fixture
def parallelism() -> int:
    return 1


@pytest.fixture(autouse=True)
def memory(settings: Any, parallelism: int) -> MemoryBackend:
    settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "PARALLELISM": parallelism}
    backend = backends.current()
    assert isinstance(backend, MemoryBackend)
    return backend


@pytest.mark.django_db(transaction=True)
class TestWhatSharesAMessage:
    def test_deliveries_of_one_commit_do_and_run_in_the_order_of_their_sends(self, memory, link, calls):
        link(bell, first, batch_size=10)
        ids = ring(25)
        assert sizes(memory) == [10, 10, 5]
        ended = memory.deliver()
        assert [delivery.id for delivery, _ in ended] == ids
        assert {outcome.state for _, outcome in ended} == {"succeeded"}
        assert [call[2]["number"] for call in calls] == [*range(25)]

    def test_each_of_two_commits_has_its_own(self, memory, link):
        link(bell, first, batch_size=10)
        ring(3)
        ring(4)
        assert sizes(memory) == [3, 4]

    def test_without_the_option_nothing_does(self, memory, link):
        link(bell, first)
        ring(3)
        assert sizes(memory) == [1, 1, 1]

    def test_one_by_itself_travels_as_it_always_did(self, memory, link):
        link(bell, first, batch_size=10)
        ids = ring(11)
        assert sizes(memory) == [10, 1]
        (_, payload) = memory.payloads[1]
        assert unseal(payload).id == ids[-1]

    def test_outside_a_transaction_each_travels_by_itself(self, memory, link):
        link(bell, first, batch_size=10)
        for number in range(3):
            bell.send(sender=None, number=number)
        assert sizes(memory) == [1, 1, 1]

    @pytest.mark.parametrize(
        ("parallelism", "count", "expected"),
        [(4, 100, [25] * 4), (4, 3, [1, 1, 1]), (4, 6, [2, 2, 2]), (1, 100, [50, 50]), (4, 1000, [50] * 20)],
    )
    def test_several_workers_can_have_some_of_them(self, memory, link, count, expected):
        link(bell, first, batch_size=50)
        ring(count)
        assert sizes(memory) == expected

    def test_other_receivers_and_signals_have_messages_of_their_own(self, memory, link, calls):
        link(bell, first, batch_size=10)
        link(bell, second, batch_size=10, queue="bulk")
        link(other_bell, first, batch_size=10)
        link(bell, troubled)
        with transaction.atomic():
            for number in range(2):
                bell.send(sender=None, number=number)
                other_bell.send(sender=None, number=number)
        found = [(delivery.receiver, delivery.options.queue, sizes(memory)[at])
                 for at, (delivery, _) in enumerate(memory.payloads)]  # fmt: skip
        assert found == [
            ("tests.receivers.first (2 deliveries)", None, 2),
            ("tests.receivers.second (2 deliveries)", "bulk", 2),
            ("tests.receivers.troubled", None, 1),
            ("tests.receivers.first (2 deliveries)", None, 2),
            ("tests.receivers.troubled", None, 1),
        ]
        memory.deliver()
        assert [(name, kwargs["signal"], kwargs["number"]) for name, _, kwargs in calls if name != "troubled"] == [
            ("first", bell, 0), ("first", bell, 1), ("second", bell, 0), ("second", bell, 1),
            ("first", other_bell, 0), ("first", other_bell, 1),
        ]  # fmt: skip

    def test_a_savepoint_that_is_rolled_back_takes_its_own_along(self, memory, link):
        link(bell, first, batch_size=10)
        with transaction.atomic():
            bell.send(sender=None, number=0)
            try:
                with transaction.atomic():
                    bell.send(sender=None, number=1)
                    raise ValueError
            except ValueError:
                pass
            bell.send(sender=None, number=2)
        assert numbers(memory) == [[0, 2]]

    @pytest.mark.parametrize("letter", ["x", "é", "🦊"])
    def test_a_message_has_no_more_bytes_than_max_size(self, letter, memory, link, settings):
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "MAX_SIZE": 10_000}
        link(bell, first, batch_size=100)
        ids = ring(40, text=letter * 500)
        carried = [member.id for delivery, _ in memory.payloads for member in delivery.members or (delivery,)]
        assert carried == ids
        lengths = [len(payload.encode()) for _, payload in memory.payloads]
        assert max(lengths) < 10_000 + 200  # what a batch has around its members, and the signature
        assert len(lengths) <= 40 * (500 * len(letter.encode()) + 400) // 10_000 + 2

    def test_one_as_large_as_may_be_travels_alone(self, memory, link, settings):
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "MAX_SIZE": 2_000}
        link(bell, first, batch_size=100)
        ring(3, text="x" * 1700)
        assert sizes(memory) == [1, 1, 1]

    def test_what_coalesces_does_so_before(self, memory, link):
        link(post_save, on_instance, Customer, coalesce=True, batch_size=10)
        with transaction.atomic():
            customers = [Customer.objects.create(name="Ada") for _ in range(3)]
            for customer in customers:
                customer.save()
        assert sizes(memory) == [3]


@pytest.mark.django_db(transaction=True)
class TestTheMessage:
    def test_what_its_members_have_in_common_is_written_once_and_all_is_signed_as_one(self, memory, link):
        link(bell, first, batch_size=10)
        ids = ring(2)
        ((delivery, payload),) = memory.payloads
        data = json.loads(payload.rpartition(":")[0])
        assert payload == seal(dump(data))
        assert [*data] == ["batch", "all", "of"]
        assert [*data["all"]] == ["v", "to", "signal", "sender", "context"]
        assert [[*member] for member in data["of"]] == [["id", "at", "kwargs"]] * 2
        assert [member["id"] for member in data["of"]] == ids
        assert [{**data["all"], **member} for member in data["of"]] == [
            json.loads(member.text) for member in delivery.members
        ]
        assert delivery.id not in ids

    def test_a_member_of_another_sender_or_context_says_so(self, memory, link, monkeypatch):
        found: list[Any] = []

        def inquire(sender: Any, number: int, **kwargs: Any) -> None:
            found.append((sender, translation.get_language(), number))

        monkeypatch.setattr("tests.receivers.inquiries", [inquire])
        link(bell, curious, batch_size=10)
        with transaction.atomic():
            bell.send(sender=None, number=1)
            with translation.override("de"):
                bell.send(sender=None, number=2)
            bell.send(sender=Customer, number=3)
            bell.send(sender=None, number=4)
        ((_, payload),) = memory.payloads
        lengths = [len(member) for member in json.loads(payload.rpartition(":")[0])["of"]]
        assert lengths == [3, 8, 8, 3]
        memory.deliver()
        assert found == [(None, "en", 1), (None, "de", 2), (Customer, "en", 3), (None, "en", 4)]

    def test_it_takes_the_options_of_its_receiver(self, memory, link):
        link(bell, first, batch_size=3, queue="bulk", priority=2, countdown=60, headers={"tenant": "acme"})
        ring(2)
        ((delivery, _),) = memory.payloads
        assert delivery.options.message == {
            "queue": "bulk", "priority": 2, "countdown": 60, "headers": {"tenant": "acme"}, "ignore_result": True
        }  # fmt: skip

    def test_time_limits_are_each_members_and_a_bound_for_all_is_the_messages(self, memory, link):
        link(bell, first, batch_size=3, time_limit=9, soft_time_limit=5)
        ring(2)
        ((delivery, _),) = memory.payloads
        assert delivery.options.message == {"time_limit": 30, "ignore_result": True}

    def test_members_that_expire_do_so_each(self, memory, link, calls, monkeypatch):
        link(bell, first, batch_size=10, expires=60)
        ring(2)
        ((delivery, _),) = memory.payloads
        assert "expires" not in delivery.options.message
        monkeypatch.setattr("time.time", lambda: delivery.created.timestamp() + 61)
        assert [outcome.reason for _, outcome in memory.deliver()] == ["expired"] * 2
        assert not calls

    def test_members_are_encrypted_each(self, memory, link, settings, calls):
        settings.DEFERRED_SIGNALS = {
            **settings.DEFERRED_SIGNALS,
            "ENCRYPTION_KEYS": [Fernet.generate_key().decode()],
            "PARALLELISM": 1,
        }
        link(bell, first, batch_size=10, encrypt=True)
        ring(2, secret="hunter2")
        ((_, payload),) = memory.payloads
        assert "hunter2" not in payload
        members = json.loads(payload.rpartition(":")[0])["of"]
        assert all("encrypted" in member and "kwargs" not in member for member in members)
        memory.deliver()
        assert [kwargs["secret"] for _, _, kwargs in calls] == ["hunter2"] * 2

    def test_encrypted_ones_share_nothing_and_are_no_more_than_a_worker_takes(self, memory, link, settings, calls):
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "ENCRYPTION_KEYS": [Fernet.generate_key().decode()]}
        link(bell, first, batch_size=1000, encrypt=True)
        register_carrier("tenant", capture=lambda: "x" * 5000, restore=lambda value: nullcontext())
        try:
            ring(300)
            assert {outcome.state for _, outcome in memory.deliver()} == {"succeeded"}
        finally:
            unregister_carrier("tenant")
        assert len(calls) == 300

    def test_a_carried_delivery_has_its_own_payload(self, memory, link):
        link(bell, first, batch_size=10)
        ids = ring(2)
        ((delivery, _),) = memory.payloads
        assert [unseal(member.payload).id for member in delivery.members] == ids


class Refusing(Backend):
    """Takes every other message."""

    def publish(self, deliveries: Any) -> list[Failure]:
        return [(delivery, PublishError("full")) for delivery in deliveries[::2]]


@pytest.fixture
def told() -> Iterator[list[tuple[str, str]]]:
    """What is told of the publishing of each delivery."""
    heard: list[tuple[str, str]] = []

    def published(delivery: Delivery, **kwargs: Any) -> None:
        heard.append(("published", delivery.id))

    def unpublished(delivery: Delivery, **kwargs: Any) -> None:
        heard.append(("unpublished", delivery.id))

    delivery_published.connect(published)
    delivery_unpublished.connect(unpublished)
    yield heard
    delivery_published.disconnect(published)
    delivery_unpublished.disconnect(unpublished)


@pytest.mark.django_db(transaction=True)
class TestWhatIsTold:
    def test_each_delivery_is_told_as_published(self, memory, link, told):
        link(bell, first, batch_size=2)
        ids = ring(5)
        assert told == [("published", one) for one in ids]

    def test_each_delivery_of_a_message_that_fails_is_told(self, link, told, settings, caplog):
        settings.DEFERRED_SIGNALS = {"BACKEND": f"{__name__}.Refusing", "PARALLELISM": 1}
        link(bell, first, batch_size=2)
        ids = ring(6)
        assert told == [
            *(("published", ids[number]) for number in (2, 3)),
            *(("unpublished", ids[number]) for number in (0, 1, 4, 5)),
        ]
        assert "deliveries to tests.receivers.first (4)" in caplog.text

    def test_what_was_lost_can_be_published_again_one_by_one(self, link, told, settings, memory, calls):
        settings.DEFERRED_SIGNALS = {"BACKEND": f"{__name__}.Refusing", "PARALLELISM": 1}
        lost: list[str] = []

        def save(delivery: Delivery, **kwargs: Any) -> None:
            lost.append(delivery.payload)

        delivery_unpublished.connect(save)
        link(bell, first, batch_size=2)
        ids = ring(2)
        delivery_unpublished.disconnect(save)
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory"}
        assert [handover.publish_again(payload).id for payload in lost] == ids
        memory.deliver()
        assert [kwargs["number"] for _, _, kwargs in calls] == [0, 1]


@pytest.fixture
def _with_outbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "_outbox", DatabaseOutbox())


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_with_outbox")
class TestWithTheOutbox:
    def test_a_message_that_fails_is_spilled_as_a_row_for_each_delivery(self, link, told, settings):
        settings.DEFERRED_SIGNALS = {"BACKEND": f"{__name__}.Refusing", "PARALLELISM": 1}
        link(bell, first, batch_size=2)
        ids = ring(6)
        rows = {str(one) for one in OutboxDelivery.objects.values_list("delivery_id", flat=True)}
        assert rows == {ids[0], ids[1], ids[4], ids[5]}
        assert not [one for what, one in told if what == "unpublished"]

    def test_doorbells_are_never_put_into_a_batch(self, memory, link, calls):
        # A time limit is a message's, so there is a doorbell for each.
        link(bell, first, batch_size=10, durable=True, time_limit=60)
        ids = ring(3)
        assert sizes(memory) == [1, 1, 1]
        memory.deliver()
        assert sorted(kwargs["number"] for _, _, kwargs in calls) == [0, 1, 2]
        assert set(OutboxDelivery.objects.values_list("state", flat=True)) <= {"succeeded"}
        options = registry.get("tests.receivers.first").options_for("tests.test_batches.bell")
        assert options.batch_size == 10
        bells = list(ringing.bells_for("default", dict.fromkeys(ids, "first"), options))
        assert batching.batched(bells) == bells


@pytest.mark.django_db(transaction=True)
class TestWhereReceiversRunAtOnce:
    def test_the_immediate_backend_takes_batches(self, link, calls, settings):
        settings.DEFERRED_SIGNALS = {"BACKEND": "immediate", "PARALLELISM": 1}
        link(bell, first, batch_size=10)
        ring(3)
        assert [kwargs["number"] for _, _, kwargs in calls] == [0, 1, 2]


class TestTheOption:
    def test_it_is_about_a_commit(self):
        with pytest.raises(ConnectError, match="deliveries of a commit, so it cannot go with on_commit=False"):
            connect(bell, first, deferred=True, batch_size=2, on_commit=False)

    @pytest.mark.parametrize("size", [0, -1, 1.5, True, "many", None, 10**9])
    def test_it_is_a_count(self, size):
        with pytest.raises(ConnectError, match="'batch_size' must be"):
            connect(bell, first, deferred=True, batch_size=size)

    def test_one_is_the_default_and_no_batch(self):
        assert Options().batch_size == 1
