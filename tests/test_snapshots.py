"""Snapshots: they behave like the row they were, are not saved by mistake, and carry what the options say."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import serializers
from django.core.files.base import ContentFile
from django.db import connections, models
from django.db.models import F
from django.db.models.signals import post_delete, pre_save
from django.test import TestCase
from django.test.utils import CaptureQueriesContext
from django.utils.functional import SimpleLazyObject

from deferred_signals.codec import Decoder, Encoder, saving
from deferred_signals.codec.field_values import field_json
from deferred_signals.codec.snapshots import carried
from deferred_signals.exceptions import DecodeError, EncodeError, SnapshotSaved
from deferred_signals.registry import holds

from .receivers import first
from .shop.models import Article, Code, Customer, GiftOrder, Line, LuxuryOrder, Note, Order, Parcel, WrappedOrder

pytestmark = pytest.mark.django_db(databases=["default", "other"])


def snapshot(value: Any, **options: Any) -> Any:
    """The value as it arrives by snapshot."""
    return decoded(Encoder(snapshot=True, **options).encode(value))


def decoded(data: Any) -> Any:
    """The value of its JSON, after that has been text."""
    return Decoder().decode(json.loads(json.dumps(data)))


@pytest.fixture
def anna() -> Customer:
    return Customer.objects.create(name="Anna", email="anna@example.com")


@pytest.fixture
def order(anna: Customer) -> Order:
    return Order.objects.create(customer=anna, total=Decimal("9.90"), placed=datetime(2026, 1, 2, tzinfo=UTC))


# --- Like the row that it was ----------------------------------------------------------------------------------------


def test_it_is_equal_to_the_row_and_found_in_sets_of_it(order: Order) -> None:
    there = snapshot(order)
    assert there is not order
    assert there == order
    assert hash(there) == hash(order)
    assert len({there, order}) == 1
    assert (str(there), repr(there)) == (str(order), repr(order))


def test_it_has_its_key_after_the_row_is_gone(order: Order) -> None:
    pk, sent = order.pk, Encoder(snapshot=True).encode(order)
    order.delete()
    there = decoded(sent)
    assert (there.pk, there._state.db, there._state.adding) == (pk, "default", False)
    assert not Order.objects.filter(pk=there.pk).exists()


@pytest.mark.parametrize("alias", ["default", "other"])
def test_its_relations_are_read_when_they_are_used_from_its_database(alias: str) -> None:
    for name in ("default", "other"):
        customer = Customer.objects.using(name).create(pk=7, name=name)
        Order.objects.using(name).create(customer=customer)
        Note.objects.using(name).create(target=customer)
    there = snapshot(Order.objects.using(alias).get())
    assert "customer" not in there._state.fields_cache
    assert (there.customer.name, there.customer._state.db) == (alias, alias)
    assert there.customer.order_set.get() == there
    assert snapshot(Note.objects.using(alias).get()).target.name == alias


def test_the_parts_of_a_row_of_several_tables_lead_to_each_other(anna: Customer) -> None:
    gift = snapshot(GiftOrder.objects.create(customer=anna, greeting="hi", total=5))
    assert (gift.pk, gift.order_ptr_id, gift.id) == (gift.id,) * 3
    assert gift.order_ptr == Order.objects.get()
    assert snapshot(Order.objects.get()).giftorder == gift


def test_refreshed_it_is_as_the_row_is_now(order: Order) -> None:
    there = snapshot(Order.objects.only("total").get())
    assert there.get_deferred_fields() == {"customer_id", "placed"}
    Order.objects.update(total=5)
    there.refresh_from_db()
    assert there.total == 5
    assert there.get_deferred_fields() == {"customer_id", "placed"}


def test_it_can_be_copied_pickled_and_serialized(order: Order) -> None:
    there = snapshot(order)
    for made in (copy.copy(there), copy.deepcopy(there), pickle.loads(pickle.dumps(there))):
        assert made == order
        assert (made.total, made._state.db, made._state.adding) == (order.total, "default", False)
    assert serializers.serialize("json", [there]) == serializers.serialize("json", [order])


def test_it_can_be_prefetched_for(order: Order) -> None:
    there = snapshot(order.customer)
    models.prefetch_related_objects([there], "order_set")
    with CaptureQueriesContext(connections["default"]) as queries:
        assert list(there.order_set.all()) == [order]
    assert not queries.captured_queries


def test_what_the_database_fills_in_for_an_unsaved_instance_is_still_to_be_filled_in() -> None:
    there = snapshot(Parcel(details={"a": Code("c")}))
    assert there.get_deferred_fields() == {"area"}
    there.save()
    assert (Parcel.objects.get().stage, Parcel.objects.get().area) == ("new", 1)
    assert snapshot(Parcel(stage="sent")).stage == "sent"


def test_what_the_database_has_filled_in_is_read_when_it_is_used() -> None:
    parcel = Parcel.objects.create()
    parcel.stage = Parcel().stage  # as it stays there where a database cannot return it
    there = snapshot(parcel)
    assert there.get_deferred_fields() == {"stage"}
    assert there.stage == "new"


# --- Saving ----------------------------------------------------------------------------------------------------------


def test_to_save_it_is_an_error_that_says_what_to_do(anna: Customer) -> None:
    there = snapshot(anna)
    Customer.objects.update(name="Berta")
    with pytest.raises(SnapshotSaved) as caught:
        there.save()
    assert str(caught.value) == (
        "This shop.Customer is a snapshot, the row as it was when the signal was sent: to save it would overwrite "
        "newer data, or bring a deleted row back. Read the row again, by Customer.objects.get(pk=...) or "
        "refresh_from_db(), and save that. Or write only what you name, with save(update_fields=[...]). To bring a "
        "deleted row back, make an instance of your own and save it."
    )
    assert Customer.objects.get().name == "Berta"


@pytest.mark.parametrize("options", [{"force_insert": True}, {"force_update": True}, {"using": "other"}])
def test_no_option_that_does_not_name_fields_lets_it_be_saved(options: dict[str, Any], anna: Customer) -> None:
    there = snapshot(anna)
    with pytest.raises(SnapshotSaved):
        there.save(**options)


def test_a_deleted_row_is_not_brought_back_by_mistake_but_on_purpose(anna: Customer) -> None:
    sent = Encoder(snapshot=True).encode(anna)
    anna.delete()
    for there in (decoded(sent), snapshot(anna)):
        with pytest.raises(SnapshotSaved):
            there.save()
    there = decoded(sent)
    Customer(pk=there.pk, name=there.name).save()
    assert Customer.objects.get().name == "Anna"


def test_fields_that_are_named_are_saved_and_no_others(anna: Customer) -> None:
    there = snapshot(anna)
    Customer.objects.update(name="Berta")
    there.email = "new@example.com"
    there.save(update_fields=["email"])
    row = Customer.objects.get()
    assert (row.name, row.email) == ("Berta", "new@example.com")


def test_fields_that_only_django_names_are_not_saved(anna: Customer) -> None:
    # Where fields are deferred, Django itself names all those that are not.
    order = Order.objects.create(customer=anna, total=5)
    there = snapshot(Order.objects.defer("placed").get())
    Order.objects.update(total=6)
    with pytest.raises(SnapshotSaved):
        there.save()
    there.total = 7
    there.save(update_fields={"total"})
    order.refresh_from_db()
    assert order.total == 7
    there.save(using="other", update_fields=[])
    with pytest.raises(SnapshotSaved):
        there.save(using="other")


def test_all_fields_of_a_whole_one_can_be_named(anna: Customer) -> None:
    there = snapshot(anna)
    there.name = "Berta"
    there.save(update_fields=["name", "email"])
    assert Customer.objects.get().name == "Berta"


def test_fields_of_a_partial_one_can_be_named_for_another_database(anna: Customer) -> None:
    Customer.objects.using("other").create(pk=anna.pk, name="Olga")
    there = snapshot(Customer.objects.only("name").get())
    there.save(using="other", update_fields=["name"])
    assert Customer.objects.using("other").get().name == "Anna"


def test_refreshed_it_is_the_row_again_and_can_be_saved(anna: Customer) -> None:
    there = snapshot(anna)
    Customer.objects.update(email="")
    there.refresh_from_db()
    there.name = "Berta"
    there.save()
    assert (Customer.objects.get().name, Customer.objects.get().email) == ("Berta", "")


def test_refreshed_in_part_or_by_a_deferred_field_it_is_still_a_snapshot(anna: Customer) -> None:
    one, two = snapshot(anna), snapshot(Customer.objects.defer("email").get())
    one.refresh_from_db(fields=["name"])
    assert two.email
    for there in (one, two):
        with pytest.raises(SnapshotSaved):
            there.save()


def test_a_copy_of_it_is_one_too(anna: Customer) -> None:
    there = snapshot(anna)
    for made in (copy.copy(there), copy.deepcopy(there), pickle.loads(pickle.dumps(there))):
        with pytest.raises(SnapshotSaved):
            made.save()


def test_prefetched_for_it_is_still_one(order: Order) -> None:
    there = snapshot(order.customer)
    models.prefetch_related_objects([there], "order_set")
    with pytest.raises(SnapshotSaved):
        there.save()


def test_a_raw_save_means_it_as_it_is(anna: Customer) -> None:
    there = snapshot(anna)
    Customer.objects.all().delete()
    there.save_base(raw=True)
    assert Customer.objects.get() == anna


def test_it_can_be_deleted(anna: Customer) -> None:
    snapshot(anna).delete()
    assert not Customer.objects.exists()


def test_a_snapshot_of_an_unsaved_instance_can_be_saved_for_it_never_was_a_row(anna: Customer) -> None:
    snapshot(Order(customer=anna)).save()
    assert Order.objects.count() == 1


def test_what_is_read_or_referred_to_is_saved_as_ever(anna: Customer) -> None:
    snapshot(anna)
    anna.save()
    Customer.objects.get().save()
    decoded(Encoder().encode(anna)).save()


@pytest.fixture
def _unwatched() -> Iterator[None]:
    pre_save.disconnect(saving.refuse, dispatch_uid="deferred_signals.snapshots")
    yield
    saving.Mark()


@pytest.mark.usefixtures("_unwatched")
def test_saves_are_watched_from_the_first_snapshot_on_and_once(anna: Customer) -> None:
    Encoder(snapshot=True).encode(anna)
    snapshot(Customer(name="Berta"))
    assert not holds(pre_save, saving.refuse)
    number = len(pre_save.receivers)
    snapshot([anna, anna, Customer.objects.get()])
    assert holds(pre_save, saving.refuse)
    assert len(pre_save.receivers) == number + 1


def test_saves_are_watched_where_a_snapshot_is_only_unpickled(anna: Customer) -> None:
    code = (
        "import os, pickle, sys, django\n"
        "os.environ['DJANGO_SETTINGS_MODULE'] = 'tests.settings'\n"
        "django.setup()\n"
        "instance = pickle.loads(sys.stdin.buffer.read())\n"
        "try:\n"
        "    instance.save()\n"
        "except Exception as error:\n"
        "    print(type(error).__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(snapshot(anna)), capture_output=True, check=True, timeout=60
    )
    assert done.stdout.strip() == b"SnapshotSaved"


# --- Said twice ------------------------------------------------------------------------------------------------------


def test_the_instance_and_the_origin_of_a_delete_are_written_once_and_arrive_as_one(
    anna: Customer, link: Any, memory: Any, calls: Any
) -> None:
    link(post_delete, first, Customer)
    with TestCase.captureOnCommitCallbacks(execute=True):
        anna.delete()
    [(_, payload)] = memory.payloads
    assert payload.count("anna@example.com") == 1
    [(_, outcome)] = memory.deliver()
    assert outcome.state == "succeeded"
    [(_, _, kwargs)] = calls
    assert kwargs["instance"] is kwargs["origin"]
    assert kwargs["instance"].email == "anna@example.com"


def test_the_same_object_arrives_as_one_wherever_it_stands(anna: Customer) -> None:
    there = snapshot({"a": anna, "b": [SimpleLazyObject(lambda: anna), (anna,)], "c": User(username="u")})
    assert there["b"][0] is there["a"]
    assert there["b"][1][0] is there["a"]
    assert there["c"].username == "u"


def test_a_single_one_is_written_plainly(anna: Customer) -> None:
    assert list(Encoder(snapshot=True).encode(anna)) == ["$snapshot"]


def test_two_objects_of_one_row_stay_two(anna: Customer) -> None:
    one, two = snapshot([anna, Customer.objects.get()])
    assert one is not two
    assert one == two


def test_what_a_send_refers_to_and_what_it_refuses_are_told_apart(anna: Customer) -> None:
    berta, carla = Customer.objects.create(name="Berta"), Customer.objects.create(name="Carla")
    encoder = Encoder(snapshot=True)
    sent = [encoder.encode([anna])]
    with pytest.raises(EncodeError):
        encoder.encode([anna, berta, {"deep": [carla, object()]}])
    encoder.restart(1)
    sent += [encoder.encode(carla), encoder.encode(berta), encoder.encode(anna), encoder.encode([carla, berta])]
    with pytest.raises(EncodeError):
        encoder.encode(object())
    encoder.restart(3)
    sent.append(encoder.encode(berta))
    [one], carla_, berta_, one_again, others, last = decoded(sent)
    assert [it.name for it in (one, carla_, berta_)] == ["Anna", "Carla", "Berta"]
    assert one is one_again
    assert others[0] is carla_
    assert others[1] is berta_ is last
    assert json.dumps(sent).count("$snapshot") == 3


def test_what_was_begun_and_then_said_by_its_field_is_not_referred_to(anna: Customer) -> None:
    value = [anna, object()]

    class Said(models.TextField):  # type: ignore[type-arg]
        def value_to_string(self, obj: models.Model) -> str:
            return "said"

        def to_python(self, text: Any) -> Any:
            return value

    encoder = Encoder(snapshot=True)
    assert field_json(encoder, Said(), anna, value) == {"$field": "said"}
    assert encoder.position() == (0, 0)


def test_a_field_that_says_no_text_for_fixtures_may_say_one_for_the_database(anna: Customer) -> None:
    class Odd(models.Field):  # type: ignore[type-arg]
        def value_to_string(self, obj: models.Model) -> Any:
            return 5

        def get_prep_value(self, value: Any) -> str:
            return str(value.text)

        def to_python(self, value: Any) -> Code:
            return Code(value)

    assert field_json(Encoder(), Odd(), anna, Code("c")) == {"$field": "c"}


def test_numbers_of_another_encoder_do_not_meet_these(anna: Customer) -> None:
    # The context is encoded by itself, and decoded before the arguments by the same decoder.
    berta = Customer.objects.create(name="Berta")
    decoder = Decoder()
    pairs = [Encoder(snapshot=True).encode([value, value]) for value in (anna, berta)]
    for pair, name in zip(pairs, ("Anna", "Berta"), strict=True):
        one, two = decoder.decode(pair)
        assert one is two
        assert one.name == name


@pytest.mark.parametrize("data", [0, "x", None, [], [0], [0, 1, 2], [[], 1], {}, [0, {"$same": 0}], [{"a": 1}, 2]])
def test_a_repetition_that_makes_no_sense_is_a_decode_error(data: Any) -> None:
    with pytest.raises(DecodeError):
        Decoder().decode({"$same": data})


# --- fields= and exclude= --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"fields": frozenset({"total"})}, {"id", "total"}),
        ({"fields": frozenset({"customer", "nothing"})}, {"id", "customer_id"}),
        ({"fields": frozenset({"customer_id"})}, {"id", "customer_id"}),
        ({"fields": frozenset()}, {"id"}),
        ({"exclude": frozenset({"total", "customer"})}, {"id", "placed"}),
        ({"exclude": frozenset({"id", "pk", "customer_id"})}, {"id", "total", "placed"}),
    ],
)
def test_a_snapshot_carries_its_key_and_the_fields_that_are_said(
    options: dict[str, Any], names: set[str], order: Order
) -> None:
    sent = Encoder(snapshot=True, **options).encode(order)
    assert set(sent["$snapshot"][3]) == names
    there = decoded(sent)
    assert there.get_deferred_fields() == {"id", "customer_id", "total", "placed"} - names
    assert there == order
    assert there.total == order.total  # is read now, where it did not travel


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        (GiftOrder, {"id", "order_ptr_id"}),
        (LuxuryOrder, {"id", "order_ptr_id", "giftorder_ptr_id"}),
        (WrappedOrder, {"id", "order_ptr_id", "wrapping_ptr_id", "wrapping_id"}),
        (Line, {"order_id", "number"}),
        (Article, {"title"}),
    ],
)
def test_all_that_makes_a_key_always_travels(model: type[models.Model], keys: set[str]) -> None:
    names = {field.attname for field in model._meta.concrete_fields}
    assert {field.attname for field in carried(model, (), ())} == keys
    assert {field.attname for field in carried(model, None, names)} == keys


def test_what_was_left_out_of_an_unsaved_or_deleted_instance_cannot_be_read(anna: Customer) -> None:
    anna.delete()
    for instance in (anna, Customer(name="Berta", email="b@example.com")):
        there = snapshot(instance, exclude=frozenset({"email"}))
        with pytest.raises((Customer.DoesNotExist, AttributeError)):  # Django 6.1 says it in advance
            there.email  # noqa: B018


def test_a_field_that_is_left_out_is_not_looked_at(order: Order) -> None:
    order.total = object()  # type: ignore[assignment]
    order.placed = F("nothing")
    assert snapshot(order, fields=frozenset({"customer"})).customer_id == order.customer_id


class TestModelsWithConstructorsOfTheirOwn:
    """What the model's own ``__init__`` and ``from_db`` make of a row is not what was sent."""

    @pytest.fixture
    def stubborn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = Article.__init__

        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            made(self, *args, **kwargs)
            self.stock, self.title = 0, self.title.upper()

        monkeypatch.setattr(Article, "__init__", init)

    @pytest.mark.usefixtures("stubborn")
    def test_the_values_that_were_sent_arrive(self) -> None:
        article = Article(title="Tea")
        article.title, article.stock = "Tea", 5
        found = Decoder().decode(Encoder(snapshot=True).encode(article))
        assert (found.title, found.stock) == ("Tea", 5)


def test_of_an_unsaved_instance_a_file_that_is_not_stored_yet_travels_by_its_name() -> None:
    article = Article(title="Tea", picture=ContentFile(b"png", "tea.png"))
    found = Decoder().decode(Encoder(snapshot=True).encode(article))
    assert found.picture.name == "tea.png"


@pytest.mark.django_db
def test_a_snapshot_that_is_made_a_new_row_may_be_saved() -> None:
    """Django's own way to copy an instance."""
    anna = Customer.objects.create(name="Anna")
    found = Decoder().decode(Encoder(snapshot=True).encode(anna))
    found.pk, found._state.adding = None, True
    found.save()
    assert Customer.objects.count() == 2


def test_an_image_is_carried_with_its_measures() -> None:
    names = [field.name for field in carried(Parcel, {"photo"}, ())]
    assert names == ["id", "photo", "photo_width", "photo_height"]
