"""The testing kit: what is captured, how it is looked at and asserted about."""

import inspect
from functools import partial

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models.signals import post_delete, post_save
from django.test import TestCase, TransactionTestCase

from deferred_signals import Delivery, Signal, backends, connect, disconnect
from deferred_signals.testing import CapturedDelivery, capture_deliveries
from deferred_signals.testing.stage import _Atomic, stage
from tests import receivers
from tests.shop.models import Customer

ordered = Signal()
FIRST = "tests.receivers.first"


@pytest.fixture
def listening(link):
    link(ordered, receivers.first)


class InTests:
    """For test cases of unittest: what ``link`` does."""

    def setUp(self) -> None:
        super().setUp()  # type: ignore[misc]
        connect(post_save, receivers.on_instance, sender=Customer, deferred=True)
        connect(post_delete, receivers.second, sender=Customer, deferred=True)
        connect(ordered, receivers.first, deferred=True)
        self.addCleanup(disconnect, post_save, receivers.on_instance, sender=Customer)  # type: ignore[attr-defined]
        self.addCleanup(disconnect, post_delete, receivers.second, sender=Customer)  # type: ignore[attr-defined]
        self.addCleanup(disconnect, ordered, receivers.first)  # type: ignore[attr-defined]
        Customer.objects.create(name="from setUp")


class OnCommit(InTests):
    """What must be the same in a transaction of the test's and without one."""

    def test_what_is_sent_outside_of_blocks_is_captured_at_once(self):
        with capture_deliveries() as captured:
            customer = Customer.objects.create(name="Ada")
            assert [one.receiver for one in captured] == ["tests.receivers.on_instance"]
            assert captured[0].kwargs["instance"] == customer
            assert captured[0].kwargs["created"] is True
            assert captured[0].sender is Customer
        assert len(captured) == 1

    def test_what_is_sent_in_a_block_is_captured_at_its_end(self):
        with capture_deliveries() as captured:
            with transaction.atomic():
                Customer.objects.create(name="Ada")
                with transaction.atomic():
                    Customer.objects.create(name="Grace")
                assert not captured
            assert [one.kwargs["instance"].name for one in captured] == ["Ada", "Grace"]

    def test_what_is_rolled_back_is_not_captured(self):
        with capture_deliveries() as captured:
            with pytest.raises(LookupError), transaction.atomic():
                Customer.objects.create(name="Ada")
                raise LookupError
            with transaction.atomic():
                Customer.objects.create(name="Grace")
                with pytest.raises(LookupError), transaction.atomic():
                    Customer.objects.create(name="Joan")
                    raise LookupError
        assert [one.kwargs["instance"].name for one in captured] == ["Grace"]

    def test_a_block_without_a_savepoint_is_one_too(self):
        customer = Customer.objects.create(name="Ada")
        with capture_deliveries() as captured:
            customer.delete()  # Django opens such a block
            assert [one.receiver for one in captured] == ["tests.receivers.second"]

    def test_nothing_is_captured_twice_and_the_backend_gets_nothing(self):
        backends.current().payloads.clear()  # type: ignore[attr-defined]
        with capture_deliveries() as captured, transaction.atomic():
            ordered.send(None, number=1)
        with capture_deliveries() as later:
            ordered.send(None, number=2)
        assert [one.kwargs["number"] for one in (*captured, *later)] == [1, 2]
        assert backends.current().payloads == []  # type: ignore[attr-defined]

    def test_what_a_receiver_sends_is_captured_while_it_is_delivered(self):
        with capture_deliveries() as captured:
            ordered.send(None, number=1)
        connect(ordered, receivers.curious, deferred=True)
        self.addCleanup(disconnect, ordered, receivers.curious)  # type: ignore[attr-defined]
        receivers.calls.clear()
        receivers.inquiries.append(lambda **_: Customer.objects.create(name="Joan"))
        with capture_deliveries() as captured:
            ordered.send(None, number=1)
        assert [run.delivery.receiver for run in captured.deliver()] == [
            FIRST,
            "tests.receivers.curious",
            "tests.receivers.on_instance",
        ]
        assert [name for name, *_ in receivers.calls] == ["first", "curious", "on_instance"]


class InATestCase(OnCommit, TestCase):
    def test_what_a_broken_transaction_holds_is_not_captured(self):
        with capture_deliveries() as captured:
            with pytest.raises(LookupError), transaction.atomic(savepoint=False):
                Customer.objects.create(name="Ada")
                raise LookupError
            assert connection.needs_rollback
            connection.needs_rollback = False  # so that the next send can look at the database
            del connection.run_on_commit[-1]
        assert not captured

    def test_hooks_of_others_still_wait_for_who_captures_them(self):
        ran: list[int] = []
        with capture_deliveries() as captured, self.captureOnCommitCallbacks(execute=True) as hooks:
            ordered.send(None, number=1)
            transaction.on_commit(partial(ordered.send, None, number=2))
            transaction.on_commit(partial(ran.append, 1))
            assert ran == []
        assert ran == [1]
        assert len(hooks) == 4
        assert [one.kwargs["number"] for one in captured] == [1, 2]

    def test_what_was_sent_before_is_not_captured_whatever_is_rolled_back_meanwhile(self):
        with capture_deliveries() as captured:
            with pytest.raises(LookupError), transaction.atomic():
                raise LookupError
            ordered.send(None)
        assert [one.receiver for one in captured] == [FIRST]

    async def test_it_works_in_a_coroutine(self):
        with capture_deliveries() as captured:
            customer = await Customer.objects.acreate(name="Ada")
            await ordered.asend(None, number=1)
        captured.assert_deferred(receivers.on_instance, instance=customer, count=1)
        captured.assert_deferred(receivers.first, number=1, count=1)
        assert [run.outcome.state for run in await captured.adeliver()] == ["succeeded"] * 2

    async def test_a_transaction_of_a_coroutine_is_waited_for(self):
        def both() -> None:
            with transaction.atomic():
                Customer.objects.create(name="Ada")
                assert not captured

        with capture_deliveries() as captured:
            await sync_to_async(both)()
        assert len(captured) == 1


class InATransactionTestCase(OnCommit, TransactionTestCase):
    def test_a_transaction_that_was_open_before_is_taken_for_the_tests_own(self):
        with transaction.atomic():
            ordered.send(None, number=1)
            with capture_deliveries() as captured:
                ordered.send(None, number=2)
                assert [one.kwargs["number"] for one in captured] == [2]
                with transaction.atomic():
                    ordered.send(None, number=3)
                    ordered.send(None, number=4)
                    assert len(captured) == 1
            ordered.send(None, number=5)
            assert [one.kwargs["number"] for one in captured] == [2, 3, 4]
        waiting = [delivery for delivery, _ in backends.current().payloads]  # type: ignore[attr-defined]
        assert len(waiting) == 3  # from setUp, 1 and 5

    def test_what_ends_with_a_block_is_captured_in_the_order_of_the_sends_whatever_the_blocks_within_it(self):
        with transaction.atomic(), capture_deliveries() as captured:
            with transaction.atomic():
                ordered.send(None, number=1)
                with transaction.atomic():
                    ordered.send(None, number=2)
                    with transaction.atomic():
                        ordered.send(None, number=3)
                    ordered.send(None, number=4)
                ordered.send(None, number=5)
            assert [one.kwargs["number"] for one in captured] == [1, 2, 3, 4, 5]


def test_the_class_of_djangos_blocks_is_what_it_was_when_nothing_is_captured():
    leave = _Atomic.__exit__
    with capture_deliveries():
        with capture_deliveries():
            assert _Atomic.__exit__ is not leave
        assert _Atomic.__exit__ is not leave
    assert _Atomic.__exit__ is leave
    assert backends.base.stand_ins == []
    assert stage.levels == []
    stage.after_send()  # by who looked for it before


def test_each_capture_that_is_open_has_it_and_it_is_delivered_once(listening, calls):
    with capture_deliveries() as outer:
        ordered.send(None, number=1)
        with capture_deliveries() as inner:
            ordered.send(None, number=2)
            inner.deliver()
            outer.deliver()
    assert [one.kwargs["number"] for one in inner] == [2]
    assert [one.state for one in outer] == ["succeeded"] * 2
    assert len(calls) == 2


def test_it_looks_like_a_sequence(listening):
    with capture_deliveries() as captured:
        assert repr(captured) == "<0 captured deliveries: none>"
        ordered.send(None, number=1)
        ((_, delivery),) = ordered.send(None, number=2)
    one = captured[1]
    assert isinstance(one, CapturedDelivery)
    assert captured[1:] == [one]
    assert isinstance(delivery, Delivery)
    assert (one.id, one.delivery, one.receiver, one.signal) == (
        delivery.id,
        delivery,
        FIRST,
        "tests.test_testing_capture.ordered",
    )
    assert (one.options.max_retries, one.is_durable, one.is_waiting, one.state) == (3, False, True, "waiting")
    assert dict(one.kwargs) == {"number": 2} == one.kwargs
    assert repr(one.kwargs) == "<arguments number>"
    assert len(one.kwargs) == 1
    assert repr(one) == "<CapturedDelivery to tests.receivers.first (waiting)>"
    assert repr(captured) == f"<2 captured deliveries: {FIRST}, {FIRST}>"
    captured.clear()
    assert len(captured) == 0


def test_what_leaves_at_once_is_captured_too(link):
    link(ordered, receivers.first, on_commit=False)
    with capture_deliveries() as captured:
        ordered.send(None)
    assert len(captured) == 1


def test_what_cannot_be_sealed_is_unpublished_as_at_work(listening):
    with capture_deliveries() as captured:
        ((_, delivery),) = ordered.send(None)
        ((_, error),) = stage.publish([_Unsealable(delivery)])  # type: ignore[list-item]
    assert isinstance(error, ValueError)
    assert len(captured) == 1


class _Unsealable:
    def __init__(self, delivery):
        self.text = delivery.text

    @property
    def payload(self) -> str:
        raise ValueError("no key")


class TestAssertions:
    @pytest.fixture(autouse=True)
    def _listening(self, link):
        link(ordered, receivers.first)
        link(ordered, receivers.second)
        link(post_save, receivers.on_instance, User)

    def test_by_the_function_or_the_name_and_by_how_many(self):
        with capture_deliveries() as captured:
            ordered.send("shop", number=1)
            ordered.send("shop", number=2)
        assert len(captured.assert_deferred()) == 4
        assert captured.assert_deferred(receivers.first) == captured.to("tests.receivers.first")
        captured.assert_deferred("tests.receivers.second", count=2, sender="shop")
        captured.assert_deferred(receivers.first, count=1, number=2, signal=ordered)
        captured.assert_deferred(receivers.first, count=0, signal=post_save)
        captured.assert_deferred(signal="tests.test_testing_capture.ordered", count=4)
        captured.refute_deferred(receivers.first, sender="cafe")
        captured.refute_deferred(receivers.first, number=3)
        assert captured.to(receivers.first, colour=None) == []
        captured.refute_deferred(receivers.on_instance)
        assert [one.receiver for one in captured.to(where=lambda one: one.kwargs["number"] > 1)] == [
            FIRST,
            "tests.receivers.second",
        ]

    def test_a_failure_shows_what_was_captured_instead(self):
        with capture_deliveries() as captured:
            ordered.send("shop", number=1, words="x" * 100)
        with pytest.raises(AssertionError) as failure:
            captured.assert_deferred(receivers.first, number=2, sender="cafe", signal=ordered, where=bool)
        signal = "tests.test_testing_capture.ordered"
        given = f"sender='shop', number=1, words='{'x' * 27}...{'x' * 28}'"
        assert str(failure.value).splitlines() == [
            f"No delivery to {FIRST} from {signal} with sender='cafe', number=2, where= true",
            "2 captured:",
            f"  1. {FIRST} from {signal} (waiting): {given}",
            f"  2. tests.receivers.second from {signal} (waiting): {given}",
        ]

    def test_a_failure_says_how_many_there_are(self):
        with capture_deliveries() as captured:
            ordered.send("shop")
        with pytest.raises(AssertionError) as failure:
            captured.assert_deferred("tests.receivers.first", count=2)
        assert str(failure.value).startswith(f"Not 2 but 1 deliveries to {FIRST}\n2 captured:\n")
        with pytest.raises(AssertionError) as failure:
            captured[0].delivery.signal = "x.y"
            captured.refute_deferred(receivers.first, signal="x.y")
        assert str(failure.value).startswith(f"Unwanted: 1 deliveries to {FIRST} from x.y\n2 captured:\n")
        with pytest.raises(AssertionError) as failure:
            captured.refute_deferred()
        assert str(failure.value).startswith("Unwanted: 2 deliveries\n2 captured:")

    def test_a_failure_shows_twenty_at_most(self):
        with capture_deliveries() as captured:
            for number in range(11):
                ordered.send(None, number=number)
        with pytest.raises(AssertionError, match=r"22 captured:\n  1\. (.|\n)*  20\. .*\n  and 2 more$"):
            captured.assert_deferred(receivers.on_instance)

    @pytest.mark.django_db
    def test_rows_are_compared_and_shown_without_the_database(self, django_assert_num_queries):
        ada, grace = User.objects.create_user("ada"), User.objects.create_user("grace")
        with capture_deliveries() as captured:
            ada.save()
            ordered.send(None, people=[ada, grace], pairs={"one": (ada,)})
        with django_assert_num_queries(0):
            captured.assert_deferred(receivers.on_instance, instance=ada, count=1, sender=User)
            captured.refute_deferred(receivers.on_instance, instance=grace)
            captured.refute_deferred(receivers.on_instance, instance="ada")
            captured.assert_deferred(receivers.first, people=[ada, grace], pairs={"one": (ada,)})
            with pytest.raises(AssertionError) as failure:
                captured.assert_deferred(receivers.on_instance, instance=grace, sender=Customer)
        assert f"sender=shop.Customer, instance=<auth.User {grace.pk}>" in str(failure.value)
        assert "sender=auth.User, " in str(failure.value)
        assert f"instance=<auth.User {ada.pk}>, " in str(failure.value)
        rows = captured[0].comparable()[1]["instance"]
        assert {rows} == {ada}
        assert captured[0].kwargs["instance"].username == "ada"

    def test_a_snapshot_is_shown_without_its_own_words(self, link):
        link(ordered, receivers.on_item)
        with capture_deliveries() as captured:
            ordered.send(None, item=Customer(name="Ada"))
        with pytest.raises(AssertionError, match=r"item=<shop\.Customer None>"):
            captured.refute_deferred(receivers.on_item)

    @pytest.mark.django_db
    def test_a_failure_says_what_waits_for_the_end_of_a_block(self):
        with capture_deliveries() as captured, transaction.atomic():
            ordered.send(None)
            with pytest.raises(AssertionError) as failure:
                captured.assert_deferred(receivers.first)
        assert str(failure.value).splitlines()[1:] == [
            "Nothing was captured.",
            "Not published yet, for a transaction is open: tests.receivers.first (1), tests.receivers.second (1)",
        ]

    def test_what_cannot_be_read_does_not_hide_the_rest(self, settings):
        with capture_deliveries() as captured:
            ordered.send(None)
        captured[0]._payload += "x"
        with pytest.raises(AssertionError, match=r"\(waiting\): cannot be read: OpenError\n"):
            captured.refute_deferred()

    def test_what_is_no_receiver_is_a_mistake_of_the_test(self):
        with capture_deliveries() as captured:
            ordered.send(None)
        with pytest.raises(ValueError, match="is neither a receiver nor the name of one"):
            captured.refute_deferred(lambda **kwargs: None)
        with pytest.raises(ValueError, match="is neither a receiver nor the name of one"):
            captured.refute_deferred(7)

    @pytest.mark.parametrize("wrong", [receivers.never, "shop.receivers.never"])
    def test_so_is_what_was_never_connected_deferred(self, wrong, link):
        link(ordered, receivers.never, deferred=False)
        with capture_deliveries() as captured:
            ordered.send(None)
            for ask in (captured.refute_deferred, captured.assert_deferred, captured.to, captured.deliver):
                with pytest.raises(ValueError, match="was connected with deferred=True"):
                    ask(wrong)

    def test_an_argument_that_no_delivery_has_refutes_nothing(self, link):
        link(ordered, receivers.first)
        link(ordered, receivers.later)
        with capture_deliveries() as captured:
            captured.refute_deferred(receivers.first, nummer=7)  # nothing is known of what it would get
            ordered.send(None, number=7)
        with pytest.raises(AssertionError, match=r"Nothing is refuted: no delivery to \S+first has \['nummer'\]\."):
            captured.refute_deferred(receivers.first, nummer=7)
        captured.refute_deferred(receivers.first, number=8)
        captured.refute_deferred(nummer=7)

    def test_a_receiver_that_is_connected_no_more_is_one(self, link):
        link(ordered, receivers.later)
        with capture_deliveries() as captured:
            ordered.send(None)
            disconnect(ordered, receivers.later)
        captured.assert_deferred(receivers.later, count=1)

    def test_so_is_one_under_its_older_name(self, link):
        link(ordered, receivers.later, aliases=["shop.receivers.sooner"])
        with capture_deliveries() as captured:
            ordered.send(None)
        captured.assert_deferred("shop.receivers.sooner", count=1)

    def test_and_one_that_another_decorator_hides(self, link):
        link(ordered, inspect.unwrap(receivers.hidden))
        with capture_deliveries() as captured:
            ordered.send(None)
        captured.assert_deferred(receivers.hidden, count=1)

    def test_a_receiver_with_a_name_of_its_own_is_found_by_its_function(self, link):
        link(ordered, receivers.discards, name="shop.discards")
        with capture_deliveries() as captured:
            ordered.send(None)
        captured.assert_deferred(receivers.discards, count=1)
        captured.assert_deferred("shop.discards", count=1)
