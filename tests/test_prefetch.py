"""The rows of a batch are read together, a little ahead; no receiver gets one that is not the row as it is."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections
from django.db.models import Model
from django.db.models.signals import post_init, post_save
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from deferred_signals import batch, prefetch
from deferred_signals.batch_run import run_all
from deferred_signals.codec import Encoder
from deferred_signals.envelope import read
from deferred_signals.prefetch import Rows, references_in
from deferred_signals.references import Reference
from tests import receivers
from tests.ahead import customers, elsewhere, got, in_schema, reads_ahead, selects, send, succeeded  # noqa: F401 - a fixture
from tests.shop.models import (
    Account,
    Article,
    Code,
    Customer,
    GiftOrder,
    Line,
    Order,
    Regular,
    Ticket,
    Voucher,
    WrappedOrder,
    Wrapping,
)

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.usefixtures("reads_ahead"),
]

Inquire = Callable[..., None]


class TestHowManyQueries:
    def test_rows_of_one_model_take_one(self, calls):
        found = customers(30)
        payload = send(*found)
        with CaptureQueriesContext(connection) as queries:
            assert succeeded(run_all(payload))
        assert len(queries) == 1
        assert [one.name for one in got(calls)] == [one.name for one in found]

    def test_rows_of_two_models_take_one_each(self, calls):
        found = customers(5)
        articles = [Article.objects.create(title=str(number)) for number in range(5)]
        payload = send(*({"who": who, "what": [what]} for who, what in zip(found, articles, strict=True)), name="sale")
        with CaptureQueriesContext(connection) as queries:
            assert succeeded(run_all(payload))
        assert len(queries) == 2
        assert [(sale["who"], sale["what"][0]) for sale in got(calls, "sale")] == list(
            zip(found, articles, strict=True)
        )

    def test_rows_of_two_databases_take_one_each(self, calls):
        found = [
            *customers(3),
            *(Customer.objects.using("other").create(id=number, name=f"other {number}") for number in (1, 2, 3)),
        ]
        payload = send(found, found, name="instances")
        with CaptureQueriesContext(connection) as queries, CaptureQueriesContext(connections["other"]) as others:
            assert succeeded(run_all(payload))
        assert (len(queries), len(others)) == (1, 1)
        for instances in got(calls, "instances"):
            assert [(one.name, one._state.db) for one in instances] == [(one.name, one._state.db) for one in found]

    def test_one_row_by_itself_is_read_when_it_is_asked_for(self, calls):
        (customer,) = customers(1)
        payload = send(customer, 1, 2)
        with CaptureQueriesContext(connection) as queries:
            assert succeeded(run_all(payload))
        assert len(queries) == 1
        assert got(calls) == [customer, 1, 2]

    def test_without_rows_there_is_none(self):
        payload = send(1, [2], {"three": {"$ref": "a dict of the sender's"}})
        with CaptureQueriesContext(connection) as queries:
            assert succeeded(run_all(payload))
        assert len(queries) == 0

    def test_a_row_that_several_ask_for_is_read_once_and_each_has_its_own(self, calls):
        one, two = customers(2)
        payload = send(one, two, one, one)
        with CaptureQueriesContext(connection) as queries:
            assert succeeded(run_all(payload))
        assert len(queries) == 1
        instances = got(calls)
        assert instances == [one, two, one, one]
        assert len({id(instance) for instance in instances}) == 4
        assert len({id(instance._state) for instance in instances}) == 4

    def test_what_one_receiver_does_to_its_object_the_next_does_not_see(self):
        tea = Article.objects.create(title="Tea", tags={"hot": True})
        milk = Article.objects.create(title="Milk")
        found: list[Any] = []

        def inquire(instance: Article, **kwargs: Any) -> None:
            found.append((instance.stock, dict(instance.tags)))
            instance.stock = 99
            instance.tags["cold"] = True

        receivers.inquiries.append(inquire)
        assert succeeded(run_all(send(tea, tea, milk, tea)))
        assert found == [(0, {"hot": True}), (0, {"hot": True}), (0, {}), (0, {"hot": True})]

    def test_to_make_their_objects_makes_no_deliveries(self, link, memory, calls):
        """As in decoding: what Django or the project sends when an instance is made is no news."""
        link(post_save, receivers.first)

        def made(instance: Customer, **kwargs: Any) -> None:
            post_save.send(Customer, instance=instance)

        payload = send(*customers(2))
        memory.payloads.clear()
        post_init.connect(made, sender=Customer)
        try:
            assert succeeded(run_all(payload))
        finally:
            post_init.disconnect(made, sender=Customer)
        assert len(got(calls)) == 2
        assert not memory.payloads

    def test_one_whose_object_cannot_be_copied_is_read_again(self, calls, monkeypatch):
        def refuse(self: Any, memo: Any) -> None:
            raise RuntimeError("it holds a lock")

        one, two = customers(2)
        payload = send(one, two, one)
        monkeypatch.setattr(Customer, "__deepcopy__", refuse, raising=False)
        assert succeeded(run_all(payload))
        assert got(calls) == [one, two, one]


class TestKeys:
    def make(self, kind: str) -> list[Model]:
        ada = Customer.objects.create(name="Ada")
        makers: dict[str, Callable[[int], Model]] = {
            "uuid": lambda number: Order.objects.create(customer=ada),
            "text": lambda number: Article.objects.create(title=f"tea {number}"),
            "own type": lambda number: Ticket.objects.create(code=Code(f"T{number}")),
            "composite": lambda number: Line.objects.create(order_id=uuid.UUID(int=7), number=number),
            "composite of an own type": lambda number: Voucher.objects.create(code=Code("V"), number=number),
            "of a parent": lambda number: GiftOrder.objects.create(customer=ada, greeting="Hi"),
            "of two parents": lambda number: WrappedOrder.objects.create(customer=ada, colour="red"),
            "proxy": lambda number: Regular.objects.create(name=str(number)),
            "hidden from the default manager": lambda number: Article._base_manager.create(
                title=f"tea {number}", hidden=True
            ),
        }
        return [makers[kind](number) for number in range(3)]

    @pytest.mark.parametrize(
        "kind",
        [
            "uuid", "text", "own type", "composite", "composite of an own type", "of a parent", "of two parents",
            "proxy", "hidden from the default manager",
        ],
    )  # fmt: skip
    def test_rows_of_any_key_are_read_together(self, kind, calls):
        rows = self.make(kind)
        payload = send(*rows, *rows)
        with CaptureQueriesContext(connection) as queries:
            assert succeeded(run_all(payload))
        assert len(queries) == 1
        assert [(type(one), one.pk) for one in got(calls)] == [(type(one), one.pk) for one in [*rows, *rows]]

    def test_keys_that_are_equal_may_be_those_of_two_rows(self, calls):
        """1 and True are, and as titles they are "1" and "True"."""
        titles: list[Any] = [1, True, 1.0, "2"]
        found = [Article.objects.create(title=title, stock=stock) for stock, title in enumerate(titles)]
        Article.objects.filter(title="1.0").delete()
        ended = run_all(send(*found))
        assert [outcome.state for _, outcome in ended] == ["succeeded", "succeeded", "discarded", "succeeded"]
        assert [(one.title, one.stock) for one in got(calls)] == [("1", 0), ("True", 1), ("2", 3)]

    @pytest.mark.parametrize("count", [1, 2])
    def test_a_key_that_two_rows_have_is_none(self, count):
        """As in a view. Django's own ``get`` refuses to choose one of them."""
        payload = send(*customers(2)[:count], *[3] * (2 - count))
        with connection.cursor() as cursor:
            cursor.execute(
                "CREATE VIEW twice_customer AS SELECT * FROM shop_customer UNION ALL SELECT * FROM shop_customer"
            )
        try:
            with in_schema("twice"):
                ended = run_all(payload)
        finally:
            with connection.cursor() as cursor:
                cursor.execute("DROP VIEW twice_customer")
        reasons = [outcome.reason for _, outcome in ended if outcome.state == "dead"]
        assert reasons == ["A value tagged '$ref' cannot be made again (MultipleObjectsReturned)."] * count

    def test_a_row_and_its_parent_are_two(self, calls):
        wrapped = [WrappedOrder.objects.create(customer=customers(1)[0], colour="red") for _ in range(2)]
        orders = list(Order.objects.all())
        wrappings = list(Wrapping.objects.all())
        assert succeeded(run_all(send(*wrapped, *orders, *wrappings)))
        assert [type(one) for one in got(calls)] == [WrappedOrder] * 2 + [Order] * 2 + [Wrapping] * 2

    @override_settings(AUTH_USER_MODEL="shop.Account")
    def test_swapped_user_models_are_what_they_are_at_the_worker(self, calls):
        accounts = [Account.objects.create(name=name) for name in ("Ada", "Bob")]
        assert succeeded(run_all(send(*accounts)))
        assert got(calls) == accounts
        assert User._meta.swapped


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class TestHowLongItCounts:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> Clock:
        clock = Clock()
        monkeypatch.setattr(prefetch, "time", clock)
        monkeypatch.setattr(prefetch, "FRESH", 0.05)
        return clock

    def slow(self, clock: Clock, seconds: timedelta) -> None:
        def inquire(**kwargs: Any) -> None:
            clock.now += seconds.total_seconds()

        receivers.inquiries.append(inquire)

    def test_a_row_that_was_read_too_long_ago_is_read_again(self, clock, calls):
        found = customers(3)

        def inquire(instance: Any, **kwargs: Any) -> None:
            clock.now += 0.06
            elsewhere(found[2].pk)

        receivers.inquiries.append(inquire)
        assert succeeded(run_all(send(*found)))
        assert [one.name for one in got(calls)] == ["0", "1", "changed"]

    def test_within_that_time_a_change_by_another_process_is_not_seen(self, clock, calls):
        found = customers(2)
        receivers.inquiries.append(lambda **kwargs: elsewhere(found[1].pk))
        assert succeeded(run_all(send(*found)))
        assert [one.name for one in got(calls)] == ["0", "1"]

    def test_behind_slow_receivers_few_rows_are_read_in_vain(self, clock, calls):
        found = customers(20)
        self.slow(clock, timedelta(seconds=0.06))
        payload = send(*found)
        with CaptureQueriesContext(connection) as queries:
            assert succeeded(run_all(payload))
        (whole, *windows) = selects(queries)
        assert whole.count(",") > 20
        # The first of a window is one receiver's; twice what was used of the last one is read.
        assert all(" IN (" in window or " = " in window for window in windows)
        assert len(windows) == 19

    def test_behind_fast_receivers_the_window_grows_again(self, clock, calls):
        found = customers(100)
        self.slow(clock, timedelta(seconds=0.006))  # eight of them in a window
        payload = send(*found)
        with CaptureQueriesContext(connection) as queries:
            assert succeeded(run_all(payload))
        assert len(queries) <= 100 / 8 + 2

    def test_what_was_read_for_others_is_forgotten(self, clock):
        found = customers(4)
        rows = Rows([read(one) for one in batch.read(send(*found))])
        rows.come_to(0)
        assert len(rows._ahead) == 4
        clock.now = 1
        rows.come_to(3)
        assert not rows._ahead
        assert rows.fetch(Reference("shop.customer", found[3].pk, "default")) == found[3]


class TestReferences:
    def test_they_are_found_wherever_they_stand(self):
        one, two = customers(2)
        data = Encoder().encode({"a": [one, (two, {3: {4}})], "b": {"$ref": ["x", 1, "default"]}})
        assert list(references_in(data)) == [
            ("shop.customer", one.pk, "default"), ("shop.customer", two.pk, "default")
        ]  # fmt: skip
