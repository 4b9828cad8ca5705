"""``together()``: durable deliveries of a block are written in bulk, and a rollback takes along what it would take."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import DatabaseError, connection, transaction
from django.db.models.signals import post_save
from django.test import TestCase
from django.test.utils import CaptureQueriesContext

from deferred_signals import Signal
from deferred_signals.outbox import bulk, together
from deferred_signals.outbox.models import OutboxDelivery
from tests import receivers
from tests.outbox.test_durable import without_table
from tests.receivers import on_instance, on_item
from tests.shop.models import Customer

# Its name from Django 6.1 on.
savepoint_create: Any = getattr(transaction, "savepoint_create", None) or transaction.savepoint

order_placed: Any = Signal()

real = pytest.mark.django_db(transaction=True, databases=["default", "other"])


def say(name: Any) -> str:
    ((_, delivery),) = order_placed.send(sender=None, item=name)
    return str(delivery.id)


def inserts(queries: CaptureQueriesContext) -> int:
    return sum("INSERT" in query["sql"] and "deferred_signals_delivery" in query["sql"] for query in queries)


@pytest.fixture
def told(memory: Any) -> Any:
    """The items of what is run when the doorbells are answered."""

    def run() -> list[Any]:
        receivers.calls.clear()
        memory.deliver()
        return [kwargs.get("item") for _, _, kwargs in receivers.calls]

    return run


@pytest.fixture(autouse=True)
def _durable(link: Any) -> None:
    link(order_placed, on_item, durable=True)


@real
class TestABlock:
    def test_writes_its_rows_in_one_statement_at_its_end(self, rows, memory, told):
        with CaptureQueriesContext(connection) as queries, together():
            ids = [say(number) for number in range(20)]
            assert inserts(queries) == 0
        assert inserts(queries) == 1
        assert [str(one) for one in rows("delivery_id")] == ids
        assert len(memory.payloads) == 1
        assert told() == list(range(20))

    def test_is_a_transaction(self, rows, memory):
        with pytest.raises(ZeroDivisionError), together():
            Customer.objects.create(name="Ada")
            say("ghost")
            raise ZeroDivisionError
        assert (rows(), memory.payloads, Customer.objects.count()) == ([], [], 0)

    def test_without_its_brackets_is_refused(self):
        with pytest.raises(TypeError, match=r"@together\(\), not <function"):
            together(lambda: None)  # type: ignore[arg-type]

    def test_may_be_a_decorator(self, rows):
        @together()
        def work() -> int:
            say("one")
            return len(rows())

        assert [work(), work(), len(rows())] == [0, 1, 2]

    def test_that_is_given_up_half_way_is_rolled_back(self, rows):
        def work() -> Any:
            with together():
                say("ghost")
                yield

        given_up = work()
        next(given_up)
        given_up.close()
        say("kept")
        assert len(rows()) == 1
        assert not list(bulk._batches)

    def test_writes_five_hundred_at_a_time(self, rows):
        with CaptureQueriesContext(connection) as queries, together():
            for number in range(bulk.MOST + 1):
                say(number)
            assert inserts(queries) == 1
            assert len(rows()) == bulk.MOST
        assert inserts(queries) == 2
        assert len(rows()) == bulk.MOST + 1

    def test_writes_large_ones_before_they_are_too_many_for_a_statement(self, rows):
        with CaptureQueriesContext(connection) as queries, together():
            for _ in range(9):
                say("x" * 250_000)
        assert inserts(queries) == 3
        assert len(rows()) == 9

    def test_without_a_durable_delivery_writes_nothing(self):
        with CaptureQueriesContext(connection) as queries, together():
            Customer.objects.create(name="Ada")
        assert inserts(queries) == 0

    def test_is_over_at_its_end(self, rows):
        with transaction.atomic():
            with together():
                say("one")
            say("two")
            assert len(rows()) == 2
        assert not list(bulk._batches)

    def test_is_for_one_database(self, link, rows):
        link(post_save, on_instance, Customer, durable=True)
        with together(), transaction.atomic(using="other"):
            Customer.objects.using("other").create(name="Ada")
            Customer.objects.create(name="Grace")
            assert (len(rows(alias="other")), rows()) == (1, [])
            with together("other"):
                Customer.objects.using("other").create(name="Eve")
                assert len(rows(alias="other")) == 1
            assert len(rows(alias="other")) == 2
        assert len(rows()) == 1

    def test_in_a_coroutine_is_refused_as_its_transaction_is(self):
        async def work() -> None:
            with together():
                pass

        with pytest.raises(SynchronousOnlyOperation):
            asyncio.run(work())
        assert not list(bulk._batches)


@real
class TestSavepoints:
    def test_that_are_rolled_back_take_only_their_own_with_them(self, rows, told):
        with together():
            a = say("a")
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                say("ghost")
                with transaction.atomic():
                    say("ghost of a released savepoint")
                raise ZeroDivisionError
            with transaction.atomic():
                b = say("b")
            c = say("c")
        assert [str(one) for one in rows("delivery_id")] == [a, b, c]
        assert told() == ["a", "b", "c"]

    @pytest.mark.parametrize("upper", [True, False])
    def test_that_are_rolled_back_by_hand_leave_no_ghost(self, rows, told, upper):
        with together():
            say("a")
            savepoint = savepoint_create()
            say("ghost")
            with connection.cursor() as cursor:
                sql = connection.ops.savepoint_rollback_sql(savepoint)
                cursor.execute(sql if upper else f"  {sql.replace('ROLLBACK TO SAVEPOINT', 'rollback to savepoint')}")
            say("b")
            transaction.savepoint_commit(savepoint)
        assert len(rows()) == 2
        assert told() == ["a", "b"]

    def test_that_were_begun_before_the_block_take_all_of_it(self, rows):
        with transaction.atomic():
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                with together():
                    say("ghost")
                raise ZeroDivisionError
            with together():
                say("kept")
        assert len(rows()) == 1

    def test_that_are_released_are_rolled_back_with_the_one_around_them(self, rows, told):
        with together():
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                with transaction.atomic():
                    say("ghost")
                raise ZeroDivisionError
            say("kept")
        assert told() == ["kept"]

    def test_a_block_in_a_block_is_written_by_the_outer_one_and_rolled_back_by_itself(self, rows, told):
        with CaptureQueriesContext(connection) as queries, together():
            with together():
                say("a")
            with pytest.raises(ZeroDivisionError), together():
                say("ghost")
                raise ZeroDivisionError
            say("b")
        assert inserts(queries) == 2, "before the savepoint, and at the end"
        assert told() == ["a", "b"]

    def test_what_is_doomed_is_rolled_back_without_a_word_as_it_would_be(self, rows):
        with together():
            say("ghost")
            transaction.set_rollback(True)
        with together():
            say("ghost")
            with pytest.raises(ZeroDivisionError), transaction.atomic(savepoint=False):
                raise ZeroDivisionError
        assert rows() == []
        assert not list(bulk._batches)

    def test_what_was_doomed_and_is_not_any_more_is_written(self, rows):
        with together():
            say("one")
            transaction.set_rollback(True)
            transaction.set_rollback(False)
        assert len(rows()) == 1

    def test_an_error_of_the_database_in_a_savepoint_is_over_with_it(self, rows, told):
        with together():
            say("a")
            with pytest.raises(DatabaseError), transaction.atomic():
                say("ghost")
                with connection.cursor() as cursor:
                    cursor.execute("SELECT 1 FROM nowhere")
            say("b")
        assert told() == ["a", "b"]


@real
class TestFailures:
    def test_rows_that_cannot_be_written_roll_the_block_back(self, rows, memory, outbox):
        outbox.check("default")
        with without_table(), pytest.raises(DatabaseError), together():
            Customer.objects.create(name="Ada")
            say("one")
        assert (rows(), memory.payloads, Customer.objects.count()) == ([], [], 0)
        assert not list(bulk._batches)

    def test_also_where_the_error_is_swallowed(self, rows, memory, outbox, monkeypatch):
        """It reaches whoever sends the five-hundredth, and is about all of them."""
        monkeypatch.setattr(bulk, "MOST", 3)
        outbox.check("default")
        with without_table(), together():
            Customer.objects.create(name="Ada")
            answers = [order_placed.send_robust(sender=None, item=number)[0][1] for number in range(3)]
        assert isinstance(answers[-1], DatabaseError)
        assert (rows(), memory.payloads, Customer.objects.count()) == ([], [], 0)


@real
class TestCoalescing:
    def test_rows_that_become_one_before_they_are_written_are_one(self, link, rows, memory):
        link(post_save, on_instance, Customer, durable=True, coalesce=True)
        with CaptureQueriesContext(connection) as queries, together():
            ada = Customer.objects.create(name="Ada")
            for _ in range(3):
                ada.save(update_fields=["name"])
        assert inserts(queries) == 1
        assert len(rows()) == 1
        memory.deliver()
        [(_, _, kwargs)] = receivers.calls
        assert (kwargs["created"], kwargs["update_fields"]) == (True, None)

    def test_also_over_savepoints(self, link, rows, memory):
        link(post_save, on_instance, Customer, durable=True, coalesce=True)
        with together():
            ada = Customer.objects.create(name="Ada")
            with transaction.atomic():
                ada.save()
                ada.save()
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                ada.save()
                raise ZeroDivisionError
            ada.save()
        assert len(rows()) == 1
        memory.deliver()
        assert [kwargs["created"] for _, _, kwargs in receivers.calls] == [True]

    def test_what_was_waiting_and_rolled_back_by_hand_is_not_written_with_what_follows(self, link, rows, memory):
        link(post_save, on_instance, Customer, durable=True, coalesce=True)
        ada = Customer(pk=1, name="Ada")
        Customer.objects.bulk_create([ada])
        with together():
            savepoint = savepoint_create()
            ada.save(update_fields=["name"])
            transaction.savepoint_rollback(savepoint)
            ada.save(update_fields=["email"])
        memory.deliver()
        assert [kwargs["update_fields"] for _, _, kwargs in receivers.calls] == [frozenset({"email"})]
        assert len(rows()) == 1


class TestInsideTestCase(TestCase):
    def test_a_hook_that_is_called_in_the_block_finds_its_rows(self):
        with together():
            with self.captureOnCommitCallbacks(execute=True):
                say("one")
            assert OutboxDelivery.objects.count() == 1
