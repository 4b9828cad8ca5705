"""Doorbells: which ring after a commit, by which route, and what becomes of a send whose broker is away."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from celery import Celery
from celery.app import app_or_default
from celery.exceptions import SoftTimeLimitExceeded
from cryptography.fernet import Fernet
from django.db import connection, transaction
from django.db.models.signals import post_save, pre_save

from deferred_signals import Delivery, Signal, backends, handover, keeping, suppress
from deferred_signals.backends.memory import MemoryBackend
from deferred_signals.bell import is_bell
from deferred_signals.bell import read as read_bell
from deferred_signals.exceptions import EncodeError, OpenError
from deferred_signals.outbox import backend, ringing
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.models import OutboxDelivery
from deferred_signals.signals import delivery_finished, delivery_published, delivery_unpublished
from tests import receivers
from tests.receivers import curious, first, on_changes, on_instance, on_item, second, troubled
from tests.shop.models import Customer

order_placed: Any = Signal()
order_paid: Any = Signal()

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
]


def rung(memory: MemoryBackend) -> list[list[str]]:
    """The ids for which it has been rung, one list for each doorbell."""
    return [[str(one) for one in read_bell(payload).ids] for _, payload in memory.payloads]


def send(count: int = 1, signal: Any = order_placed) -> list[str]:
    """Send so many in one transaction; return the ids."""
    with transaction.atomic():
        return [one.id for number in range(count) for _, one in signal.send(sender=None, item=number) if one]


@pytest.fixture
def heard() -> Iterator[list[tuple[str, str]]]:
    """What observers were told: which signal, and the id of the delivery."""
    seen: list[tuple[str, str]] = []

    def published(delivery: Delivery, **kwargs: Any) -> None:
        seen.append(("published", delivery.id))

    def unpublished(delivery: Delivery, **kwargs: Any) -> None:
        seen.append(("unpublished", delivery.id))

    delivery_published.connect(published)
    delivery_unpublished.connect(unpublished)
    yield seen
    delivery_published.disconnect(published)
    delivery_unpublished.disconnect(unpublished)


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch, memory: MemoryBackend) -> None:
    """A broker that takes nothing."""

    def publish(deliveries: Sequence[Delivery]) -> list[backends.Failure]:
        return [(delivery, OSError("gone")) for delivery in deliveries]

    monkeypatch.setattr(memory, "publish", publish)


class TestDoorbells:
    def test_one_rings_for_all_of_a_commit(self, link, memory):
        link(order_placed, on_item, durable=True)
        link(order_placed, first, durable=True)
        ids = send(3)
        assert len(ids) == 6
        assert rung(memory) == [ids]

    def test_one_rings_for_a_hundred_at_most(self, link, memory):
        link(order_placed, on_item, durable=True)
        ids = send(2 * ringing.AT_ONCE + 1)
        assert [len(one) for one in rung(memory)] == [100, 100, 1]
        assert [one for bell in rung(memory) for one in bell] == ids

    def test_one_rings_for_one_where_a_receiver_has_a_time_limit(self, link, memory):
        link(order_placed, on_item, durable=True, soft_time_limit=5)
        ids = send(3)
        assert rung(memory) == [[one] for one in ids]
        assert memory.payloads[0][0].options.message["soft_time_limit"] == 5

    def test_each_route_has_its_own(self, link, memory):
        link(order_placed, on_item, durable=True, queue="slow", priority=3, headers={"tenant": "acme"})
        link(order_placed, first, durable=True, queue="slow", priority=3, headers={"tenant": "acme"})
        link(order_placed, second, durable=True, queue="fast")
        send(2)
        assert [len(one) for one in rung(memory)] == [4, 2]
        messages = [delivery.options.message for delivery, _ in memory.payloads]
        assert messages == [
            {"queue": "slow", "priority": 3, "headers": {"tenant": "acme"}, "ignore_result": True},
            {"queue": "fast", "ignore_result": True},
        ]

    def test_each_database_has_its_own(self, link, memory):
        link(post_save, on_instance, Customer, durable=True)
        with transaction.atomic(), transaction.atomic(using="other"):
            Customer.objects.create(name="Ada")
            Customer.objects.using("other").create(name="Ada")
        assert sorted(read_bell(payload).alias for _, payload in memory.payloads) == ["default", "other"]

    def test_it_has_an_id_of_its_own_and_says_whom_it_is_for(self, link, memory):
        link(order_placed, on_item, durable=True)
        link(order_paid, on_item, durable=True)
        link(order_paid, first, durable=True)
        ids = send(2) + send(2, order_paid)
        bells = [delivery for delivery, _ in memory.payloads]
        assert not {one.id for one in bells} & set(ids)
        assert [one.receiver for one in bells] == ["tests.receivers.on_item", "tests.receivers.on_item and 1 more"]

    def test_it_never_expires_nor_waits_by_celery(self, link, memory, rows):
        link(order_placed, on_item, durable=True, expires=60)
        send()
        [(bell, _)] = memory.payloads
        assert bell.options.message == {"ignore_result": True}
        assert bell.options.expires is None

    @pytest.mark.parametrize("given", [{"countdown": 60}, {"unique": lambda **kwargs: "one", "debounce": 60}])
    def test_none_rings_for_what_waits(self, link, memory, rows, heard, given):
        link(order_placed, on_item, durable=True, **given)
        [one] = send()
        assert memory.payloads == []
        [(created, due, ring_at)] = rows("created", "due", "ring_at")
        assert 59 < (due - created).total_seconds() < 61
        assert due == ring_at
        assert heard == [("published", one)]

    def test_none_rings_twice_for_one(self, link, memory):
        link(post_save, on_instance, Customer, durable=True, coalesce=True)
        with transaction.atomic():
            ada = Customer.objects.create(name="Ada")
            with transaction.atomic():
                ada.save()
        [[_]] = rung(memory)

    def test_what_is_encrypted_is_so_in_its_row_and_rung_for_in_clear(self, link, memory, rows, settings, outcome_of):
        keys = [Fernet.generate_key().decode()]
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "ENCRYPTION_KEYS": keys}
        link(order_placed, on_item, durable=True, encrypt=True)
        with transaction.atomic():
            order_placed.send(sender=None, item="hunter2")
        assert "hunter2" not in rows("payload")[0]
        assert '"encrypted"' in rows("payload")[0]
        assert is_bell(memory.payloads[0][1])
        assert outcome_of().state == "succeeded"
        assert receivers.calls[0][2]["item"] == "hunter2"

    def test_it_is_small_however_large_what_it_rings_for(self, link, memory):
        link(order_placed, on_item, durable=True)
        with transaction.atomic():
            for _ in range(100):
                order_placed.send(sender=None, item="x" * 10_000)
        assert len(memory.payloads[0][1]) < 100 * 40 + 200

    def test_what_rings_cannot_be_published_again(self, link, memory):
        link(order_placed, on_item, durable=True)
        with transaction.atomic():
            [(_, delivery)] = order_placed.send(sender=None, item=1)
        for payload in (memory.payloads[0][1], delivery.payload):
            with pytest.raises(OpenError):
                handover.publish_again(payload)

    def test_those_that_are_not_durable_leave_beside_it(self, link, memory, calls, heard):
        link(order_placed, on_item)
        link(order_placed, first, durable=True)
        ids = send(2)
        assert [is_bell(payload) for _, payload in memory.payloads] == [False, False, True]
        assert sorted(heard) == sorted(("published", one) for one in ids)
        memory.deliver()
        assert [name for name, _, _ in calls] == ["on_item", "on_item", "first", "first"]


class TestABrokerThatIsAway:
    def test_at_the_commit_raises_nothing_and_loses_nothing(self, link, memory, away, rows, heard, caplog):
        link(order_placed, on_item, durable=True)
        send(3)
        [record] = [record for record in caplog.records if record.name == "deferred_signals"]
        assert record.levelno == logging.WARNING
        assert record.getMessage() == (
            "Durable deliveries to tests.receivers.on_item (3) wait in the outbox for the relay, for their doorbells "
            "could not be published: OSError: gone"
        )
        assert heard == []
        assert rows("state") == ["pending"] * 3
        assert OutboxDelivery.objects.filter(ring_at__lte=DatabaseNow()).count() == 3, "the relay need not wait"

    def test_and_a_database_that_is_away_too_leave_the_relay_its_time(self, link, memory, away, rows, monkeypatch):
        link(order_placed, on_item, durable=True)
        monkeypatch.setattr(backend, "hand_to_the_relay", lambda alias, ids: 1 / 0)
        send(3)
        assert rows("state") == ["pending"] * 3
        assert OutboxDelivery.objects.filter(ring_at__gt=DatabaseNow(20)).count() == 3

    def test_in_a_transaction_that_may_be_rolled_back_nothing_is_noted(self, link, memory, away):
        link(order_placed, on_item, durable=True)
        with transaction.atomic():
            send(1)
            [row] = OutboxDelivery.objects.all()
            keeping.required().unrung([Delivery(str(row.delivery_id), "", None, 0, kept="default")])
            assert OutboxDelivery.objects.filter(ring_at__gt=DatabaseNow(20)).exists()

    def test_for_some_of_the_doorbells_is_told_of_those(self, link, memory, monkeypatch, rows, heard, caplog):
        link(order_placed, on_item, durable=True, queue="slow")
        link(order_placed, first, durable=True, queue="fast")

        def publish(deliveries: Sequence[Delivery]) -> list[backends.Failure]:
            return [(one, OSError("gone")) for one in deliveries if one.options.queue == "slow"]

        monkeypatch.setattr(memory, "publish", publish)
        _, fast = send()
        assert heard == [("published", fast)]
        assert "to tests.receivers.on_item (1) wait" in caplog.text
        assert "first" not in caplog.text

    def test_and_a_wait_that_is_interrupted_lose_nothing(self, link, memory, monkeypatch, rows):
        link(order_placed, on_item, durable=True)
        monkeypatch.setattr(MemoryBackend, "interruptions", (SoftTimeLimitExceeded,))

        def publish(deliveries: Sequence[Delivery]) -> list[backends.Failure]:
            raise SoftTimeLimitExceeded

        monkeypatch.setattr(memory, "publish", publish)
        with pytest.raises(SoftTimeLimitExceeded):
            send()
        assert rows("state") == ["pending"]

    def test_doorbells_that_cannot_be_made_keep_no_hook_from_running(self, link, memory, rows, caplog):
        class Odd:
            def __repr__(self) -> str:
                raise ZeroDivisionError

        link(order_placed, on_item, durable=True, headers={"odd": Odd()})
        ran = []
        with transaction.atomic():
            order_placed.send(sender=None, item=1)
            transaction.on_commit(lambda: ran.append("hook"))
        assert ran == ["hook"]
        assert "the relay rings for them" in caplog.text
        assert rows("state") == ["pending"]

    def test_an_outbox_that_is_gone_at_the_commit_leaves_the_rows(self, link, memory, rows, monkeypatch, caplog):
        link(order_placed, on_item, durable=True)
        with transaction.atomic():
            order_placed.send(sender=None, item=1)
            monkeypatch.setattr(keeping, "_outbox", None)
        assert "the relay rings for them" in caplog.text
        assert rows("state") == ["pending"]


class TestOtherBackends:
    def test_immediate_runs_the_row_after_the_commit(self, link, rows, settings, calls):
        settings.DEFERRED_SIGNALS = {"BACKEND": "immediate"}
        link(order_placed, on_item, durable=True)
        with transaction.atomic():
            order_placed.send(sender=None, item=1)
            assert calls == []
        assert [name for name, _, _ in calls] == ["on_item"]
        assert rows("state") == ["succeeded"]

    @pytest.fixture
    def eager(self, settings: Any) -> Iterator[Celery]:
        settings.DEFERRED_SIGNALS = {"BACKEND": "celery"}
        before = app_or_default()
        app = Celery("eager", broker="memory://", set_as_current=False)
        app.conf.task_always_eager = True
        app.set_current()
        yield app
        before.set_current()

    def test_an_eager_task_runs_the_row_after_the_commit(self, link, rows, eager, calls):
        link(order_placed, on_item, durable=True)
        with transaction.atomic():
            order_placed.send(sender=None, item=1)
            assert calls == []
        assert [name for name, _, _ in calls] == ["on_item"]
        assert rows("state") == ["succeeded"]

    def test_an_eager_task_that_fails_leaves_a_row_for_the_relay(self, link, rows, eager):
        link(order_placed, troubled, durable=True)
        receivers.troubles.append(RuntimeError("boom"))
        send()
        assert rows("state", "attempt") == [("pending", 2)]


class TestWhatIsSentByAReceiver:
    def test_has_its_depth_and_ends_where_a_chain_ends(self, link, memory, rows, settings):
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "OUTSIDE_TRANSACTION": "ignore"}
        link(order_placed, curious, durable=True)
        receivers.inquiries.append(lambda **kwargs: order_placed.send(sender=None, item=kwargs["item"]))
        send()
        ended = []
        while memory.payloads:
            ended += memory.deliver()
        assert [outcome.state for _, outcome in ended] == ["succeeded"] * 9 + ["dead"]
        assert rows("state") == ["succeeded"] * 9 + ["dead"]

    def test_about_its_own_instance_is_stopped(self, link, memory, rows):
        link(post_save, curious, Customer, durable=True, atomic=True)
        receivers.inquiries.append(lambda instance, **kwargs: instance.save())
        with transaction.atomic():
            Customer.objects.create(name="Ada")
        while memory.payloads:
            memory.deliver()
        assert rows("state", "error_type") == [
            ("succeeded", ""),
            ("dead", "deferred_signals.exceptions.TooDeep"),
        ]

    def test_in_an_atomic_one_is_in_its_transaction(self, link, memory, rows):
        link(order_placed, curious, durable=True, atomic=True, max_retries=0)
        link(order_paid, on_item, durable=True)
        receivers.inquiries.append(lambda **kwargs: order_paid.send(sender=None, item=1))
        receivers.inquiries.append(lambda item, **kwargs: 1 / item)
        with transaction.atomic():
            order_placed.send(sender=None, item=0)
            order_placed.send(sender=None, item=1)
        memory.deliver()
        assert rows("receiver", "state") == [
            ("tests.receivers.curious", "dead"),
            ("tests.receivers.curious", "succeeded"),
            ("tests.receivers.on_item", "pending"),
        ]
        assert len(memory.payloads) == 1
        memory.deliver()
        assert rows("state")[-1] == "succeeded"

    def test_in_suppress_is_nothing(self, link, memory, rows):
        link(order_placed, on_item, durable=True)
        with suppress():
            assert send() == []
        assert (rows(), memory.payloads) == ([], [])


class TestWhatIsSent:
    def test_is_one_query_also_the_first_time_in_a_process(self, link, memory, outbox, django_assert_num_queries):
        link(order_placed, first, durable=True)
        with transaction.atomic(), django_assert_num_queries(1):
            order_placed.send(sender=None, item=1)

    def test_that_is_too_large_is_an_error_and_no_row(self, link, memory, rows, settings):
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "MAX_SIZE": 1000}
        link(order_placed, on_item, durable=True)
        with transaction.atomic():
            with pytest.raises(EncodeError, match="MAX_SIZE"):
                order_placed.send(sender=None, item="x" * 1000)
            order_placed.send(sender=None, item="x")
        assert len(rows()) == 1

    def test_that_is_too_large_may_be_told_of_and_no_row(self, link, memory, rows, settings, caplog):
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "MAX_SIZE": 1000}
        link(order_placed, on_item, durable=True, oversize="log")
        with transaction.atomic():
            order_placed.send(sender=None, item="x" * 1000)
        assert rows() == []
        assert "No delivery is made" in caplog.text

    def test_is_what_was_true_at_the_send(self, link, memory):
        link(order_placed, on_item, durable=True)
        basket = ["apple"]
        with transaction.atomic():
            order_placed.send(sender=None, item=basket)
            basket.append("ghost apple")
        memory.deliver()
        assert receivers.calls[0][2]["item"] == ["apple"]

    def test_may_be_changes(self, link, memory):
        link(post_save, on_changes, Customer, durable=True, changes=True)
        ada = Customer.objects.bulk_create([Customer(pk=1, name="Ada")])[0]
        with transaction.atomic():
            ada.name = "Augusta"
            ada.save()
        memory.deliver()
        assert [kwargs["changes"] for _, _, kwargs in receivers.calls] == [{"name": ("Ada", "Augusta")}]

    def test_may_be_a_fixture(self, link, rows):
        link(pre_save, first, Customer, durable=True)
        link(post_save, second, Customer, durable=True, deliver_raw=True)
        with transaction.atomic():
            Customer(pk=1, name="Ada").save_base(raw=True)
        assert rows("receiver") == ["tests.receivers.second"]

    def test_is_told_at_its_end_under_the_id_of_the_response(self, link, memory):
        seen = []

        def observer(delivery: Delivery, **kwargs: Any) -> None:
            seen.append((delivery.id, delivery.attempt))

        link(order_placed, on_item, durable=True)
        delivery_finished.connect(observer)
        try:
            [one] = send()
            memory.deliver()
        finally:
            delivery_finished.disconnect(observer)
        assert seen == [(one, 1)]

    def test_may_be_ten_thousand_in_ten_thousand_savepoints(self, link, memory):
        link(order_placed, on_item, durable=True)
        with transaction.atomic():
            for number in range(10_000):
                with transaction.atomic():
                    order_placed.send(sender=None, item=number)
            assert len(connection.run_on_commit) == 10_000
        assert len(memory.payloads) == 100
        assert OutboxDelivery.objects.count() == 10_000
