"""After-commit publishing: what waits for which commit, what a rollback takes away, what a failure leaves alone."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.db.migrations.recorder import MigrationRecorder
from django.db.migrations.state import ProjectState
from django.db.models.signals import m2m_changed, post_delete, post_save
from django.test import Client, TestCase
from django.test.utils import CaptureQueriesContext
from django.utils.connection import ConnectionDoesNotExist
from django.utils.functional import SimpleLazyObject

from deferred_signals import Delivery, Signal, backends, suppress
from deferred_signals.backends.memory import MemoryBackend
from deferred_signals.envelope import seal
from deferred_signals.exceptions import EncodeError, NotCarriedError, PublishError
from deferred_signals.signals import delivery_published, delivery_unpublished
from tests import receivers
from tests.kit import Link
from tests.receivers import first, on_instance, on_item, second
from tests.shop.models import Article, Customer

order_placed: Any = Signal()

real = pytest.mark.django_db(transaction=True, databases=["default", "other"])


def say(name: str) -> None:
    order_placed.send(sender=None, item=name)


def published(memory: MemoryBackend) -> list[Any]:
    """The items of the deliveries that have been handed over, in their order."""
    receivers.calls.clear()
    memory.deliver()
    return [kwargs.get("item") for _, _, kwargs in receivers.calls]


@pytest.fixture(autouse=True)
def _listening(link: Link) -> None:
    link(order_placed, on_item)


@pytest.fixture
def hand_overs(monkeypatch: pytest.MonkeyPatch, memory: MemoryBackend) -> list[int]:
    """How many deliveries each hand-over to the backend had."""
    sizes: list[int] = []
    publish = memory.publish

    def counting(deliveries: Sequence[Delivery]) -> list[backends.Failure]:
        sizes.append(len(deliveries))
        return publish(deliveries)

    monkeypatch.setattr(memory, "publish", counting)
    return sizes


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, memory: MemoryBackend) -> Iterator[list[Delivery]]:
    """The broker takes every second delivery only; yields those that observers were told of."""

    def failing(deliveries: Sequence[Delivery]) -> list[backends.Failure]:
        MemoryBackend.publish(memory, deliveries[1::2])
        return [(delivery, OSError("gone")) for delivery in deliveries[::2]]

    monkeypatch.setattr(memory, "publish", failing)
    lost: list[Delivery] = []

    def observer(delivery: Delivery, error: Exception, **kwargs: Any) -> None:
        assert isinstance(error, OSError)
        lost.append(delivery)

    delivery_unpublished.connect(observer, sender=on_item)
    yield lost
    delivery_unpublished.disconnect(observer, sender=on_item)


@real
class TestTransactions:
    def test_a_delivery_waits_for_the_commit(self, memory):
        with transaction.atomic():
            say("one")
            assert not memory.payloads
        assert published(memory) == ["one"]

    def test_outside_a_transaction_it_leaves_at_once(self, memory):
        say("one")
        assert published(memory) == ["one"]

    def test_a_rollback_publishes_nothing(self, memory):
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            say("ghost")
            raise ZeroDivisionError
        say("after")
        assert published(memory) == ["after"]

    def test_set_rollback_publishes_nothing(self, memory):
        with transaction.atomic():
            say("ghost")
            transaction.set_rollback(True)
        assert published(memory) == []

    def test_a_rolled_back_savepoint_takes_only_its_own_with_it(self, memory):
        with transaction.atomic():
            say("a")
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                say("ghost")
                with transaction.atomic():
                    say("ghost of a released savepoint")
                raise ZeroDivisionError
            say("b")
            with transaction.atomic():
                say("c")
            say("d")
        assert published(memory) == ["a", "b", "c", "d"]

    def test_a_savepoint_like_an_earlier_one_is_another(self, memory):
        with transaction.atomic():
            for name in ("kept", "ghost", "kept too"):
                try:
                    with transaction.atomic():
                        say(name)
                        if name == "ghost":
                            raise ZeroDivisionError
                except ZeroDivisionError:
                    pass
        assert published(memory) == ["kept", "kept too"]

    def test_all_of_a_transaction_leave_together_in_send_order(self, memory, hand_overs):
        with transaction.atomic():
            for number in range(3):
                say(f"outer {number}")
                with transaction.atomic():
                    say(f"inner {number}")
                with transaction.atomic(savepoint=False):
                    say(f"flat {number}")
        assert hand_overs == [9]
        assert published(memory) == [f"{where} {n}" for n in range(3) for where in ("outer", "inner", "flat")]

    def test_a_frame_has_one_hook_however_many_deliveries(self):
        with transaction.atomic():
            for number in range(50):
                say(str(number))
            with transaction.atomic(savepoint=False):
                say("flat")
            assert len(connection.run_on_commit) == 1
            with transaction.atomic():
                for number in range(50):
                    say(str(number))
            assert len(connection.run_on_commit) == 2

    def test_two_transactions_after_each_other_do_not_mix(self, memory, hand_overs):
        for name in "ab":
            with transaction.atomic():
                say(name)
        assert hand_overs == [1, 1]

    def test_what_was_captured_and_rolled_back_is_a_ghost_for_nobody(self, memory):
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            kept: list[Any] = []
            with TestCase.captureOnCommitCallbacks() as captured:
                say("ghost")
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                say("ghost of a savepoint")
                kept += [captured, *connection.run_on_commit]
                raise ZeroDivisionError
            raise ZeroDivisionError
        with transaction.atomic():
            say("kept")
        assert published(memory) == ["kept"]
        assert kept

    def test_a_hook_that_is_called_early_hands_over_only_its_own_and_once(self, memory):
        with transaction.atomic():
            say("a")
            with transaction.atomic(), TestCase.captureOnCommitCallbacks(execute=True):
                say("b")
            assert [kwargs for _, payload in memory.payloads for kwargs in [payload]]
            assert len(memory.payloads) == 1
            say("c")
        assert published(memory) == ["b", "a", "c"]

    def test_send_order_is_kept_over_a_savepoint_that_was_rolled_back(self, memory, hand_overs):
        with transaction.atomic():
            say("a")
            with transaction.atomic():
                say("b")
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                say("ghost")
                raise ZeroDivisionError
            say("c")
        assert hand_overs == [3]
        assert published(memory) == ["a", "b", "c"]

    def test_a_rollback_at_the_very_end_takes_nothing_else_with_it(self, memory):
        with transaction.atomic():
            say("a")
            with transaction.atomic():
                say("b")
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                say("ghost")
                raise ZeroDivisionError
        assert published(memory) == ["a", "b"]

    def test_a_hook_may_open_a_transaction_of_its_own(self, memory):
        def hook() -> None:
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                say("ghost")
                raise ZeroDivisionError
            with transaction.atomic():
                say("from the hook")

        with transaction.atomic():
            transaction.on_commit(hook)
            say("of the transaction")
        assert sorted(published(memory)) == ["from the hook", "of the transaction"]

    def test_a_hook_may_send(self, memory):
        with transaction.atomic():
            transaction.on_commit(lambda: say("from the hook"))
        assert published(memory) == ["from the hook"]

    def test_without_autocommit_nobody_knows_the_commit(self, memory):
        transaction.set_autocommit(False)
        try:
            with pytest.raises(transaction.TransactionManagementError, match=r"on_item.*on_commit=False"):
                say("when?")
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)
        assert published(memory) == []

    def test_on_commit_false_leaves_at_once(self, memory, link):
        link(order_placed, second, on_commit=False)
        with transaction.atomic():
            say("one")
            assert [delivery.receiver for delivery, _ in memory.payloads] == ["tests.receivers.second"]

    def test_an_error_after_the_send_with_atomic_requests_publishes_nothing(self, memory, link, settings):
        link(post_save, first, Customer)
        client = Client(raise_request_exception=False)
        connections["default"].settings_dict["ATOMIC_REQUESTS"] = True
        try:
            assert client.post("/broken/").status_code == 500
            assert not memory.payloads
            assert client.post("/sign-up/", {"name": "Ada"}).status_code == 200
        finally:
            connections["default"].settings_dict["ATOMIC_REQUESTS"] = False
        assert len(memory.payloads) == 1

    def test_what_is_sent_is_what_was_true_at_the_send(self, memory):
        basket = ["apple"]
        with transaction.atomic():
            order_placed.send(sender=None, item=basket)
            basket.append("ghost apple")
        assert published(memory) == [["apple"]]


@real
class TestSeveralDatabases:
    @pytest.fixture(autouse=True)
    def _listen_to_everybody(self, link: Link) -> None:
        link(post_save, on_instance, Customer)

    def test_the_commit_of_the_database_that_was_written_is_awaited(self, memory):
        with transaction.atomic(using="other"):
            Customer.objects.using("other").create(name="Ada")
            with transaction.atomic():
                Customer.objects.create(name="Bob")
            assert len(memory.payloads) == 1
        assert len(memory.payloads) == 2
        memory.deliver()
        assert [kwargs["instance"]._state.db for _, _, kwargs in receivers.calls] == ["default", "other"]

    def test_a_custom_signal_waits_for_the_database_of_the_instance_it_carries(self, memory):
        ada = Customer.objects.using("other").create(name="Ada")
        memory.payloads.clear()
        with transaction.atomic(using="other"):
            order_placed.send(sender=None, item=ada)
            assert not memory.payloads
        assert len(memory.payloads) == 1

    def test_a_sender_class_is_asked_for_its_database(self, memory):
        with transaction.atomic(using="other"):
            order_placed.send(sender=Article, item=1)
            assert len(memory.payloads) == 1

    def test_the_option_decides_before_everything(self, memory, link):
        link(post_save, second, Customer, using="other")
        with transaction.atomic(using="other"):
            Customer.objects.create(name="Ada")
            assert [delivery.receiver for delivery, _ in memory.payloads] == ["tests.receivers.on_instance"]
        assert len(memory.payloads) == 2

    def test_a_database_that_does_not_exist_is_an_error_at_the_send(self, link):
        link(order_placed, second, using="nowhere")
        with pytest.raises(ConnectionDoesNotExist, match="nowhere"):
            say("one")

    def test_the_using_of_a_custom_signal_is_its_own_business(self, memory):
        with transaction.atomic(using="other"):
            order_placed.send(sender=None, item=1, using="other")
            assert len(memory.payloads) == 1


@real
class TestTheConnection:
    """Whoever has another one must not be taken for who has this."""

    def test_sends_over_two_databases_wait_each_for_its_own(self, memory, link):
        link(order_placed, second, using="other")
        with transaction.atomic():
            with transaction.atomic(using="other"):
                for number in range(3):
                    order_placed.send(sender=None, item=number)
                assert memory.payloads == []
            assert [delivery.receiver for delivery, _ in memory.payloads] == ["tests.receivers.second"] * 3
        assert len(memory.payloads) == 6

    def test_a_coroutine_inside_the_transaction_has_one_of_its_own(self, memory):
        async def announce() -> None:
            say("in the coroutine")

        with transaction.atomic():
            say("first")
            asyncio.run(announce())
            assert published(memory) == ["in the coroutine"]
            say("second")
        assert published(memory) == ["first", "second"]

    def test_another_thread_has_one_of_its_own(self, memory):
        with transaction.atomic():
            say("first")
            thread = threading.Thread(target=say, args=("in the thread",))
            thread.start()
            thread.join()
            assert published(memory) == ["in the thread"]
        assert published(memory) == ["first"]

    def test_one_that_takes_its_place_while_a_transaction_is_open_is_used(self, memory):
        """As whoever wants to write beside the transaction does: what is sent there is not rolled back with it."""
        with transaction.atomic():
            say("first")
            old = connections["default"]
            del connections["default"]
            try:
                say("beside it")
                assert published(memory) == ["beside it"]
            finally:
                connections["default"].close()
                connections["default"] = old
            transaction.set_rollback(True)
        assert published(memory) == []


class TestInsideTestCase(TestCase):
    """Where the outermost transaction never commits, and ``captureOnCommitCallbacks`` stands in for the commit."""

    def setUp(self) -> None:
        backend = backends.current()
        assert isinstance(backend, MemoryBackend)
        self.backend = backend
        say("in setUp")

    def test_what_a_block_sends_is_captured_and_published(self):
        for expected in (1, 2):
            with self.captureOnCommitCallbacks(execute=True) as callbacks:
                say("captured")
            assert len(callbacks) == 1
            assert len(self.backend.payloads) == expected

    def test_captured_and_not_executed_stays_where_it_is(self):
        with self.captureOnCommitCallbacks() as callbacks:
            say("captured")
            with transaction.atomic():
                say("in a savepoint")
        assert len(callbacks) == 2
        assert not self.backend.payloads
        for callback in callbacks:
            callback()
        assert len(self.backend.payloads) == 2

    def test_a_rolled_back_savepoint_is_not_captured(self):
        with self.captureOnCommitCallbacks(execute=True):
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                say("ghost")
                raise ZeroDivisionError
        assert not self.backend.payloads


@real
class TestFailures:
    def test_a_failing_publish_skips_no_other_delivery_and_no_other_hook(self, memory, broken, caplog):
        ran = []
        with transaction.atomic():
            for name in ("lost", "kept", "lost too", "kept too"):
                say(name)
            transaction.on_commit(lambda: ran.append("hook"))
        assert ran == ["hook"]
        assert len(broken) == 2
        assert published(memory) == ["kept", "kept too"]
        (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
        assert "tests.receivers.on_item (2)" in record.getMessage()
        assert "OSError: gone" in record.getMessage()

    def test_a_backend_that_raises_raises_nothing_after_the_commit(self, memory, monkeypatch, caplog):
        def explode(deliveries: Sequence[Delivery]) -> None:
            raise RuntimeError("boom")

        monkeypatch.setattr(memory, "publish", explode)
        with transaction.atomic():
            say("one")
        say("two")
        assert caplog.text.count("RuntimeError: boom") == 2

    def test_on_commit_false_raises_what_could_not_be_published(self, broken, link):
        link(order_placed, second, on_commit=False)
        with pytest.raises(PublishError, match="second") as caught:
            say("one")
        assert isinstance(caught.value.__cause__, OSError)

    def test_an_observer_that_raises_changes_nothing(self, memory, caplog):
        class Observer:  # without __qualname__, over which Django's send_robust itself stumbles
            def __call__(self, **kwargs: Any) -> None:
                raise RuntimeError("observer")

        def observer(**kwargs: Any) -> None:
            raise RuntimeError("observer")

        for one in (Observer(), observer):
            delivery_published.connect(one, weak=False)
            try:
                say("one")
            finally:
                delivery_published.disconnect(one)
        assert published(memory) == ["one", "one"]
        assert "observer" in caplog.text


class TestWhatMakesNoDelivery:
    def test_when_is_asked_with_the_arguments_of_the_send(self, memory, link):
        asked = []

        def only_created(sender: Any, item: Any, **kwargs: Any) -> bool:
            asked.append((sender, item, kwargs))
            return bool(item)

        link(order_placed, second, when=only_created)
        assert [response for _, response in order_placed.send(sender=Customer, item=0, size=3)][1] is None
        assert asked == [(Customer, 0, {"size": 3})]
        assert order_placed.send(sender=Customer, item=1)[1][1] is not None

    def test_what_when_raises_is_the_senders(self, memory, link):
        link(order_placed, second, when=lambda **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            say("one")

    def test_suppress_makes_none(self, memory):
        with suppress():
            say("never")
        say("one")
        assert published(memory) == ["one"]

    def test_suppress_is_a_decorator_too(self, memory):
        suppress()(say)("never")
        assert not memory.payloads

    @pytest.mark.django_db(transaction=True)
    def test_fixtures_make_none_unless_they_are_asked_for(self, memory, link, tmp_path):
        link(post_save, first, Customer)
        link(post_save, second, Customer, deliver_raw=True)
        fixture = tmp_path / "customers.json"
        fixture.write_text('[{"model": "shop.customer", "pk": 1, "fields": {"name": "Ada", "email": ""}}]')
        call_command("loaddata", fixture, verbosity=0)
        assert [delivery.receiver for delivery, _ in memory.payloads] == ["tests.receivers.second"]

    def test_the_raw_of_a_custom_signal_is_its_own_business(self, memory):
        order_placed.send(sender=None, item="fish", raw=True)
        assert published(memory) == ["fish"]


class TestWhatTheSendLacks:
    def test_an_argument_that_the_receiver_needs_is_an_error_at_the_send_as_it_would_be_inline(self, memory):
        with pytest.raises(TypeError, match="on_item needs arguments that the send does not have: item"):
            order_placed.send(sender=None, itme=1)
        assert not memory.payloads

    def test_what_a_decorator_provides_is_not_needed(self, memory, link):
        bare = Signal()
        link(bare, receivers.provided)
        bare.send(sender=None)
        memory.deliver()
        assert receivers.calls == [("provided", None, {"tenant": "acme", "signal": bare})]


@real
class TestMigrations:
    def test_historical_models_make_no_deliveries(self, memory, link):
        link(post_save, first)
        historical = ProjectState.from_apps(apps).apps.get_model("shop", "Customer")
        historical.objects.create(name="from a migration")
        MigrationRecorder(connection).record_applied("shop", "9999_never")
        MigrationRecorder(connection).record_unapplied("shop", "9999_never")
        assert not memory.payloads
        Customer.objects.create(name="from the shop")
        assert len(memory.payloads) == 1


class TestWhatCannotTravel:
    def test_a_lazy_value_that_cannot_be_evaluated_and_is_not_named(self, memory):
        def fails() -> None:
            raise KeyError("secret")

        order_placed.send(sender=None, item=1, user=SimpleLazyObject(fails))
        memory.deliver()
        assert "NotCarried" in repr(receivers.calls[0][2]["user"])

    def test_what_repeats_itself_is_refused_before_it_is_written_out(self, memory):
        tree: list[Any] = []
        for _ in range(30):
            tree = [tree, tree]
        with pytest.raises(EncodeError, match="more values than MAX_SIZE has bytes"):
            order_placed.send(sender=None, item=tree)

    def test_what_the_receiver_names_is_an_error_at_the_send(self, memory):
        with pytest.raises(EncodeError) as caught:
            order_placed.send(sender=None, item={"lines": [1, object()]})
        assert str(caught.value).startswith(
            "kwargs['item']['lines'][1] (object) cannot travel to tests.receivers.on_item: "
        )
        assert "register_codec()" in str(caught.value)
        assert not memory.payloads

    def test_what_it_does_not_name_arrives_as_a_marker_and_is_said_once(self, memory, caplog):
        for _ in range(2):
            order_placed.send(sender=None, item=1, till=object())
        memory.deliver()
        marker = receivers.calls[0][2]["till"]
        with pytest.raises(NotCarriedError, match=r"kwargs\['till'\] \(object\) did not travel"):
            marker.amount  # noqa: B018
        assert caplog.text.count("NotCarried") == 1

    def test_a_payload_too_large_names_its_largest_argument(self, settings, memory):
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "MAX_SIZE": 1000}
        with pytest.raises(EncodeError, match=r"kwargs\['item'\] cannot travel to tests.receivers.on_item.*MAX_SIZE"):
            order_placed.send(sender=None, item="ä" * 600, other="x" * 500)
        with pytest.raises(EncodeError, match="MAX_SIZE"):
            order_placed.send(sender="s" * 2000, item="")

    def test_a_sender_that_cannot_travel_nor_its_class_is_a_marker(self, memory, calls, caplog):
        """Every receiver names its sender, few look at it."""

        class Local: ...

        for sender in (Local(), Local, lambda: None):
            order_placed.send(sender=sender, item=1)
        memory.deliver()
        assert [kwargs for _, _, kwargs in calls] == [{"item": 1, "signal": order_placed}] * 3
        for _, sender, _ in calls:
            with pytest.raises(NotCarriedError, match=r"^sender .* did not travel"):
                _ = sender.name
        assert caplog.text.count("gets a NotCarried marker") == 1

    def test_a_sender_that_the_worker_has_not_imported_is_a_marker(self, memory, calls):
        order_placed.send(sender=Customer, item=1)
        [(delivery, _)] = memory.payloads
        text = delivery.text.replace('{"$model":"shop.customer"}', '{"$class":"shop.views.SignUp"}')
        memory.payloads = [(delivery, seal(text))]
        [(_, outcome)] = memory.deliver()
        assert outcome.state == "succeeded"
        with pytest.raises(NotCarriedError, match="not in the imported modules"):
            _ = calls[0][1].name

    def test_a_sender_of_a_model_that_the_worker_does_not_have_waits_for_a_release(self, memory, calls):
        order_placed.send(sender=Customer, item=1)
        [(delivery, _)] = memory.payloads
        memory.payloads = [(delivery, seal(delivery.text.replace('"shop.customer"', '"shop.next"')))]
        [(_, outcome)] = memory.deliver()
        assert (outcome.state, calls) == ("retry", [])

    def test_the_name_of_an_argument_that_no_text_can_have(self, memory):
        with pytest.raises(EncodeError, match="lone surrogate"):
            order_placed.send(sender=None, item=1, **{"\ud800": 1})

    def test_a_signal_without_a_name_serves_one_receiver_of_one_signal(self, memory, link):
        nameless = Signal()
        link(nameless, second)
        nameless.send(sender=None)
        memory.deliver()
        assert receivers.calls[0][2]["signal"] is nameless
        link(order_placed, second)
        with pytest.raises(EncodeError, match=r"Signal\(name=...\)"):
            nameless.send(sender=None)

    def test_a_signal_with_a_name_of_its_own_serves_any(self, memory, link):
        named = Signal(name="shop.somewhere")
        link(named, second)
        link(order_placed, second)
        named.send(sender=None)
        memory.deliver()
        assert receivers.calls[0][2]["signal"] is named


@real
class TestTwoStatesOfOneRow:
    def test_both_arrive_as_they_were(self, memory):
        before = Customer.objects.create(name="before")
        after = Customer.objects.get(pk=before.pk)
        after.name = "after"
        order_placed.send(sender=None, item=[before, after, before], other=after)
        memory.deliver()
        ((_, _, kwargs),) = receivers.calls
        assert [one.name for one in (*kwargs["item"], kwargs["other"])] == ["before", "after", "before", "after"]


@real
class TestSnapshots:
    def test_what_is_deleted_arrives_as_it_was(self, memory, link):
        link(post_delete, on_instance, Customer)
        Customer.objects.create(name="Ada").delete()
        memory.deliver()
        assert receivers.calls[0][2]["instance"].name == "Ada"

    def test_a_deleted_queryset_is_not_queried_again_for_each_of_its_rows(self, memory, link):
        link(post_delete, on_instance, Customer)
        Customer.objects.bulk_create(Customer(name=str(number)) for number in range(5))
        with CaptureQueriesContext(connection) as alone:
            Customer.objects.all().delete()
        assert sum("SELECT" in query["sql"] for query in alone) < 5
        memory.deliver()
        origin = receivers.calls[0][2]["origin"]
        with pytest.raises(NotCarriedError, match="Name origin in the receiver"):
            list(origin)

    def test_the_origin_of_one_deletion_is_its_instance(self, memory, link):
        link(post_delete, on_instance, Customer)
        Customer.objects.create(name="Ada").delete()
        memory.deliver()
        assert receivers.calls[0][2]["origin"].name == "Ada"

    def test_the_option_makes_snapshots_of_other_signals(self, memory, link):
        link(post_save, on_instance, Customer, instance="snapshot")
        ada = Customer.objects.create(name="Ada")
        Customer.objects.update(name="Eve")
        memory.deliver()
        assert receivers.calls[0][2]["instance"].name == "Ada"
        assert receivers.calls[0][2]["instance"] == ada

    def test_the_option_makes_references_of_deletions(self, memory, link, outcome_of):
        link(post_delete, on_instance, Customer, instance="reference")
        Customer.objects.create(name="Ada").delete()
        assert outcome_of().state == "discarded"

    def test_m2m_changed_brings_its_set_and_its_classes(self, memory, link):
        link(m2m_changed, on_instance, Article.buyers.through)
        ada = Customer.objects.create(name="Ada")
        Article.objects.create(title="Pot").buyers.add(ada)
        memory.deliver()
        _, sender, kwargs = receivers.calls[-1]
        assert sender is Article.buyers.through
        assert (kwargs["action"], kwargs["pk_set"], kwargs["model"]) == ("post_add", {ada.pk}, Customer)


def test_the_attributes_of_django_that_are_not_documented_are_there():
    """publisher._place reads them; if this fails, Django has moved them."""
    for name in ("run_on_commit", "savepoint_ids", "atomic_blocks"):
        assert isinstance(getattr(connection, name), list)
    assert connection.commit_on_exit is True
    assert hasattr(transaction.Atomic(None, True, False), "_from_testcase")


@real
def test_every_transaction_has_a_list_of_hooks_of_its_own():
    lists = []
    for _ in range(2):
        with transaction.atomic():
            lists.append(connection.run_on_commit)
            transaction.on_commit(lambda: None)
    assert lists[0] is not lists[1]
