"""What was read ahead for a batch does not count beyond a change, and what makes no sense is judged as without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from deferred_signals.batch import text_of
from deferred_signals.batch_run import run_all
from deferred_signals.codec import Encoder
from deferred_signals.envelope import seal
from deferred_signals.exceptions import DecodeError, NewerWire, UnknownName
from deferred_signals.strict_json import dump
from tests import receivers
from tests.ahead import customers, got, reads_ahead, selects, send, succeeded  # noqa: F401 - a fixture
from tests.shop.models import (
    Article,
    Customer,
    GiftOrder,
    LuxuryOrder,
    Order,
    Regular,
)

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.usefixtures("reads_ahead"),
]

Inquire = Callable[..., None]


def save(row: Customer) -> None:
    row.name = "changed"
    row.save()


def update(row: Customer) -> None:
    Customer.objects.filter(pk=row.pk).update(name="changed")


def bulk_update(row: Customer) -> None:
    row.name = "changed"
    Customer.objects.bulk_update([row], ["name"])


def upsert(row: Customer) -> None:
    Customer.objects.bulk_create(
        [Customer(pk=row.pk, name="changed")],
        update_conflicts=True,
        update_fields=["name"],
        unique_fields=["id"] if connection.features.supports_update_conflicts_with_target else None,
    )


def raw(row: Customer) -> None:
    with connection.cursor() as cursor:
        cursor.execute("update shop_customer set name = 'changed' where id = %s", [row.pk])


def shouted(row: Customer) -> None:
    table = "SHOP_CUSTOMER" if connection.vendor == "sqlite" else "shop_customer"
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET name = 'changed' WHERE id = %s", [row.pk])


def many(row: Customer) -> None:
    with connection.cursor() as cursor:
        cursor.executemany("/* by hand */ UPDATE shop_customer SET name = %s WHERE id = %s", [["changed", row.pk]])


def through_a_proxy(row: Customer) -> None:
    Regular.objects.filter(pk=row.pk).update(name="changed")


def in_a_transaction(row: Customer) -> None:
    with transaction.atomic(), transaction.atomic():
        update(row)


class TestARowThatAnEarlierMemberChanged:
    @pytest.mark.parametrize(
        "change",
        [save, update, bulk_update, upsert, raw, shouted, many, through_a_proxy, in_a_transaction],
        ids=lambda change: change.__name__,
    )
    def test_it_is_read_anew(self, change, calls):
        one, two, three = customers(3)

        def inquire(instance: Any, **kwargs: Any) -> None:
            if instance == one:
                change(Customer.objects.get(pk=two.pk))

        receivers.inquiries.append(inquire)
        assert succeeded(run_all(send(one, two, three)))
        assert [instance.name for instance in got(calls)] == ["0", "changed", "2"]

    def test_it_is_read_anew_though_its_table_is_named_with_its_schema_and_the_statement_quotes_otherwise(
        self, calls, monkeypatch
    ):
        """A schema in ``db_table`` is given with its quotation marks, for Django writes only the outer ones."""
        schema = {"sqlite": "main", "postgresql": "public"}.get(connection.vendor, connection.settings_dict["NAME"])
        mark = connection.ops.quote_name("x")[0]
        one, two, three = customers(3)
        monkeypatch.setattr(Customer._meta, "db_table", f"{schema}{mark}.{mark}shop_customer")

        def inquire(instance: Any, **kwargs: Any) -> None:
            if instance == one:
                with connection.cursor() as cursor:
                    cursor.execute(f"UPDATE {schema}.shop_customer SET name = 'changed' WHERE id = %s", [two.pk])

        receivers.inquiries.append(inquire)
        assert succeeded(run_all(send(one, two, three)))
        assert [instance.name for instance in got(calls)] == ["0", "changed", "2"]

    def test_one_that_it_deleted_is_gone(self, calls):
        one, two, three = customers(3)

        def inquire(instance: Any, **kwargs: Any) -> None:
            if instance == one:
                Customer.objects.filter(pk=two.pk).delete()

        receivers.inquiries.append(inquire)
        ended = run_all(send(one, two, three))
        assert [outcome.state for _, outcome in ended] == ["succeeded", "discarded", "succeeded"]

    def test_one_that_it_deleted_and_made_again_is_the_new_one(self, calls):
        one, two = customers(2)

        def inquire(instance: Any, **kwargs: Any) -> None:
            if instance == one:
                Customer.objects.filter(pk=two.pk).delete()
                Customer.objects.create(pk=two.pk, name="again")

        receivers.inquiries.append(inquire)
        assert succeeded(run_all(send(one, two)))
        assert got(calls)[1].name == "again"

    def test_a_change_that_is_rolled_back_is_none(self, calls):
        one, two = customers(2)

        def inquire(instance: Any, **kwargs: Any) -> None:
            if instance == one:
                with transaction.atomic():
                    update(two)
                    transaction.set_rollback(True)

        receivers.inquiries.append(inquire)
        assert succeeded(run_all(send(one, two)))
        assert got(calls)[1].name == "1"

    def test_a_change_of_other_tables_costs_no_query(self, calls):
        found = customers(5)

        def inquire(instance: Any, **kwargs: Any) -> None:
            Article.objects.create(title=instance.name)

        receivers.inquiries.append(inquire)
        payload = send(*found)
        with CaptureQueriesContext(connection) as queries:
            assert succeeded(run_all(payload))
        assert len(selects(queries)) == 1

    def test_a_change_in_another_database_is_none_of_this_one(self, calls):
        found = customers(5)
        Customer.objects.using("other").create(pk=found[1].pk, name="other")

        def inquire(instance: Any, **kwargs: Any) -> None:
            Customer.objects.using("other").update(name="changed")

        receivers.inquiries.append(inquire)
        payload = send(*found)
        with CaptureQueriesContext(connection) as queries:
            assert succeeded(run_all(payload))
        assert len(selects(queries)) == 1
        assert [instance.name for instance in got(calls)] == ["0", "1", "2", "3", "4"]

    @pytest.mark.parametrize("label", ["shop.order", "shop.giftorder"])
    def test_a_change_of_its_parents_table_is_one_of_it(self, label, calls):
        ada = Customer.objects.create(name="Ada")
        gifts = [LuxuryOrder.objects.create(customer=ada, greeting="Hi", ribbon="red") for _ in range(2)]

        def inquire(instance: Any, **kwargs: Any) -> None:
            if instance.pk == gifts[0].pk and label == "shop.order":
                Order.objects.filter(pk=gifts[1].pk).update(total=5)
            elif instance.pk == gifts[0].pk:
                GiftOrder.objects.filter(pk=gifts[1].pk).update(greeting="Ho")

        receivers.inquiries.append(inquire)
        assert succeeded(run_all(send(*gifts)))
        last = got(calls)[1]
        assert (last.total, last.greeting) == ((5, "Hi") if label == "shop.order" else (0, "Ho"))

    def test_one_that_failed_halfway_through_is_not_believed(self, calls):
        one, two = customers(2)

        def inquire(instance: Any, **kwargs: Any) -> None:
            if instance == one:
                update(two)
                raise ValueError

        receivers.inquiries.append(inquire)
        ended = run_all(send(one, two))
        assert [outcome.state for _, outcome in ended] == ["retry", "succeeded"]
        assert got(calls)[1].name == "changed"


class TestWhatMakesNoSense:
    """It is judged as without a batch, and keeps nobody else from his row."""

    def of(self, *references: Any) -> str:
        """A batch for these references, as they are, and two good ones."""
        encoder = Encoder()
        good = [encoder.encode(one) for one in customers(2)]
        members = [
            {
                "v": 1, "id": str(number), "at": 1790000000, "to": "tests.receivers.curious",
                "signal": "tests.test_prefetch.bell", "sender": None, "kwargs": {"instance": data}, "context": {},
            }
            for number, data in enumerate([good[0], *references, good[1]])
        ]  # fmt: skip
        return seal(text_of(dump(member) for member in members))

    @pytest.mark.parametrize(
        ("data", "error"),
        [
            (["shop.nothing", 1, "default"], UnknownName),
            (["nonsense", 1, "default"], UnknownName),
            (["shop.customer", 1, "elsewhere"], UnknownName),
            (["shop.customer", "nonsense", "default"], DecodeError),
            (["shop.customer", {"$unknown": 1}, "default"], NewerWire),
            (["shop.customer", {"$tuple": []}, "default"], DecodeError),
            (["shop.customer", [1, 2], "default"], DecodeError),
            (["shop.line", 5, "default"], DecodeError),
            (["shop.customer"], DecodeError),
            ([1, 2, 3], DecodeError),
            ("shop.customer", DecodeError),
            (None, DecodeError),
        ],
        ids=str,
    )
    def test_a_reference_to_nothing_of_ours(self, data, error, calls):
        ended = run_all(self.of({"$ref": data}, {"$ref": data}))
        assert [outcome.state for _, outcome in ended][::3] == ["succeeded"] * 2
        assert [one.name for one in got(calls)] == ["0", "1"]
        for _, outcome in ended[1:3]:
            assert isinstance(outcome.error, error)
            assert outcome.state in {"dead", "retry"}

    @pytest.mark.parametrize("key", [2**63, 2**70, -(2**70)])
    def test_a_key_that_no_database_could_hold(self, key, calls):
        data = ["shop.customer", Encoder().encode(key), "default"]
        ended = run_all(self.of({"$ref": data}, {"$ref": data}))
        assert [outcome.state for _, outcome in ended][::3] == ["succeeded"] * 2
        assert {outcome.state for _, outcome in ended[1:3]} <= {"discarded", "dead"}
        assert [one.name for one in got(calls)] == ["0", "1"]

    def test_a_row_that_cannot_be_made_is_the_fault_of_those_that_ask_for_it(self, calls, monkeypatch):
        found = customers(3)
        payload = send(*found)
        load = Customer.from_db.__func__  # type: ignore[attr-defined]

        def from_db(cls: Any, *given: Any, **more: Any) -> Any:
            made = load(cls, *given, **more)
            if made.name == "1":
                raise ArithmeticError("it cannot be decrypted")
            return made

        monkeypatch.setattr(Customer, "from_db", classmethod(from_db))
        ended = run_all(payload)
        assert [outcome.state for _, outcome in ended] == ["succeeded", "dead", "succeeded"]

    def test_a_database_that_is_away_holds_each_up(self, calls, monkeypatch):
        payload = send(*customers(3))

        def away(*args: Any) -> None:
            raise OperationalError("no route to host")

        with connection.execute_wrapper(away):
            ended = run_all(payload)
        assert [outcome.state for _, outcome in ended] == ["retry"] * 3
        assert {outcome.reason for _, outcome in ended} == {"the database did not answer"}
