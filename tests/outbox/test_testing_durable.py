"""The testing kit with durable deliveries: rows of the outbox, in the transaction of a test and without one."""

from unittest import mock

import pytest
from django.core.management import call_command
from django.db import transaction

from deferred_signals import Signal, current_delivery
from deferred_signals.exceptions import WorkerLost
from deferred_signals.outbox.models import OutboxDelivery
from deferred_signals.testing import WorkerKilled, assert_idempotent, capture_deliveries, immediate_deliveries
from tests import receivers
from tests.shop.models import Customer

ordered, paid = Signal(), Signal()
CURIOUS = "tests.receivers.curious"


@pytest.fixture(
    autouse=True,
    params=[
        pytest.param("TestCase", marks=pytest.mark.django_db),
        pytest.param("TransactionTestCase", marks=pytest.mark.django_db(transaction=True)),
    ],
)
def _in_each_kind_of_test(request, settings):
    settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "OUTSIDE_TRANSACTION": "ignore"}


def asked(**kwargs):
    receivers.inquiries.append(mock.Mock(**kwargs))
    return receivers.inquiries[-1]


def names():
    return [name for name, *_ in receivers.calls]


def test_they_are_captured_and_delivered(link, rows):
    link(ordered, receivers.curious, durable=True)
    with capture_deliveries() as captured:
        with transaction.atomic():
            ordered.send(None, number=1)
            assert not captured
        captured.assert_deferred(receivers.curious, number=1, count=1)
        assert captured[0].is_durable
        assert "(waiting, durable)" in captured[0].describe()
    assert [run.outcome.state for run in captured.deliver()] == ["succeeded"]
    assert rows("state") == ["succeeded"]
    assert names() == ["curious"]


def test_outside_of_a_transaction_too(link, rows):
    link(ordered, receivers.curious, durable=True)
    with capture_deliveries() as captured:
        ordered.send(None, number=1)
        assert len(captured) == 1
    captured.deliver()
    assert rows("state") == ["succeeded"]


def test_what_is_rolled_back_is_not(link, rows):
    link(ordered, receivers.curious, durable=True)
    with capture_deliveries() as captured, pytest.raises(LookupError), transaction.atomic():
        ordered.send(None)
        raise LookupError
    assert (len(captured), rows("state")) == (0, [])


def test_others_leave_with_them(link):
    link(ordered, receivers.curious, durable=True)
    link(ordered, receivers.first)
    with capture_deliveries() as captured, transaction.atomic():
        ordered.send(None)
    assert sorted(one.receiver for one in captured) == [CURIOUS, "tests.receivers.first"]


def test_countdowns_and_retries_are_not_waited_for(link, rows):
    link(ordered, receivers.troubled, durable=True, countdown=3600)
    receivers.troubles[:] = [LookupError()]
    with capture_deliveries() as captured:
        ordered.send(None)
    assert [run.outcome.state for run in captured.deliver()] == ["retry", "succeeded"]
    assert captured[0].envelope.attempt == 2
    assert rows("state") == ["succeeded"]


def test_what_a_receiver_has_died_of_is_raised(link, rows):
    link(ordered, receivers.troubled, durable=True, max_retries=0)
    receivers.troubles[:] = [LookupError("gone")]
    with capture_deliveries() as captured:
        ordered.send(None)
    with pytest.raises(LookupError, match="gone"):
        captured.deliver()
    assert rows("state") == ["dead"]


@pytest.mark.parametrize("atomic", [False, True])
def test_what_the_database_refuses_does_not_keep_the_end_from_being_written(atomic, link, rows):
    def insert_twice(**kwargs):
        Customer.objects.create(pk=7)
        Customer.objects.create(pk=7)

    link(ordered, receivers.curious, durable=True, atomic=atomic, max_retries=0)
    asked(side_effect=insert_twice)
    with capture_deliveries() as captured:
        ordered.send(None)
    assert [run.outcome.state for run in captured.deliver(raises=False)] == ["dead"]
    assert rows("state") == ["dead"]


@pytest.mark.parametrize(("atomic", "effects"), [(False, 2), (True, 1)])
def test_a_worker_that_is_lost_after_the_effects(atomic, effects, link, rows):
    seen = []

    def insert(**kwargs):
        Customer.objects.create(name="Ada")
        seen.append(current_delivery().crashes)

    link(ordered, receivers.curious, durable=True, atomic=atomic)
    asked(side_effect=insert)
    with capture_deliveries() as captured:
        ordered.send(None)
    ended = captured.deliver(crash="after")
    assert [run.outcome.state for run in ended] == ["retry", "succeeded"]
    assert isinstance(ended[0].outcome.error, WorkerLost)
    assert seen == [0, 1]
    assert Customer.objects.count() == effects
    assert rows("state", "crashes") == [("succeeded", 1)]


def test_a_worker_that_is_lost_before_the_receiver(link, rows):
    link(ordered, receivers.curious, durable=True)
    with capture_deliveries() as captured:
        ordered.send(None)
    captured.deliver(crash="before")
    assert names() == ["curious"]
    assert rows("state", "crashes") == [("succeeded", 1)]


def test_who_always_loses_its_worker_is_dead_as_at_work(link, rows):
    link(ordered, receivers.curious, durable=True)
    asked(side_effect=WorkerKilled)
    with capture_deliveries() as captured:
        ordered.send(None)
    with pytest.raises(WorkerLost):
        captured.deliver()
    assert rows("state") == ["dead"]


def test_a_doorbell_that_comes_twice_runs_nothing_twice(link):
    link(ordered, receivers.curious, durable=True)
    with capture_deliveries() as captured:
        ordered.send(None)
    assert len(captured.deliver(duplicate=True)) == 1


@pytest.mark.parametrize("order", [None, reversed])
def test_of_a_unique_key_the_last_one_counts(order, link, rows):
    link(ordered, receivers.curious, durable=True, unique="number")
    with capture_deliveries() as captured:
        for _ in range(3):
            with transaction.atomic():
                ordered.send(None, number=1)
    assert sorted(run.outcome.state for run in captured.deliver(order=order)) == ["discarded", "discarded", "succeeded"]
    assert captured.waiting == []
    assert sorted(rows("state")) == ["discarded", "discarded", "succeeded"]


def test_of_an_order_each_waits_for_those_before(link):
    link(ordered, receivers.curious, durable=True, order_by="number")
    with capture_deliveries() as captured:
        for place in range(3):
            with transaction.atomic():
                ordered.send(None, number=1, place=place)
    captured.deliver(order=reversed)
    assert [kwargs["place"] for *_, kwargs in receivers.calls] == [0, 1, 2]


def test_what_waits_for_a_row_that_is_not_captured_is_told(link):
    link(ordered, receivers.curious, durable=True, order_by="number")
    with transaction.atomic():
        ordered.send(None, number=1)
    with capture_deliveries() as captured:
        with transaction.atomic():
            ordered.send(None, number=1)
    with pytest.raises(AssertionError, match="1 rows wait for others of their keys"):
        captured.deliver()
    assert captured.deliver(raises=False) == []
    with pytest.raises(AssertionError, match="The row waits for others of its keys"):
        assert_idempotent(captured[0], state=list)


def test_rows_that_end_otherwise_are_not_waited_for(link):
    link(ordered, receivers.curious, durable=True)
    with capture_deliveries() as captured:
        ordered.send(None, number=1)
        ordered.send(None, number=2)
        ordered.send(None, number=3)
    first, second, _ = OutboxDelivery.objects.order_by("number")
    first.delete()
    OutboxDelivery.objects.filter(pk=second.pk).update(state="discarded", due=None, error="by hand")
    outcomes = [run.outcome for run in captured.deliver()]
    assert [(end.state, end.reason) for end in outcomes] == [
        ("discarded", "its row is gone"),
        ("discarded", "by hand"),
        ("succeeded", ""),
    ]
    with pytest.raises(AssertionError, match="cannot be read: OpenError"):
        captured.refute_deferred()


def test_rows_that_are_not_captured_are_nobodys(link, rows):
    """Of a unique key, an earlier row is discarded that was written before the test looked."""
    link(ordered, receivers.curious, durable=True, unique="number")
    with transaction.atomic():
        ordered.send(None, number=1)
    with capture_deliveries() as captured:
        with transaction.atomic():
            ordered.send(None, number=1)
    assert [run.outcome.state for run in captured.deliver()] == ["succeeded"]
    assert sorted(rows("state")) == ["discarded", "succeeded"]


def test_immediately(link, rows):
    link(ordered, receivers.curious, durable=True)
    with immediate_deliveries():
        with transaction.atomic():
            ordered.send(None)
            assert names() == []
        assert names() == ["curious"]
    assert rows("state") == ["succeeded"]


def test_the_relay_rings_for_nobody_meanwhile(link):
    link(ordered, receivers.curious, durable=True)
    with capture_deliveries() as captured:
        ordered.send(None)
        OutboxDelivery.objects.update(ring_at="2020-01-01T00:00:00Z")
        call_command("relay_outbox", once=True, database=["default"])
    assert len(captured) == 1


class TestIdempotence:
    @pytest.mark.parametrize("atomic", [False, True])
    def test_a_receiver_that_sets_passes(self, atomic, link, rows):
        link(ordered, receivers.curious, durable=True, atomic=atomic)
        asked(side_effect=lambda **_: Customer.objects.update_or_create(name="Ada", defaults={"email": "a@b.c"}))
        with capture_deliveries() as captured:
            ordered.send(None)
        assert_idempotent(captured[0], state=Customer.objects.all)
        assert rows("state") == ["succeeded"]
        assert captured.waiting == []

    def test_a_receiver_that_adds_is_found(self, link):
        link(ordered, receivers.curious, durable=True)
        asked(side_effect=lambda **_: Customer.objects.create(name="Ada"))
        with capture_deliveries() as captured:
            ordered.send(None)
        with pytest.raises(AssertionError, match="is not idempotent"):
            assert_idempotent(captured[0], state=Customer.objects.count)

    def test_rows_that_an_atomic_receiver_adds_come_once_but_not_what_else_it_does(self, link, rows):
        mails: list[str] = []

        def insert(**kwargs):
            Customer.objects.create(name="Ada")
            mails.append("Welcome")

        link(ordered, receivers.curious, durable=True, atomic=True)
        asked(side_effect=insert)
        with capture_deliveries() as captured:
            ordered.send(None)
            ordered.send(None)
        assert_idempotent(captured[0], state=Customer.objects.count)
        with pytest.raises(AssertionError, match="is not idempotent"):
            assert_idempotent(captured[1], state=lambda: mails)
        assert rows("state") == ["succeeded"] * 2
