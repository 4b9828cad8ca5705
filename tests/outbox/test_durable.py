"""Durable deliveries: a row in the sender's transaction, exactly, and a doorbell after its commit."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from cryptography.fernet import Fernet
from django.core.exceptions import SynchronousOnlyOperation
from django.db import DatabaseError, connection, connections, transaction
from django.db.models.signals import m2m_changed, post_save
from django.test import Client, TestCase

from deferred_signals import Delivery, Signal, backends, keeping, publisher
from deferred_signals.backends.memory import MemoryBackend
from deferred_signals.bell import is_bell
from deferred_signals.bell import read as read_bell
from deferred_signals.connecting import connect_deferred
from deferred_signals.exceptions import ConfigurationError, ConnectError
from deferred_signals.outbox import together
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.models import OutboxDelivery
from deferred_signals.signals import delivery_published
from tests import receivers
from tests.receivers import first, on_changes, on_instance, on_item, second
from tests.shop.models import Article, Customer

# Its name from Django 6.1 on.
savepoint_create: Any = getattr(transaction, "savepoint_create", None) or transaction.savepoint

order_placed: Any = Signal()

real = pytest.mark.django_db(transaction=True, databases=["default", "other"])


def say(name: Any) -> Delivery:
    ((_, delivery),) = order_placed.send(sender=None, item=name)
    assert isinstance(delivery, Delivery)
    return delivery


def rung(memory: MemoryBackend) -> list[list[str]]:
    """The ids for which it has been rung, one list for each doorbell."""
    return [[str(one) for one in read_bell(payload).ids] for _, payload in memory.payloads]


def told(memory: MemoryBackend) -> list[Any]:
    """The items of what is run when the doorbells are answered."""
    receivers.calls.clear()
    memory.deliver()
    return [kwargs.get("item") for _, _, kwargs in receivers.calls]


@contextmanager
def without_table() -> Iterator[None]:
    """As before the outbox was migrated."""
    with connection.schema_editor() as editor:
        editor.delete_model(OutboxDelivery)
    try:
        yield
    finally:
        with connection.schema_editor() as editor:
            editor.create_model(OutboxDelivery)


@pytest.fixture
def durable(link: Any, settings: Any) -> None:
    settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "OUTSIDE_TRANSACTION": "ignore"}
    link(order_placed, on_item, durable=True)


@real
class TestASend:
    def test_writes_a_row_in_the_transaction_and_rings_after_its_commit(self, link, memory, rows, calls):
        link(post_save, first, Customer, durable=True)
        with transaction.atomic():
            Customer.objects.create(name="Ada")
            assert rows("state") == ["pending"]
            assert memory.payloads == []
        ((_, payload),) = memory.payloads
        assert is_bell(payload)
        assert "Ada" not in payload
        ((_, outcome),) = memory.deliver()
        assert outcome.state == "succeeded"
        assert [call[1] for call in calls] == [Customer]
        assert rows("state", "lease", "due") == [("succeeded", 1, None)]

    def test_returns_a_delivery_that_has_the_id_of_its_row_and_says_where_it_is(self, durable, memory, rows):
        with transaction.atomic():
            delivery = say("one")
        assert str(rows("delivery_id")[0]) == delivery.id
        assert rung(memory) == [[delivery.id]]
        assert delivery.kept == "default"
        assert delivery.payload == "", "the row has it"

    def test_needs_the_outbox(self, durable, monkeypatch, rows):
        monkeypatch.setattr(keeping, "_outbox", None)
        with pytest.raises(ConfigurationError, match=r"deferred_signals\.outbox"), transaction.atomic():
            say("one")
        assert rows() == []

    def test_may_be_durable_by_the_setting_and_not_by_the_option(self, link, memory, rows, settings):
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "DURABLE": True}
        link(order_placed, on_item)
        link(order_placed, first, durable=False)
        link(order_placed, second, on_commit=False)
        with transaction.atomic():
            order_placed.send(sender=None, item=1)
        assert rows("receiver") == ["tests.receivers.on_item"]
        assert len(memory.payloads) == 3

    @pytest.mark.parametrize(
        "given", [{"atomic": True}, {"order_by": "item"}, {"unique": "item"}, {"unique": "item", "debounce": 5}]
    )
    def test_that_asks_for_what_only_rows_can_give_is_durable(self, link, rows, given):
        link(order_placed, on_item, **given)
        with transaction.atomic():
            say("one")
        assert rows("receiver") == ["tests.receivers.on_item"]

    @pytest.mark.parametrize("given", [{"durable": False}, {"on_commit": False}])
    def test_cannot_ask_for_that_and_against_it(self, link, given):
        with pytest.raises(ConnectError, match="'atomic'"):
            link(order_placed, on_item, atomic=True, **given)
        link(order_placed, on_item, atomic=False, unique=None, **given)

    def test_writes_nothing_of_what_a_receiver_does_not_want(self, link, rows):
        link(order_placed, on_item, durable=True, when=lambda item, **kwargs: item)
        link(post_save, first, Customer, durable=True)
        with transaction.atomic():
            order_placed.send(sender=None, item=0)
            Customer(name="from a fixture").save_base(raw=True)
        assert rows() == []


@real
class TestTransactions:
    def test_that_are_rolled_back_leave_no_row_and_ring_for_nothing(self, durable, memory, rows):
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            say("ghost")
            raise ZeroDivisionError
        with transaction.atomic():
            say("ghost")
            transaction.set_rollback(True)
        assert rows() == []
        assert memory.payloads == []

    def test_savepoints_that_are_rolled_back_take_only_their_own_with_them(self, durable, memory, rows):
        with transaction.atomic():
            a = say("a")
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                say("ghost")
                with transaction.atomic():
                    say("ghost of a released savepoint")
                raise ZeroDivisionError
            with transaction.atomic():
                b = say("b")
            c = say("c")
        assert [str(one) for one in rows("delivery_id")] == [a.id, b.id, c.id]
        assert rung(memory) == [[a.id, b.id, c.id]]
        assert told(memory) == ["a", "b", "c"]

    def test_savepoints_that_are_rolled_back_by_hand_leave_no_ghost(self, durable, memory, rows):
        """Which in the default mode is the one that nobody can see."""
        with transaction.atomic():
            kept = say("kept")
            savepoint = savepoint_create()
            say("ghost")
            transaction.savepoint_rollback(savepoint)
            also = say("kept too")
        assert [str(one) for one in rows("delivery_id")] == [kept.id, also.id]
        assert told(memory) == ["kept", "kept too"]

    def test_a_rollback_of_what_is_joined_takes_all(self, durable, memory, rows):
        with transaction.atomic():
            say("ghost")
            with pytest.raises(ZeroDivisionError), transaction.atomic(savepoint=False):
                raise ZeroDivisionError
        assert rows() == []
        assert memory.payloads == []

    def test_hooks_in_hooks_have_rows_too(self, durable, memory, rows):
        def hook() -> None:
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                say("ghost")
                raise ZeroDivisionError
            with transaction.atomic():
                say("of the hook")
                transaction.on_commit(lambda: say("of the hook in the hook"))

        with transaction.atomic():
            transaction.on_commit(hook)
            say("of the transaction")
        assert len(rows()) == 3
        assert sorted(told(memory)) == ["of the hook", "of the hook in the hook", "of the transaction"]

    def test_a_hook_that_raises_before_ours_keeps_no_row_from_the_relay(self, durable, link, memory, rows):
        """Django drops all later hooks: what is not durable is lost then, for good."""
        link(order_placed, second, durable=False)

        def hook() -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError), transaction.atomic():
            transaction.on_commit(hook)
            order_placed.send(sender=None, item="one")
        assert memory.payloads == []
        assert rows("receiver", "state") == [("tests.receivers.on_item", "pending")]
        assert all(rows("ring_at"))

    def test_hooks_run_in_their_order_and_ours_is_one_of_them(self, durable, memory):
        seen: list[int] = []
        with transaction.atomic():
            transaction.on_commit(lambda: seen.append(len(memory.payloads)))
            say("one")
            transaction.on_commit(lambda: seen.append(len(memory.payloads)))
            say("two")
        assert seen == [0, 1]

    def test_without_autocommit_the_row_is_written_and_the_relay_rings_for_it(self, durable, memory, rows):
        transaction.set_autocommit(False)
        try:
            say("ghost")
            transaction.rollback()
            say("kept")
            transaction.commit()
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)
        assert memory.payloads == []
        [(due, ring_at)] = rows("due", "ring_at")
        assert due == ring_at, "no sender rings, so the relay need not wait for it"

    def test_an_error_after_the_send_with_atomic_requests_leaves_nothing(self, link, memory, rows):
        link(post_save, first, Customer, durable=True)
        client = Client(raise_request_exception=False)
        connections["default"].settings_dict["ATOMIC_REQUESTS"] = True
        try:
            assert client.post("/broken/").status_code == 500
            assert (rows(), memory.payloads) == ([], [])
            assert client.post("/sign-up/", {"name": "Ada"}).status_code == 200
        finally:
            connections["default"].settings_dict["ATOMIC_REQUESTS"] = False
        assert (len(rows()), len(memory.payloads)) == (1, 1)

    def test_a_row_that_cannot_be_written_is_the_databases_error_at_the_send(self, durable, memory, outbox, rows):
        outbox.check("default")
        with without_table(), pytest.raises(DatabaseError), transaction.atomic():
            Customer.objects.create(name="Ada")
            say("one")
        assert (rows(), memory.payloads, Customer.objects.count()) == ([], [], 0)


@real
class TestSeveralDatabases:
    def test_the_row_is_where_the_sender_writes(self, link, memory, rows):
        link(post_save, on_instance, Customer, durable=True)
        with transaction.atomic(using="other"):
            Customer.objects.using("other").create(name="Ada")
            with transaction.atomic():
                Customer.objects.create(name="Bob")
            assert len(memory.payloads) == 1
        assert (len(rows("state")), len(rows("state", alias="other"))) == (1, 1)
        assert [read_bell(payload).alias for _, payload in memory.payloads] == ["default", "other"]
        memory.deliver()
        assert [kwargs["instance"]._state.db for _, _, kwargs in receivers.calls] == ["default", "other"]
        assert rows("state") + rows("state", alias="other") == ["succeeded", "succeeded"]

    def test_a_rollback_of_one_leaves_what_the_other_has_committed(self, link, memory, rows):
        link(post_save, on_instance, Customer, durable=True)
        with pytest.raises(ZeroDivisionError), transaction.atomic(using="other"):
            Customer.objects.using("other").create(name="Ada")
            with transaction.atomic():
                Customer.objects.create(name="Bob")
            raise ZeroDivisionError
        assert (rows("state"), rows("state", alias="other")) == (["pending"], [])

    def test_the_option_decides_where_the_row_is(self, link, memory, rows):
        link(order_placed, on_item, durable=True, using="other")
        with transaction.atomic(using="other"):
            delivery = say("one")
        assert (delivery.kept, rows(), len(rows("state", alias="other"))) == ("other", [], 1)

    def test_a_database_without_the_table_says_how_to_get_it(self, durable, rows, outbox):
        with without_table(), pytest.raises(ConfigurationError) as caught, transaction.atomic():
            say("one")
        assert "manage.py migrate --database=default deferred_signals_outbox" in str(caught.value)
        assert "pre_migrate" in str(caught.value)
        with transaction.atomic():
            say("two")
        assert len(rows("state")) == 1


@real
class TestOutsideATransaction:
    @pytest.fixture(autouse=True)
    def _nothing_said_yet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(publisher, "_warned", set())

    def test_the_row_is_written_at_once_and_it_rings_at_once(self, durable, memory, rows):
        delivery = say("one")
        assert rows("state") == ["pending"]
        assert rung(memory) == [[delivery.id]]
        assert told(memory) == ["one"]

    def test_a_save_in_autocommit_is_one(self, link, memory, rows, caplog):
        link(post_save, on_instance, Customer, durable=True)
        Customer.objects.create(name="Ada")
        assert len(memory.payloads) == 1
        assert "tests.receivers.on_instance is sent outside a transaction on 'default'" in caplog.text

    def test_it_is_said_once_for_each_receiver(self, link, memory, caplog):
        link(order_placed, on_item, durable=True)
        link(order_placed, second, durable=True)
        for _ in range(3):
            order_placed.send(sender=None, item=1)
        said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert [("on_item" in text, "second" in text) for text in said] == [(True, False), (False, True)]
        assert len(memory.payloads) == 6

    def test_it_is_refused_where_the_setting_says_so(self, link, memory, rows, settings):
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "OUTSIDE_TRANSACTION": "raise"}
        link(order_placed, on_item, durable=True)
        with pytest.raises(transaction.TransactionManagementError, match=r"on_item.*transaction.atomic\(\)"):
            say("one")
        assert (rows(), memory.payloads) == ([], [])
        with transaction.atomic():
            say("two")
        assert rows("state") == ["pending"]

    def test_silence_can_be_had(self, durable, caplog):
        say("one")
        assert caplog.text == ""

    def test_nothing_is_said_of_what_is_not_durable(self, link, caplog):
        link(order_placed, on_item)
        say("one")
        assert caplog.text == ""


class TestInsideTestCase(TestCase):
    """Where the outermost transaction never commits, and ``captureOnCommitCallbacks`` stands in for the commit."""

    def setUp(self) -> None:
        backend = backends.current()
        assert isinstance(backend, MemoryBackend)
        self.backend = backend
        connect_deferred(order_placed, on_item, None, None, {"durable": True})
        self.addCleanup(order_placed.disconnect, on_item)
        say("in setUp")

    def test_what_a_block_sends_is_rung_for(self):
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            delivery = say("captured")
        assert len(callbacks) == 1
        assert rung(self.backend) == [[delivery.id]]
        assert told(self.backend) == ["captured"]
        states = dict(OutboxDelivery.objects.values_list("delivery_id", "state"))
        assert sorted(states.values()) == ["pending", "succeeded"]

    def test_captured_and_not_executed_is_a_row_that_waits(self):
        with self.captureOnCommitCallbacks() as callbacks:
            say("captured")
        assert len(callbacks) == 1
        assert not self.backend.payloads
        assert OutboxDelivery.objects.filter(state="pending").count() == 2

    def test_a_rolled_back_savepoint_is_not_captured(self):
        with self.captureOnCommitCallbacks(execute=True):
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                say("ghost")
                raise ZeroDivisionError
        assert not self.backend.payloads
        assert OutboxDelivery.objects.count() == 1


@real
class TestCoroutinesAndThreads:
    def test_asend_writes_the_row(self, durable, memory, rows):
        async def run() -> Any:
            try:
                return await order_placed.asend(sender=None, item="one")
            finally:
                await sync_to_async(connections.close_all)()

        [(_, delivery)] = asyncio.run(run())
        assert [str(one) for one in rows("delivery_id")] == [delivery.id]
        assert told(memory) == ["one"]

    def test_a_transaction_in_a_thread_of_a_coroutine_has_it(self, durable, memory, rows):
        @sync_to_async
        def work() -> None:
            try:
                with pytest.raises(ZeroDivisionError), transaction.atomic():
                    say("ghost")
                    raise ZeroDivisionError
                with transaction.atomic():
                    say("one")
            finally:
                connections.close_all()

        asyncio.run(work())
        assert told(memory) == ["one"]

    @pytest.mark.parametrize("is_known", [True, False])
    def test_send_in_a_coroutine_says_what_to_do(self, durable, outbox, memory, rows, is_known):
        if is_known:
            outbox.check("default")

        async def run() -> None:
            say("one")

        with pytest.raises(SynchronousOnlyOperation, match=r"on_item is durable.*asend\(\)"):
            asyncio.run(run())
        assert (rows(), memory.payloads) == ([], [])

    def test_each_thread_has_its_own_transaction(self, link, memory, rows):
        """One for each database, for SQLite has one writer at a time."""
        link(post_save, on_instance, Customer, durable=True)
        held, go_on = threading.Event(), threading.Event()

        def work() -> None:
            try:
                with transaction.atomic(using="other"):
                    Customer.objects.using("other").create(name="ghost of the thread")
                    held.set()
                    assert go_on.wait(60)
                    transaction.set_rollback(True, using="other")
            finally:
                connections.close_all()

        thread = threading.Thread(target=work)
        thread.start()
        assert held.wait(60)
        with transaction.atomic():
            Customer.objects.create(name="kept")
        go_on.set()
        thread.join(60)
        assert rung(memory) == [[str(one) for one in rows("delivery_id")]]
        assert (len(rows("state")), rows(alias="other")) == (1, [])


@real
class TestOwnRows:
    def test_fire_no_receivers_at_any_step_of_their_lives(self, link, memory, rows):
        seen: list[Any] = []

        def watch(sender: Any, **kwargs: Any) -> None:
            seen.append(sender)

        link(post_save, watch, deferred=False)
        link(post_save, first, durable=True, unique="instance.pk")
        link(post_save, second, durable=True, order_by="instance.pk", atomic=True)
        with transaction.atomic():
            Customer.objects.create(name="Ada")
        memory.deliver()
        assert rows("state") == ["succeeded", "succeeded"]
        assert seen == [Customer]


def arrived(memory: MemoryBackend) -> list[tuple[Any, ...]]:
    """``created`` and ``update_fields`` of what is run when the doorbells are answered."""
    receivers.calls.clear()
    memory.deliver()
    return [(kwargs["created"], kwargs["update_fields"]) for _, _, kwargs in receivers.calls]


@real
class TestCoalescing:
    @pytest.fixture(autouse=True)
    def _coalescing(self, link: Any) -> None:
        link(post_save, on_instance, Customer, durable=True, coalesce=True)

    @pytest.fixture
    def ada(self) -> Customer:
        return Customer.objects.bulk_create([Customer(pk=1, name="Ada")])[0]

    def test_a_thousand_saves_of_one_row_leave_one(self, memory, rows):
        published: list[str] = []

        def observer(delivery: Delivery, **kwargs: Any) -> None:
            published.append(delivery.id)

        delivery_published.connect(observer)
        try:
            with transaction.atomic():
                ada = Customer.objects.create(name="Ada")
                for _ in range(999):
                    ada.save()
        finally:
            delivery_published.disconnect(observer)
        assert [str(one) for one in rows("delivery_id")] == published
        assert rung(memory) == [published]
        assert arrived(memory) == [(True, None)]

    def test_the_response_is_the_one_that_both_became(self, ada, rows):
        with transaction.atomic():
            responses: list[Any] = []
            for _ in range(2):
                responses += post_save.send(Customer, instance=ada, created=False, update_fields=None)
        ids = {delivery.id for _, delivery in responses}
        assert {str(one) for one in rows("delivery_id")} == ids

    def test_what_a_savepoint_added_goes_with_it(self, ada, memory, rows):
        with transaction.atomic():
            ada.save(update_fields=["name"])
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                ada.save(update_fields=["email"])
                assert len(rows()) == 1
                raise ZeroDivisionError
        assert arrived(memory) == [(False, frozenset({"name"}))]

    def test_what_was_rolled_back_is_not_in_what_follows(self, ada, memory, rows):
        with transaction.atomic():
            ada.save(update_fields=["name"])
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                ada.save()
                raise ZeroDivisionError
            ada.save(update_fields=["email"])
        assert len(rows()) == 1
        assert arrived(memory) == [(False, frozenset({"name", "email"}))]

    def test_one_is_made_over_savepoints_and_told_and_rung_for_once(self, ada, memory, rows):
        published: list[str] = []

        def observer(delivery: Delivery, **kwargs: Any) -> None:
            published.append(delivery.id)

        delivery_published.connect(observer)
        try:
            with transaction.atomic():
                ada.save(update_fields=["name"])
                with transaction.atomic():
                    ada.save(update_fields=["email"])
                ada.save(update_fields=["name"])
        finally:
            delivery_published.disconnect(observer)
        assert [[str(one) for one in rows("delivery_id")]] == rung(memory) == [published]
        assert arrived(memory) == [(False, frozenset({"name", "email"}))]

    @pytest.mark.parametrize("encrypt", [False, True])
    def test_what_was_rolled_back_by_hand_is_not_in_what_follows(self, ada, link, memory, rows, settings, encrypt):
        """Only the database knows of it: the row has what it had, and what follows stands by itself."""
        link(post_save, second, Customer, durable=True, coalesce=True, encrypt=encrypt)
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "ENCRYPTION_KEYS": [Fernet.generate_key().decode()]}
        with transaction.atomic():
            ada.save(update_fields=["name"])
            savepoint = savepoint_create()
            ada.save()
            transaction.savepoint_rollback(savepoint)
            ada.save(update_fields=["email"])
            ada.save(update_fields=["email"])
        arrived(memory)
        told = [kwargs["update_fields"] for name, _, kwargs in receivers.calls if name == "second"]
        assert told == [frozenset({"name"}), frozenset({"email"})]
        assert len(rows()) == 4

    def test_without_autocommit_what_may_be_committed_is_not_written_anew(self, ada, memory, rows):
        """A worker that has read the row would claim it, and run what was there before."""
        transaction.set_autocommit(False)
        try:
            for field in ("name", "email"):
                with transaction.atomic():
                    ada.save(update_fields=[field])
                transaction.commit()
            assert len(rows()) == 2
            transaction.commit()
        finally:
            transaction.set_autocommit(True)
        assert arrived(memory) == [(False, frozenset({"name"})), (False, frozenset({"email"}))]

    def test_a_row_that_was_rolled_back_by_hand_does_not_come_back_with_what_follows(self, ada, memory, rows):
        with transaction.atomic():
            savepoint = savepoint_create()
            ada.save()
            transaction.savepoint_rollback(savepoint)
            ada.save(update_fields=["email"])
        assert len(rows()) == 1
        assert arrived(memory) == [(False, frozenset({"email"}))]

    def test_neighbours_of_another_kind_stay_rows_of_their_own(self, link, memory, rows):
        link(m2m_changed, second, Article.buyers.through, durable=True, coalesce=True)
        ada = Customer.objects.bulk_create([Customer(pk=1)])[0]
        with transaction.atomic():
            article = Article.objects.create(title="Pot")
            article.buyers.add(ada)
            article.buyers.remove(ada)
            article.buyers.add(ada)
        memory.deliver()
        actions = [kwargs["action"] for name, _, kwargs in receivers.calls if name == "second"]
        assert actions == ["pre_add", "post_add", "pre_remove", "post_remove", "pre_add", "post_add"]
        assert len(rows()) == 6

    def test_the_key_is_that_of_the_last(self, link, rows):
        link(post_save, second, Customer, durable=True, coalesce=True, order_by="instance.name")
        with transaction.atomic():
            ada = Customer.objects.create(name="Ada")
            ada.name = "Augusta"
            ada.save()
        [key] = filter(None, rows("order_key"))
        assert "Augusta" in key

    @pytest.mark.parametrize("block", [transaction.atomic, together])
    def test_of_an_order_key_it_has_the_place_of_the_last_send(self, link, memory, block):
        link(post_save, second, Customer, durable=True, coalesce=True, order_by=lambda sender, **kwargs: "all")
        assert self.names_of_two(memory, block) == ["Bob", "Augusta"]

    @pytest.mark.parametrize("block", [transaction.atomic, together])
    def test_of_a_unique_key_it_counts_for_those_that_were_sent_before_the_last_send(self, link, memory, block):
        link(post_save, second, Customer, durable=True, coalesce=True, unique=lambda sender, **kwargs: "all")
        assert self.names_of_two(memory, block) == ["Augusta"]

    def test_a_row_with_a_key_that_was_rolled_back_by_hand_does_not_come_back(self, link, memory):
        link(post_save, second, Customer, durable=True, coalesce=True, unique="instance.pk")
        with transaction.atomic():
            savepoint = savepoint_create()
            ada = Customer.objects.create(name="Ada")
            transaction.savepoint_rollback(savepoint)
            ada.save(force_insert=True)
        assert len(OutboxDelivery.objects.exclude(unique_key=None)) == 1

    def test_when_it_is_due_is_counted_from_the_last(self, link):
        link(
            post_save, second, Customer, durable=True, coalesce=True, unique="instance.pk", debounce=timedelta(hours=1)
        )
        with transaction.atomic():
            ada = Customer.objects.create(name="Ada")
            mine = OutboxDelivery.objects.exclude(unique_key=None)
            mine.update(due=DatabaseNow(60))
            ada.save()
        assert mine.filter(due__gt=DatabaseNow(3000)).count() == 1

    def names_of_two(self, memory, block):
        """Of one that is saved before and after another one, what arrives."""
        receivers.calls.clear()
        with block():
            ada = Customer.objects.create(name="Ada")
            Customer.objects.create(name="Bob")
            ada.name = "Augusta"
            ada.save()
        while memory.payloads:
            memory.deliver()
        return [kwargs["instance"].name for name, _, kwargs in receivers.calls if name == "second"]

    def test_outside_a_transaction_every_save_is_a_row(self, ada, rows):
        ada.save()
        ada.save()
        assert len(rows()) == 2

    def test_also_changes_lead_from_the_first_to_the_last(self, ada, link, memory, rows):
        link(post_save, on_changes, Customer, durable=True, coalesce=True, changes=True)
        with transaction.atomic():
            ada.name, ada.email = "B", "b@example.com"
            ada.save()
            with transaction.atomic():
                ada.name, ada.email = "C", ""
                ada.save()
        memory.deliver()
        assert [kwargs["changes"] for name, _, kwargs in receivers.calls if name == "on_changes"] == [
            {"name": ("Ada", "C")}
        ]


class TestCoalescingInsideTestCase(TestCase):
    def test_what_becomes_one_is_rung_for_in_the_hook_of_the_last(self):
        backend = backends.current()
        assert isinstance(backend, MemoryBackend)
        connect_deferred(post_save, on_instance, Customer, None, {"durable": True, "coalesce": True})
        self.addCleanup(post_save.disconnect, on_instance, Customer)
        with self.captureOnCommitCallbacks(execute=True):
            ada = Customer.objects.create(name="Ada")
            ada.save(update_fields=["name"])
        [row] = OutboxDelivery.objects.all()
        assert rung(backend) == [[str(row.delivery_id)]]
        assert arrived(backend) == [(True, None)]
