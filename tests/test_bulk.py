"""``deferred_signals.bulk``: deliveries for what sends no signal."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import django
import pytest
from django.apps.registry import Apps
from django.core.exceptions import FieldDoesNotExist, FieldError
from django.db import IntegrityError, NotSupportedError, connection, connections, models, transaction
from django.db.models import Count, F, Value
from django.db.models.functions import Concat
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from django.test.utils import CaptureQueriesContext, isolate_apps
from django.utils.functional import SimpleLazyObject

from deferred_signals import NotCarried, Signal, connect, disconnect, keeping, suppress
from deferred_signals.bulk import bulk_create, bulk_update, companions, send_for, sending, update
from deferred_signals.exceptions import EncodeError
from deferred_signals.outbox import together
from deferred_signals.outbox.backend import DatabaseOutbox
from deferred_signals.outbox.models import OutboxDelivery
from tests.receivers import first, on_changes, on_instance, on_item, second
from tests.shop.models import Article, Customer, GiftOrder, Line, Order, Regular

reindexed: Any = Signal()

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

#: Seconds after which a test gives up.
DEADLINE = 30.0


@pytest.fixture
def told(memory, calls) -> Any:
    """What the receivers are called with when the deliveries are run; all of it, or the argument of that name."""

    def run(name: str = "") -> list[Any]:
        while memory.payloads:  # who answers a doorbell may pass some on
            assert {outcome.state for _, outcome in memory.deliver()} == {"succeeded"}
        found = [kwargs[name] if name else kwargs for _, _, kwargs in calls]
        calls.clear()
        return found

    return run


def names(instances: list[Any]) -> list[str]:
    return [instance.name for instance in instances]


@pytest.fixture
def customers() -> list[Customer]:
    return [Customer.objects.create(name=name) for name in ("Ada", "Bob", "Eve")]


class Replica:
    """Reads come from ``other``, writes go to ``default``."""

    def db_for_read(self, model: type[models.Model], **hints: Any) -> str:
        return "other"

    def db_for_write(self, model: type[models.Model], **hints: Any) -> str:
        return "default"


class Shard:
    """The rows of customers with a hint of one are in its database."""

    def db_for_write(self, model: type[models.Model], instance: Any = None, **hints: Any) -> str | None:
        return "other" if isinstance(instance, Customer) else None

    def allow_relation(self, *args: Any, **hints: Any) -> bool:
        return True


class TestSendFor:
    def test_tells_the_deferred_receivers_of_each_row_and_not_the_inline_ones(self, link, told, calls, customers):
        link(post_save, on_instance, Customer)
        link(post_save, first, Customer, deferred=False)
        deliveries = send_for(Customer.objects.order_by("name"), post_save)
        assert [delivery.receiver for delivery in deliveries] == ["tests.receivers.on_instance"] * 3
        assert calls == []
        assert names(told("instance")) == ["Ada", "Bob", "Eve"]

    @pytest.mark.parametrize("signal", [pre_save, post_save, pre_delete, post_delete])
    def test_has_the_arguments_that_django_itself_sends(self, link, told, signal):
        ada = Customer.objects.create(name="Ada")
        link(signal, on_instance, Customer)
        send_for([ada], signal)
        [ours] = told()
        ada.delete() if signal in {pre_delete, post_delete} else ada.save()
        [djangos] = told()
        for kwargs in (ours, djangos):
            assert vars(kwargs.pop("instance"))["name"] == "Ada"
            assert getattr(kwargs.pop("origin", ada), "name", "") == "Ada"
        assert ours == djangos

    def test_gives_a_queryset_as_the_origin_of_a_deletion(self, link, told, customers):
        link(post_delete, on_instance, Customer)
        send_for(Customer.objects.filter(name="Ada"), post_delete)
        [origin] = told("origin")
        assert isinstance(origin, NotCarried)

    def test_takes_what_is_given_instead(self, link, told, customers):
        link(post_save, on_instance, Customer)
        send_for(customers[:1], post_save, created=True, update_fields=frozenset({"name"}), reason="moved")
        [kwargs] = told()
        assert (kwargs["created"], kwargs["update_fields"], kwargs["reason"]) == (True, {"name"}, "moved")

    def test_sends_a_signal_of_ones_own(self, link, told, customers):
        link(reindexed, on_instance)
        send_for(customers, reindexed, index="main")
        received = told()
        assert names([kwargs.pop("instance") for kwargs in received]) == ["Ada", "Bob", "Eve"]
        assert received == [{"signal": reindexed, "index": "main"}] * 3

    def test_goes_by_instances_and_then_by_the_order_of_connection(self, link, customers):
        link(post_save, second, Customer)
        link(post_save, first)
        link(pre_save, on_instance)
        link(post_save, on_item, Customer, when=lambda **kwargs: False)
        assert [delivery.receiver[16:] for delivery in send_for(customers[:2], post_save)] == [
            "second", "first", "second", "first",
        ]  # fmt: skip

    def test_is_heard_by_those_whom_django_would_tell(self, link, told, calls, customers):
        link(post_save, first, Regular)
        link(post_save, second, "shop.Order")
        link(post_save, on_instance, "shop.Regular")
        assert send_for(customers, post_save) == []
        send_for(Regular.objects.filter(name="Ada"), post_save)
        assert len(told()) == 2
        send_for([Order.objects.create(customer=customers[0])], post_save)
        assert len(told()) == 2  # of the order's own save too
        send_for(GiftOrder.objects.all(), post_save)
        assert told() == []

    def test_is_heard_by_one_that_was_connected_before_its_sender_was_loaded(self, link, told, customers):
        registry = Apps()
        link(post_save, on_instance, "shop.Customer", apps=registry)
        assert send_for(customers, post_save) == []
        registry.register_model("shop", Customer)
        send_for(customers, post_save)
        send_for([Article.objects.create(title="Pot")], post_save)
        assert names(told("instance")) == ["Ada", "Bob", "Eve"]

    def test_is_not_heard_by_one_that_is_disconnected(self, customers):
        connect(post_save, first, Customer, deferred=True)
        disconnect(post_save, first, Customer)
        assert send_for(customers, post_save) == []

    def test_may_have_another_sender_and_a_method_is_one_too(self, link, memory, calls, customers):
        link(reindexed, first, Customer.objects.all)
        link(reindexed, second, Article)
        assert send_for(customers, reindexed) == []
        send_for(customers[:1], reindexed, sender=Customer.objects.all)
        send_for(customers[:1], reindexed, sender=Article)
        memory.deliver()
        assert [name for name, _, _ in calls] == ["first", "second"]
        assert calls[1][1] is Article

    def test_asks_when_of_instances_that_are_loaded(self, link, told, customers):
        link(post_save, on_instance, Customer, when=lambda instance, **kwargs: instance.name != "Bob")
        assert len(send_for(Customer.objects.order_by("name"), post_save)) == 2
        assert names(told("instance")) == ["Ada", "Eve"]

    def test_takes_raw_for_a_fixture(self, link, told, customers):
        link(post_save, first, Customer)
        link(post_save, second, Customer, deliver_raw=True)
        assert [delivery.receiver for delivery in send_for(customers[:1], post_save, raw=True)] == [
            "tests.receivers.second"
        ]

    def test_gives_the_empty_changes_of_a_send_by_hand(self, link, told, customers):
        link(post_save, on_changes, Customer, changes=True)
        send_for(customers[:1], post_save)
        assert told("changes") == [{}]

    def test_asks_the_database_nothing_where_nobody_would_hear(self, link, customers):
        with CaptureQueriesContext(connection) as queries:
            assert send_for(Customer.objects.all(), post_save) == []
            link(post_save, first, Customer)
            with suppress():
                assert send_for(Customer.objects.all(), post_save) == []
        assert len(queries) == 0

    def test_reads_a_queryset_in_pieces_and_keeps_none_of_it(self, link, customers, monkeypatch):
        sizes: list[int] = []

        class Pieces(models.QuerySet[Customer]):
            def iterator(self, chunk_size: int | None = None) -> Iterator[Any]:
                sizes.append(chunk_size or 0)
                return super().iterator(chunk_size)

        monkeypatch.setattr(sending, "CHUNK", 2)
        link(post_save, first, Customer)
        rows = Pieces(Customer)
        assert len(send_for(rows, post_save)) == 3
        assert (sizes, rows._result_cache) == ([2], None)

    def test_takes_instances_one_by_one_as_they_come(self, link, memory, customers):
        link(post_save, first, Customer)
        waiting = []

        def some() -> Iterator[Customer]:
            for customer in customers:
                waiting.append(len(memory.payloads))
                yield customer

        send_for(some(), post_save)
        assert waiting == [0, 1, 2]

    def test_takes_a_lazy_object_for_what_it_wraps(self, link, told, customers):
        link(post_save, on_instance, Customer)
        lazy: Any = SimpleLazyObject(lambda: customers[0])
        send_for([lazy], post_save)
        assert names(told("instance")) == ["Ada"]

    def test_an_error_stops_it_and_in_a_transaction_nothing_has_left(self, link, memory, customers):
        link(reindexed, on_item)
        things = iter([1, object()])
        with pytest.raises(EncodeError, match="item"), transaction.atomic():
            for customer in customers:
                send_for([customer], reindexed, item=next(things))
        assert memory.payloads == []

    def test_refuses_what_is_no_instance_of_a_model(self, link, customers):
        link(post_save, first)
        rows: Any = Customer.objects.values("name")
        with pytest.raises(TypeError, match="not a dict"):
            send_for(rows, post_save)

    def test_says_what_it_takes(self, customers):
        wrong: list[Any] = [Customer, Customer.objects, customers[0]]
        for one in wrong:
            with pytest.raises(TypeError, match=r"Model.objects.all\(\) or \[instance\]; not"):
                send_for(one, post_save)
        with pytest.raises(TypeError, match="a signal after the objects"):
            send_for(customers, "post_save")  # type: ignore[arg-type]

    def test_refuses_to_tell_of_a_save_of_what_has_no_key(self, link):
        link(post_save, first)
        link(pre_save, first)
        for unsaved in (Customer(name="New"), Line(number=1)):
            with pytest.raises(ValueError, match="without a primary key"):
                send_for([unsaved], post_save)
        assert len(send_for([Customer(name="New")], pre_save)) == 1

    def test_awaits_the_commit_of_the_database_that_is_written_to(self, link, told, memory, settings):
        for alias in ("default", "other"):
            Customer(pk=1, name=alias).save(using=alias)
        link(post_save, on_instance, Customer)
        with transaction.atomic(using="other"):
            send_for(Customer.objects.using("other"), post_save)
            assert memory.payloads == []
        [kwargs] = told()
        assert (kwargs["using"], kwargs["instance"].name) == ("other", "other")
        settings.DATABASE_ROUTERS = [f"{__name__}.Replica"]
        with transaction.atomic(using="default"):
            send_for(Customer.objects.all(), post_save)
            assert memory.payloads == []
        [kwargs] = told()
        assert (kwargs["using"], kwargs["instance"].name) == ("default", "default")


class TestBulkCreate:
    def test_tells_of_each_row_as_of_a_new_one(self, link, told):
        link(post_save, on_instance, Customer)
        given = [Customer(name="Ada"), Customer(name="Bob")]
        made = bulk_create(Customer.objects, iter(given), batch_size=1)
        assert made == given
        received = told()
        assert [kwargs.pop("instance") for kwargs in received] == list(Customer.objects.order_by("pk"))
        assert (
            received
            == [{"signal": post_save, "created": True, "raw": False, "using": "default", "update_fields": None}] * 2
        )

    def test_is_rolled_back_with_its_deliveries(self, link, memory):
        link(post_save, on_instance, Customer)
        with pytest.raises(RuntimeError), transaction.atomic():
            bulk_create(Customer.objects, [Customer(name="Ada")])
            raise RuntimeError
        assert (Customer.objects.count(), memory.payloads) == (0, [])

    def test_is_taken_back_by_an_error_of_a_send_and_the_transaction_around_goes_on(self, link, memory):
        def when(instance: Customer, **kwargs: Any) -> bool:
            return bool(1 / len(instance.name))

        link(post_save, on_instance, Customer, when=when)
        with transaction.atomic():
            Customer.objects.create(name="Before")
            with pytest.raises(ZeroDivisionError):
                bulk_create(Customer.objects, [Customer(name="Ada"), Customer(name="")])
        assert names(list(Customer.objects.all())) == ["Before"]
        assert len(memory.payloads) == 1

    def test_sends_nothing_where_the_database_refuses(self, link, memory):
        link(post_save, on_instance, Article)
        with pytest.raises(IntegrityError):
            bulk_create(Article.objects, [Article(title="Pot"), Article(title="Pot")])
        assert (Article.objects.count(), memory.payloads) == (0, [])

    def test_of_a_proxy_is_told_to_the_proxys_receivers(self, link, told):
        link(post_save, on_instance, Regular)
        link(post_save, first, Customer)
        bulk_create(Regular.objects, [Regular(name="Ada")])
        [instance] = told("instance")
        assert type(instance) is Regular

    def test_goes_to_the_database_that_is_asked_for(self, link, told):
        link(post_save, on_instance, Customer)
        bulk_create(Customer.objects.using("other"), [Customer(name="Ada")])
        bulk_create(Customer.objects.db_manager("other"), [Customer(name="Bob")])
        assert [(kwargs["using"], kwargs["instance"]._state.db) for kwargs in told()] == [("other", "other")] * 2
        assert Customer.objects.using("other").count() == 2

    def test_goes_where_the_routers_say(self, link, told, settings):
        link(post_save, on_instance, Order)
        ada = Customer.objects.using("other").create(name="Ada")
        settings.DATABASE_ROUTERS = [f"{__name__}.Replica"]
        [made] = bulk_create(Customer.objects.all(), [Customer(name="Ada")])
        assert made._state.db == "default"
        settings.DATABASE_ROUTERS = [f"{__name__}.Shard"]
        orders: Any = ada.order_set
        bulk_create(orders, [Order(customer=ada)])
        assert told("using") == ["other"]

    def test_uses_the_methods_of_a_manager_of_ones_own(self, link, told):
        class Shouting(models.Manager[Customer]):
            def bulk_create(self, objs: Any, *args: Any, **options: Any) -> Any:
                for obj in objs:
                    obj.name = obj.name.upper()
                return super().bulk_create(objs, *args, **options)

        manager = Shouting()
        manager.model = Customer
        link(post_save, on_instance, Customer)
        bulk_create(manager, [Customer(name="Ada")])
        assert names(told("instance")) == ["ADA"]

    @pytest.mark.parametrize(
        "options",
        [
            {"ignore_conflicts": True},
            {"update_conflicts": True, "update_fields": ["stock"], "unique_fields": ["title"]},
        ],
    )
    def test_refuses_before_writing_what_does_not_say_which_rows_it_makes(self, options):
        with CaptureQueriesContext(connection) as queries, pytest.raises(ValueError, match="send_for"):
            bulk_create(Article.objects, [Article(title="Pot")], **options)
        assert len(queries) == 0

    def test_refuses_before_writing_where_keys_do_not_come_back(self, link, told, customers, monkeypatch):
        monkeypatch.setattr(type(connection.features), "can_return_rows_from_bulk_insert", False)
        with CaptureQueriesContext(connection) as queries, pytest.raises(NotSupportedError, match="UUIDField"):
            bulk_create(Customer.objects, [Customer(pk=10**9, name="Ada"), Customer(name="Bob")])
        assert len(queries) == 0
        link(post_save, on_instance)
        bulk_create(Customer.objects, [Customer(pk=10**9, name="Ada")])
        bulk_create(Order.objects, [Order(customer=customers[0])])
        assert [instance.pk for instance in told("instance")] == [10**9, Order.objects.get().pk]

    @isolate_apps("tests.shop")
    def test_takes_back_rows_whose_keys_the_database_does_not_tell(self, link):
        class Coupon(models.Model):
            code = models.IntegerField(primary_key=True, db_default=Value(7))

            class Meta:
                app_label = "shop"

        with connection.schema_editor() as editor:
            editor.create_model(Coupon)
        try:
            link(post_save, first)
            if django.VERSION >= (6,):  # it asks the database for what only that knows
                assert [made.pk for made in bulk_create(Coupon._default_manager, [Coupon()])] == [7]
                return
            with pytest.raises(ValueError, match="without a primary key"):
                bulk_create(Coupon._default_manager, [Coupon()])
            assert not Coupon._default_manager.exists()
        finally:
            with connection.schema_editor() as editor:
                editor.delete_model(Coupon)

    def test_leaves_to_django_what_django_refuses(self, customers):
        with pytest.raises(ValueError, match="multi-table"):
            bulk_create(GiftOrder.objects, [GiftOrder(customer=customers[0], greeting="Hi")])

    def test_of_nothing_is_nothing(self, link, memory):
        link(post_save, first)
        assert bulk_create(Customer.objects, []) == []
        assert memory.payloads == []

    def test_of_composite_keys(self, link, told, customers):
        link(post_save, on_instance, Line)
        order = Order.objects.create(customer=customers[0])
        bulk_create(Line.objects, [Line(order_id=order.pk, number=1), Line(order_id=order.pk, number=2)])
        assert [instance.pk for instance in told("instance")] == [(order.pk, 1), (order.pk, 2)]


class TestBulkUpdate:
    def test_tells_of_each_row_which_fields_were_written(self, link, told, customers):
        link(post_save, on_instance, Customer)
        for customer in customers:
            customer.name, customer.email = customer.name.upper(), "not written"
        assert bulk_update(Customer.objects, iter(customers), (name for name in ["name"]), batch_size=2) == 3
        received = told()
        instances = [kwargs.pop("instance") for kwargs in received]
        assert [(instance.name, instance.email) for instance in instances] == [("ADA", ""), ("BOB", ""), ("EVE", "")]
        assert (
            received
            == [
                {
                    "signal": post_save,
                    "created": False,
                    "raw": False,
                    "using": "default",
                    "update_fields": frozenset({"name"}),
                }
            ]
            * 3
        )

    def test_is_rolled_back_with_its_deliveries(self, link, memory, customers):
        link(post_save, on_instance, Customer)
        customers[0].name = "Lovelace"
        with pytest.raises(RuntimeError), transaction.atomic():
            bulk_update(Customer.objects, customers, ["name"])
            raise RuntimeError
        assert (Customer.objects.filter(name="Ada").count(), memory.payloads) == (1, [])

    def test_does_not_tell_of_rows_that_are_gone_or_not_in_the_queryset(self, link, told, customers, monkeypatch):
        monkeypatch.setattr(companions, "CHUNK", 2)
        link(post_save, on_instance, Customer)
        Customer.objects.filter(name="Bob").delete()
        ada, bob, eve = customers
        eve.pk = str(eve.pk)  # as Django takes it
        ada.name = bob.name = eve.name = "All"
        assert bulk_update(Customer.objects.exclude(name="Ada"), customers, ["name"]) == 1
        assert told("instance") == [Customer.objects.get(name="All")]

    def test_takes_the_first_of_two_and_tells_of_both(self, link, told):
        ada = Customer.objects.create(name="Ada")
        link(post_save, on_instance, Customer)
        assert bulk_update(Customer.objects, [Customer(pk=ada.pk, name="A"), Customer(pk=ada.pk, name="B")], ["name"])
        assert names(told("instance")) == ["A", "A"]

    def test_refers_to_the_row_though_the_instance_was_made_by_hand(self, link, told):
        Customer.objects.using("other").create(pk=5, name="Ada", email="ada@example.com")
        link(post_save, on_instance, Customer)
        mine = Customer(pk=5, name="Lovelace")
        bulk_update(Customer.objects.using("other"), [mine], ["name"])
        [instance] = told("instance")
        assert (instance.name, instance.email) == ("Lovelace", "ada@example.com")
        assert (mine._state.adding, mine._state.db) == (False, "other")

    def test_of_an_instance_that_a_replica_has_shown_goes_to_the_primary(self, link, told, settings):
        for alias in ("default", "other"):
            Customer(pk=1, name=alias).save(using=alias)
        link(post_save, on_instance, Customer)
        settings.DATABASE_ROUTERS = [f"{__name__}.Replica"]
        read = Customer.objects.get()
        read.name = "written"
        bulk_update(Customer.objects, [read], ["name"])
        [kwargs] = told()
        assert (kwargs["using"], kwargs["instance"].name) == ("default", "written")
        assert Customer.objects.using("other").get().name == "other"

    def test_costs_nothing_more_where_nobody_hears(self, link, customers):
        link(post_save, first, Article)
        with CaptureQueriesContext(connection) as queries:
            assert bulk_update(Customer.objects, customers, ["name"]) == 3
            link(post_save, first, Customer)
            with suppress():
                bulk_update(Customer.objects, customers, ["name"])
        assert not any(query["sql"].startswith("SELECT") for query in queries)

    def test_leaves_to_django_what_django_refuses(self, link, customers):
        link(post_save, first, Customer)
        with pytest.raises(ValueError, match="primary key set"):
            bulk_update(Customer.objects, [*customers, Customer(name="New")], ["name"])
        with pytest.raises(ValueError, match="Field names"):
            bulk_update(Customer.objects, customers, [])

    def test_of_a_child_in_multi_table_inheritance_and_of_composite_keys(self, link, told, customers):
        gift = GiftOrder.objects.create(customer=customers[0], greeting="Hi")
        line = Line.objects.create(order_id=gift.pk, number=1, text="old")
        link(post_save, on_instance, GiftOrder)
        link(post_save, on_instance, Line)
        gift.total, gift.greeting, line.text = 7, "Hello", "new"
        bulk_update(GiftOrder.objects, [gift], ["total", "greeting"])
        bulk_update(Line.objects, [line, Line(order_id=gift.pk, number=9)], ["text"])
        first_told, second_told = told("instance")
        assert (type(first_told), first_told.total, first_told.greeting) == (GiftOrder, 7, "Hello")
        assert second_told.text == "new"


class TestUpdate:
    def test_tells_of_each_row_that_matched_before_it(self, link, told, customers):
        link(post_save, on_instance, Customer)
        assert update(Customer.objects.exclude(name="Bob"), name="Someone", email="a@example.com") == 2
        received = told()
        assert [kwargs.pop("instance") for kwargs in received] == [customers[0], customers[2]]
        assert (
            received
            == [
                {
                    "signal": post_save,
                    "created": False,
                    "raw": False,
                    "using": "default",
                    "update_fields": frozenset({"name", "email"}),
                }
            ]
            * 2
        )

    def test_shows_when_and_snapshots_what_the_database_made_of_it(self, link, told, customers):
        link(
            post_save,
            on_instance,
            Customer,
            instance="snapshot",
            when=lambda instance, **kwargs: instance.name != "Bob!",
        )
        update(Customer.objects, name=Concat(F("name"), Value("!")))
        Customer.objects.update(name="later")
        assert names(told("instance")) == ["Ada!", "Eve!"]

    def test_is_rolled_back_with_its_deliveries(self, link, memory, customers):
        link(post_save, on_instance, Customer)
        with pytest.raises(RuntimeError), transaction.atomic():
            update(Customer.objects.all(), name="Someone")
            raise RuntimeError
        assert (Customer.objects.filter(name="Someone").count(), memory.payloads) == (0, [])

    def test_tells_of_rows_that_the_manager_hides_from_then_on(self, link, told):
        pots = [Article.objects.create(title=title) for title in ("Jug", "Mug", "Pot")]
        link(post_save, on_instance, Article)
        assert update(Article.objects, hidden=True) == 3
        assert told("instance") == pots

    def test_reads_the_rows_in_pieces(self, link, told, customers, monkeypatch):
        monkeypatch.setattr(companions, "CHUNK", 2)
        link(post_save, on_instance, Customer)
        with CaptureQueriesContext(connection) as queries:
            update(Customer.objects.all(), email="")
        assert sum(query["sql"].startswith("SELECT") for query in queries) == 2 + 2
        assert told("instance") == customers

    def test_of_querysets_that_cannot_be_locked_themselves(self, link, told, customers):
        for customer in customers[:2]:
            for _ in range(2):
                Order.objects.create(customer=customer)
        Order.objects.create(customer=customers[2])
        link(post_save, on_instance, Customer)
        several = Customer.objects.annotate(orders=Count("order")).filter(orders__gt=1)
        for rows in (several, Customer.objects.filter(order__total=0, name__lt="C").distinct().order_by("-name")):
            assert update(rows, email="a@example.com") == 2
            assert told("instance") == customers[:2]
        assert update(Customer.objects.filter(order__isnull=True), email="b@example.com") == 0
        assert update(Customer.objects.none(), email="b@example.com") == 0
        assert told() == []

    def test_goes_to_the_database_that_is_written_to(self, link, told, settings):
        for alias in ("default", "other"):
            Customer(pk=1, name=alias).save(using=alias)
        link(post_save, on_instance, Customer)
        update(Customer.objects.using("other"), email="other@example.com")
        settings.DATABASE_ROUTERS = [f"{__name__}.Replica"]
        update(Customer.objects.all(), email="default@example.com")
        assert [(kwargs["using"], kwargs["instance"].email) for kwargs in told()] == [
            ("other", "other@example.com"),
            ("default", "default@example.com"),
        ]

    def test_goes_to_the_database_that_the_queryset_names_whatever_the_routers_say(self, link, told, settings):
        for alias in ("default", "other"):
            Customer(pk=1, name=alias).save(using=alias)
        link(post_save, on_instance, Customer)
        settings.DATABASE_ROUTERS = [f"{__name__}.Replica"]
        update(Customer.objects.using("other"), email="other@example.com")
        assert [(kwargs["using"], kwargs["instance"].email) for kwargs in told()] == [("other", "other@example.com")]

    def test_of_a_child_in_multi_table_inheritance_and_of_composite_keys(self, link, told, customers):
        gift = GiftOrder.objects.create(customer=customers[0], greeting="Hi")
        Order.objects.create(customer=customers[0])
        lines = [Line.objects.create(order_id=gift.pk, number=number) for number in (1, 2, 3)]
        link(post_save, on_instance, GiftOrder)
        link(post_save, on_instance, Line)
        assert update(GiftOrder.objects.filter(total=0), total=7, greeting="Hello") == 1
        assert update(Line.objects.filter(number__gt=1), text="new") == 2
        assert told("instance") == [gift, *lines[1:]]

    def test_is_djangos_own_where_nobody_hears_and_where_nothing_changes(self, link, memory, customers):
        link(post_save, first, Article)
        with CaptureQueriesContext(connection) as queries:
            assert update(Customer.objects.all(), email="a@example.com") == 3
        assert len(queries) == 1
        link(post_save, first, Customer)
        with suppress():
            assert update(Customer.objects.all(), email="b@example.com") == 3
        assert update(Customer.objects.all()) == Customer.objects.update() == 0
        assert memory.payloads == []

    @pytest.mark.parametrize(
        ("model", "values"),
        [
            (Customer, {"id": 5}),
            (Line, {"number": 5}),
            (GiftOrder, {"order_ptr_id": 5}),
            (GiftOrder, {"id": 5}),
            (Line, {"pk": (1, 2)}),
        ],
    )
    def test_refuses_before_writing_to_change_keys(self, model, values):
        with CaptureQueriesContext(connection) as queries, pytest.raises(ValueError, match="is a primary key"):
            update(model.objects.all(), **values)
        assert len(queries) == 0

    def test_leaves_to_django_what_django_refuses(self, link, customers):
        link(post_save, first)
        with pytest.raises(FieldDoesNotExist):
            update(Customer.objects.all(), nothing=1)
        with pytest.raises(TypeError, match="once a slice has been taken"):
            update(Customer.objects.all()[:1], name="x")
        with pytest.raises(NotSupportedError, match="union"):
            update(Customer.objects.union(Customer.objects.all()), name="x")
        with pytest.raises(FieldError, match="Cannot update model field"):
            update(Article.objects.all(), buyers=1)

    def test_takes_a_field_of_any_name(self):
        with pytest.raises(FieldDoesNotExist, match="'queryset'"):
            update(Customer.objects.all(), queryset=1)


@pytest.mark.parametrize("write", [lambda it: bulk_create(it, []), lambda it: bulk_update(it, [], ["name"]), update])
def test_all_of_them_say_that_they_take_a_manager_or_a_queryset(write):
    with pytest.raises(TypeError, match=r"is a manager or a queryset, as Model.objects; not .*Customer"):
        write(Customer)


class TestWithTheOutbox:
    @pytest.fixture(autouse=True)
    def _outbox(self, _without_outbox: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(keeping, "_outbox", DatabaseOutbox())

    def test_durable_deliveries_are_rows_of_the_transaction_that_writes_the_data(self, link, told):
        link(post_save, on_instance, Customer, durable=True)
        with pytest.raises(RuntimeError), transaction.atomic():
            bulk_create(Customer.objects, [Customer(name="Ada")])
            assert OutboxDelivery.objects.count() == 1
            raise RuntimeError
        assert (Customer.objects.count(), OutboxDelivery.objects.count()) == (0, 0)
        bulk_create(Customer.objects, [Customer(name="Ada")])
        assert names(told("instance")) == ["Ada"]

    def test_they_are_sent_while_the_queryset_is_read(self, link, told, customers, monkeypatch):
        monkeypatch.setattr(sending, "CHUNK", 1)
        link(post_save, on_instance, Customer, durable=True)
        with transaction.atomic():
            send_for(Customer.objects.order_by("name"), post_save)
        assert sorted(names(told("instance"))) == ["Ada", "Bob", "Eve"]

    def test_they_are_written_together_and_taken_back_each_with_its_own(self, link, told):
        link(post_save, on_instance, Customer, durable=True, when=lambda instance, **kwargs: 1 / len(instance.name))
        with CaptureQueriesContext(connection) as queries, together():
            bulk_create(Customer.objects, [Customer(name=str(number)) for number in range(5)])
            with pytest.raises(ZeroDivisionError):
                bulk_create(Customer.objects, [Customer(name="Bob"), Customer(name="")])
            update(Customer.objects.filter(name__gt="2"), email="a@example.com")
        inserts = [query["sql"] for query in queries if query["sql"].startswith("INSERT")]
        assert sum(OutboxDelivery._meta.db_table in sql for sql in inserts) == 2
        assert sorted(names(told("instance"))) == ["0", "1", "2", "3", "3", "4", "4"]


@pytest.mark.skipif(
    not connection.features.has_select_for_update, reason="no row can be locked: make test-postgresql, test-mariadb"
)
class TestBesideOthers:
    def test_a_row_that_comes_to_match_during_an_update_is_no_part_of_it(self, link, told, customers):
        link(post_save, on_instance, Customer)

        def come() -> None:
            try:
                Customer.objects.create(name="Late")
            finally:
                connections.close_all()

        def before(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            if sql.startswith("UPDATE"):
                thread = threading.Thread(target=come)
                thread.start()
                thread.join()
            return execute(sql, params, many, context)

        with connection.execute_wrapper(before):
            assert update(Customer.objects.all(), email="told@example.com") == 3
        told_of = told("instance")
        assert [instance for instance in told_of if instance.name != "Late"] == customers
        assert Customer.objects.get(name="Late").email == ""

    def test_a_row_that_another_has_changed_meanwhile_is_neither_written_nor_told_of(self, link, told, customers):
        link(post_save, on_instance, Customer)
        counts: list[int] = []

        def write() -> None:
            try:
                counts.append(update(Customer.objects.filter(email=""), email="told@example.com"))
            finally:
                connections.close_all()

        thread = threading.Thread(target=write)
        with transaction.atomic():
            Customer.objects.filter(name="Bob").update(email="taken@example.com")
            thread.start()
            wait_for_one_that_waits()
        thread.join()
        assert counts == [2]
        assert told("instance") == [customers[0], customers[2]]
        assert Customer.objects.get(name="Bob").email == "taken@example.com"


def wait_for_one_that_waits() -> None:
    """Wait until another transaction of this database waits for a lock."""
    asked = {
        "postgresql": "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) "
        "WHERE NOT granted AND datname = current_database()",
        "mysql": "SELECT count(*) FROM information_schema.innodb_trx JOIN information_schema.processlist "
        "ON id = trx_mysql_thread_id WHERE trx_state = 'LOCK WAIT' AND db = database()",
    }[connection.vendor]
    end = time.monotonic() + DEADLINE
    with connection.cursor() as cursor:
        while time.monotonic() < end:
            cursor.execute(asked)
            if cursor.fetchone()[0]:
                return
            time.sleep(0.2)  # MariaDB shows what it showed before to who asks again sooner
    pytest.fail("nobody waits for the lock")


class TestInATestCase:
    @pytest.mark.django_db
    def test_the_deliveries_leave_when_the_hooks_are_run(self, link, told, django_capture_on_commit_callbacks):
        link(post_save, on_instance, Customer)
        with django_capture_on_commit_callbacks(execute=True):
            bulk_create(Customer.objects, [Customer(name="Ada")])
            update(Customer.objects.all(), name="Lovelace")
            assert told() == []
        assert told("created") == [True, False]
