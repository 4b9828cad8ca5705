"""Model instances, model classes and querysets: what arrives, and what it cost."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.apps import apps
from django.contrib.auth.models import AbstractUser, AnonymousUser, User
from django.contrib.contenttypes.models import ContentType
from django.core.files.base import ContentFile
from django.core.files.storage import InMemoryStorage
from django.db import OperationalError, connections, models
from django.db.migrations.state import ModelState, ProjectState
from django.db.models import F, Value
from django.db.models.functions import Now, Upper
from django.db.models.signals import post_init, pre_init
from django.test import override_settings
from django.test.utils import CaptureQueriesContext, isolate_apps
from django.utils.functional import SimpleLazyObject
from psycopg.types.range import Range as DateRange

from deferred_signals.codec import Decoder, Encoder
from deferred_signals.codec.base import TwoStates
from deferred_signals.exceptions import DecodeError, EncodeError, InstanceMissing, TooLarge

from .shop.models import (
    AccessToken,
    Article,
    Code,
    Customer,
    GiftOrder,
    Line,
    LuxuryOrder,
    Note,
    Order,
    Parcel,
    Regular,
    Shelf,
    Ticket,
    Voucher,
    WrappedOrder,
)
from .travel import arrived, payload, travel

pytestmark = pytest.mark.django_db(databases=["default", "other"])


@contextmanager
def queries(number: int) -> Iterator[None]:
    with CaptureQueriesContext(connections["default"]) as one, CaptureQueriesContext(connections["other"]) as two:
        yield
    assert len(one) + len(two) == number, [*one, *two]


def snapshot(value: Any) -> Any:
    """The value as it arrives by snapshot."""
    return Decoder().decode(Encoder(snapshot=True).encode(value))


def fields(instance: models.Model) -> dict[str, Any]:
    return {name: value for name, value in vars(instance).items() if not name.startswith("_")}


@pytest.fixture
def anna() -> Customer:
    return Customer.objects.create(name="Anna", email="anna@example.com")


@pytest.fixture
def order(anna: Customer) -> Order:
    return Order.objects.create(customer=anna, total=Decimal("9.90"), placed=datetime(2026, 1, 2, tzinfo=UTC))


# --- References ------------------------------------------------------------------------------------------------------


def test_a_row_travels_as_a_reference_and_costs_one_query_on_arrival(anna: Customer) -> None:
    with queries(0):
        sent = Encoder().encode(anna)
    assert sent == {"$ref": ["shop.customer", anna.pk, "default"]}
    with queries(1):
        there = Decoder().decode(sent)
    assert (type(there), fields(there)) == (Customer, fields(anna))
    assert there is not anna


def test_a_reference_arrives_as_the_row_is_at_delivery(anna: Customer) -> None:
    sent = payload(value=anna)
    Customer.objects.update(name="Berta")
    assert arrived(sent)["value"].name == "Berta"


def rows_of_every_shape() -> dict[str, models.Model]:
    anna = Customer.objects.create(name="Anna")
    gift = GiftOrder.objects.create(customer=anna, greeting="hi")
    return {
        "big auto field": anna,
        "uuid": Order.objects.create(customer=anna),
        "text": Article.objects.create(title="a:$\n😀"),
        "multi-table": gift,
        "parent of multi-table": Order.objects.get(pk=gift.pk),
        "grandchild": LuxuryOrder.objects.create(customer=anna, greeting="hi", ribbon="red"),
        "two parents": WrappedOrder.objects.create(customer=anna, colour="blue"),
        "proxy": Regular.objects.get(pk=anna.pk),
        "composite": Line.objects.create(order_id=uuid.uuid4(), number=3),
        "type of its own": Ticket.objects.create(code=Code("T1")),
        "composite with a type of its own": Voucher.objects.create(code=Code("V1"), number=2),
        "generic foreign key": Note.objects.create(target=anna),
        "content type": ContentType.objects.get_for_model(Customer),
        "user": User.objects.create_user("anna"),
        "fields of every kind": Parcel.objects.create(
            width=2,
            height=3,
            took=timedelta(days=1, microseconds=1),
            sent=datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Vienna"), fold=1),
            details={"codes": [Code("c")], "plain": [1.5, None]},
            note="secret",
            label=Code("L"),
            photo="cats/a.png",
            photo_width=4,
            photo_height=5,
            payer=anna,
            ticket=Ticket.objects.create(code=Code("T2")),
        ),
        "key that is a secret": AccessToken.objects.create(key="abc", secret=anna),
        "automatic through": Article.buyers.through.objects.create(
            article=Article.objects.create(title="b"), customer=anna
        ),
    }


SHAPES = (
    "big auto field",
    "uuid",
    "text",
    "multi-table",
    "parent of multi-table",
    "grandchild",
    "two parents",
    "proxy",
    "composite",
    "type of its own",
    "composite with a type of its own",
    "generic foreign key",
    "content type",
    "user",
    "fields of every kind",
    "key that is a secret",
    "automatic through",
)


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_of_every_shape_arrive_by_reference(shape: str) -> None:
    row = rows_of_every_shape()[shape]
    there = travel(row)
    assert type(there) is type(row)
    assert there.pk == row.pk
    assert there == row


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_of_every_shape_arrive_by_snapshot_without_a_query(shape: str) -> None:
    row = type(made := rows_of_every_shape()[shape])._base_manager.get(pk=made.pk)
    with queries(0):
        there = snapshot(row)
    assert type(there) is type(row)
    assert fields(there) == fields(row)
    assert (there._state.db, there._state.adding) == ("default", False)


def test_a_row_that_the_default_manager_hides_arrives() -> None:
    Article.objects.create(title="secret", hidden=True)
    assert travel(Article._base_manager.get()).hidden is True


def test_the_same_row_arrives_as_one_object(anna: Customer) -> None:
    there = arrived(payload(one=anna, two=[{"customer": anna}]))
    assert there["one"] is there["two"][0]["customer"]


def test_two_states_of_one_row_are_noticed(anna: Customer) -> None:
    other = Customer.objects.get()
    encoder = Encoder()
    encoder.encode(anna)
    with pytest.raises(TwoStates) as caught:
        encoder.encode([other])
    again = Encoder(apart=frozenset({caught.value.row}))
    sent = again.encode({"old": anna, "new": other})
    assert [list(value) for value in sent.values()] == [["$snapshot"], ["$snapshot"]]


def test_two_states_by_snapshot_need_no_second_look(anna: Customer) -> None:
    Customer.objects.update(name="Berta")
    there = snapshot([anna, Customer.objects.get()])
    assert [it.name for it in there] == ["Anna", "Berta"]


def test_rows_with_one_key_in_two_databases_are_two_rows(anna: Customer) -> None:
    there = Customer.objects.using("other").create(pk=anna.pk, name="Olga")
    assert [it.name for it in travel([anna, there])] == ["Anna", "Olga"]


def test_a_proxy_and_its_model_are_one_row(anna: Customer) -> None:
    encoder = Encoder()
    encoder.encode(anna)
    with pytest.raises(TwoStates):
        encoder.encode(Regular.objects.get())


def test_a_row_on_another_database_arrives_from_there() -> None:
    olga = Customer.objects.using("other").create(name="Olga")
    there = travel(olga)
    assert (there.name, there._state.db) == ("Olga", "other")


class Replica:
    """Reads come from ``other``, writes go to ``default``."""

    def db_for_read(self, model: type[models.Model], **hints: Any) -> str:
        return "other"

    def db_for_write(self, model: type[models.Model], **hints: Any) -> str:
        return "default"


def test_what_was_read_from_a_replica_is_referenced_on_the_primary() -> None:
    Customer.objects.using("other").create(pk=7, name="stale")
    Customer.objects.using("default").create(pk=7, name="fresh")
    with override_settings(DATABASE_ROUTERS=[f"{__name__}.Replica"]):
        read = Customer.objects.get(pk=7)
        assert (read.name, read._state.db) == ("stale", "other")
        there = travel(read)
    assert (there.name, there._state.db) == ("fresh", "default")


def test_a_row_that_is_gone_is_missing(anna: Customer) -> None:
    sent = payload(value=anna)
    Customer.objects.all().delete()
    with pytest.raises(InstanceMissing, match=r"A row of shop.customer that the delivery refers to is gone\."):
        arrived(sent)


def test_a_half_deleted_row_of_multi_table_inheritance_is_missing(anna: Customer) -> None:
    sent = payload(value=GiftOrder.objects.create(customer=anna))
    GiftOrder.objects.get().delete(keep_parents=True)
    with pytest.raises(InstanceMissing):
        arrived(sent)


def test_a_database_that_is_away_is_not_a_missing_row(anna: Customer) -> None:
    def away(*args: Any) -> None:
        raise OperationalError("server closed the connection")

    sent = payload(value=[anna])
    with connections["default"].execute_wrapper(away), pytest.raises(OperationalError):
        arrived(sent)


def test_what_the_models_own_code_raises_is_not_a_missing_row(anna: Customer) -> None:
    def fails(**kwargs: Any) -> None:
        raise Order.DoesNotExist

    sent = payload(value=anna)
    post_init.connect(fails, sender=Customer)
    try:
        with pytest.raises(DecodeError, match="DoesNotExist"):
            arrived(sent)
    finally:
        post_init.disconnect(fails, sender=Customer)


@pytest.mark.parametrize(
    "data",
    [
        ["shop.nothing", 1, "default"],
        ["nowhere.customer", 1, "default"],
        ["shop", 1, "default"],
        ["shop.customer.name", 1, "default"],
        ["", 1, "default"],
        [None, 1, "default"],
        [["shop", "customer"], 1, "default"],
        [{"$model": "shop.customer"}, 1, "default"],
        [5, 1, "default"],
        ["shop.customer", 1, "elsewhere"],
        ["shop.customer", 1, None],
        ["shop.customer", 1, ["default"]],
        ["shop.customer", 1, "default; DROP TABLE"],
        ["shop.customer", "1 OR 1=1", "default"],
        ["shop.customer", [1], "default"],
        ["shop.customer", {"pk": 1}, "default"],
        ["shop.customer", {"$tuple": [1]}, "default"],
        ["shop.customer", {"$queryset": ["shop.customer", "default", [1]]}, "default"],
        ["shop.customer", {"$float": "nan"}, "default"],
        ["shop.customer", {"$float": "inf"}, "default"],
        ["shop.customer", {"$notcarried": ["a", "b", "c"]}, "default"],
        ["shop.order", 5.5, "default"],
        ["shop.order", "not a uuid", "default"],
        ["shop.line", 5, "default"],
        ["shop.line", {"$tuple": [1]}, "default"],
        ["shop.line", {"$tuple": ["x", 1]}, "default"],
        ["shop.line", {"$tuple": ["x", 1, 2]}, "default"],
        ["shop.line", "ab", "default"],
        ["shop.customer", 1],
        ["shop.customer", 1, "default", "more"],
        "shop.customer",
        None,
        5,
    ],
    ids=str,
)
def test_a_reference_that_makes_no_sense_is_a_decode_error_before_any_query(data: Any) -> None:
    with queries(0), pytest.raises(DecodeError) as caught:
        Decoder().decode([{"$ref": data}])
    assert "DROP" not in str(caught.value)


def test_a_key_that_is_out_of_range_or_no_key_is_a_missing_row() -> None:
    for key in (None, -1, 10**30, "1" * 30):
        with pytest.raises(InstanceMissing):
            Decoder().decode({"$ref": ["shop.customer", key, "default"]})


def test_a_reference_reads_the_whole_row_also_where_the_sender_had_deferred_fields(anna: Customer) -> None:
    row = Customer.objects.only("name").get()
    with queries(0):
        sent = Encoder().encode(row)
    assert row.get_deferred_fields() == {"email"}
    with queries(1):
        assert Decoder().decode(sent).email == "anna@example.com"


def test_a_key_that_is_a_secret_is_carried_by_its_reference(anna: Customer) -> None:
    assert Encoder().encode(AccessToken.objects.create(key="abc", secret=anna))["$ref"][1] == "abc"


def test_a_key_that_only_the_database_knows_is_refused_and_told_the_way() -> None:
    row = Customer(pk=Value(7))
    row._state.adding = False  # as a save leaves it where the database does not tell the key that it has made
    with pytest.raises(EncodeError, match="the database has made it and has not told it"):
        Encoder().encode(row)


def test_a_key_that_cannot_be_hashed_is_refused_and_told_the_way() -> None:
    row = Customer(id=[1])  # type: ignore[misc]
    row._state.adding = False
    with pytest.raises(EncodeError, match='Use instance="snapshot"'):
        Encoder().encode(row)
    assert snapshot(row).pk == [1]


def test_an_instance_need_not_be_of_the_senders_class(anna: Customer) -> None:
    gift = GiftOrder.objects.create(customer=anna)
    there = arrived(payload(sender=Order, instance=gift, other=Regular.objects.get(), model=Customer))
    assert (there["sender"], there["model"]) == (Order, Customer)
    assert (type(there["instance"]), type(there["other"])) == (GiftOrder, Regular)


def test_the_user_model_may_be_another_one() -> None:
    script = (
        "import django\n"
        "from tests import settings\n"
        "settings.AUTH_USER_MODEL = 'shop.Account'\n"
        # Its migrations name the user model, and the shop has none.
        "settings.INSTALLED_APPS.remove('django.contrib.admin')\n"
        "django.setup()\n"
        "from django.contrib.auth import get_user_model\n"
        "from django.core.management import call_command\n"
        "from django.test import RequestFactory\n"
        "from django.utils.functional import SimpleLazyObject\n"
        "from tests.travel import travel\n"
        "from deferred_signals.codec import Decoder, Encoder\n"
        "call_command('migrate', verbosity=0)\n"
        "user = get_user_model().objects.create(name='anna')\n"
        "assert travel(user) == user and travel(type(user)) is type(user)\n"
        "assert Decoder().decode(Encoder(snapshot=True).encode(user)).name == 'anna'\n"
        "request = RequestFactory().get('/')\n"
        "request.user = SimpleLazyObject(lambda: user)\n"
        "assert travel(request).user == user\n"
        "print(user._meta.label)\n"
    )
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    environment.pop("TEST_DATABASE", None)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "shop.Account\n", done.stderr


def test_lazy_users_travel_as_what_they_are() -> None:
    user = User.objects.create_user("anna")
    there = arrived(payload(known=SimpleLazyObject(lambda: user), unknown=SimpleLazyObject(AnonymousUser), same=user))
    assert (type(there["known"]), there["known"].pk) == (User, user.pk)
    assert there["same"] is there["known"]
    assert type(there["unknown"]) is AnonymousUser


# --- Snapshots -------------------------------------------------------------------------------------------------------


def test_an_unsaved_instance_travels_as_it_is(anna: Customer) -> None:
    with queries(0):
        there = travel(Order(customer_id=anna.pk, total=Decimal("1.5")))
    assert (there._state.adding, there._state.db) == (True, None)
    assert (there.customer_id, there.total) == (anna.pk, Decimal("1.5"))
    there.save()
    assert Order.objects.get().total == Decimal("1.50")


def test_an_unsaved_instance_keeps_the_key_that_it_has_already(anna: Customer) -> None:
    order = Order(customer=anna)
    assert order.pk is not None
    there = travel(order)
    assert (there.pk, there._state.adding) == (order.pk, True)
    there.save()
    assert Order.objects.get().pk == order.pk


def test_a_deleted_instance_travels_as_it_was(anna: Customer) -> None:
    anna.delete()
    with queries(0):
        there = travel(anna)
    assert (there.pk, there.name) == (None, "Anna")


def test_a_deleted_instance_with_a_composite_key_travels_as_it_was() -> None:
    line = Line.objects.create(order_id=uuid.uuid4(), number=1, text="x")
    line.delete()
    assert travel(line).text == "x"


def test_an_unsaved_change_travels_by_snapshot(anna: Customer) -> None:
    anna.name = "Berta"
    assert snapshot(anna).name == "Berta"


@pytest.mark.parametrize("loaded", ["only", "defer"])
def test_deferred_fields_are_not_loaded_and_stay_deferred(loaded: str, anna: Customer) -> None:
    row = (Customer.objects.only("name") if loaded == "only" else Customer.objects.defer("email")).get()
    with queries(0):
        there = snapshot(row)
        assert there.get_deferred_fields() == {"email"}
        Encoder().encode(row)
    with queries(1):
        assert there.email == "anna@example.com"


def test_deferred_fields_of_a_parent_stay_deferred(anna: Customer) -> None:
    GiftOrder.objects.create(customer=anna, greeting="hi")
    with queries(1):
        there = snapshot(GiftOrder.objects.only("greeting").get())
    assert there.get_deferred_fields() == {"id", "customer_id", "total", "placed"}


@pytest.mark.parametrize("expression", [F("stock") + 1, Now(), Upper(Value("a")), Value(5)])
def test_an_expression_in_a_field_is_deferred_until_the_database_knows(expression: Any) -> None:
    article = Article.objects.create(title="a", stock=5)
    article.stock = expression
    there = snapshot(article)
    assert there.get_deferred_fields() == {"stock"}
    assert there.stock == 5


def test_a_field_that_raises_when_it_is_not_loaded_is_not_asked(anna: Customer) -> None:
    Parcel.objects.create(note="secret")
    row = Parcel.objects.defer("note").get()
    with pytest.raises(RuntimeError, match="not loaded"):
        row.note  # noqa: B018
    there = snapshot(row)
    assert there.get_deferred_fields() == {"note"}


def test_what_a_field_encrypts_for_the_database_travels_as_it_is_in_the_instance() -> None:
    Parcel.objects.create(note="secret")
    sent = Encoder(snapshot=True).encode(Parcel.objects.get())
    assert sent["$snapshot"][3]["note"] == "secret"
    assert Decoder().decode(sent).note == "secret"


def test_a_field_of_its_own_type_needs_only_what_django_asks_of_it() -> None:
    there = snapshot(Parcel(label=Code("é $ :"), ticket_id=Code("T1")))
    assert (there.label, there.ticket_id) == (Code("é $ :"), Code("T1"))


def test_a_field_with_values_of_its_own_type_travels_in_its_own_text_form() -> None:
    ticket = Ticket(code=Code("T1"), seat=Code("é $ :"))
    sent = Encoder().encode(ticket)
    assert sent["$snapshot"][3]["seat"] == {"$field": "é $ :"}
    there = travel(ticket)
    assert (there.code, there.seat, type(there.seat)) == (Code("T1"), Code("é $ :"), Code)


def test_a_value_that_its_field_cannot_say_is_refused_with_its_path() -> None:
    with pytest.raises(EncodeError, match="register_codec") as caught:
        Encoder().encode([Ticket(code=Code("T1"), sealed=Code("s"))])
    assert (caught.value.path, caught.value.type_name) == ("[0].sealed", "tests.shop.models.Code")
    assert caught.value.__context__ is None


def test_a_value_that_its_field_says_differently_is_refused() -> None:
    with pytest.raises(EncodeError) as caught:
        Encoder().encode(Customer(name=object()))  # type: ignore[misc]
    assert caught.value.path == ".name"


def test_a_key_that_its_field_cannot_say_is_refused() -> None:
    voucher = Voucher(code=Code("a"), number=1)
    voucher._state.adding = False
    voucher.number = object()  # type: ignore[assignment]
    with pytest.raises(EncodeError):
        Encoder().encode(voucher)


def test_depth_is_right_after_a_field_has_said_a_value_itself() -> None:
    ticket = Ticket(code=Code("T1"), seat=Code("1"))
    with override_settings(DEFERRED_SIGNALS={"MAX_DEPTH": 3}):
        encoder = Encoder()
        for _ in range(5):
            encoder.encode([[ticket]])
        assert encoder.depth == 0


@pytest.mark.parametrize(
    "tags", [{}, {"a": [1, None, {"$ref": 1}]}, [], None, "text", 1.5, {"when": "now", "deep": {"x": {"y": [[]]}}}]
)
def test_json_fields_arrive_as_they_were(tags: Any) -> None:
    assert snapshot(Article(title="a", tags=tags)).tags == tags


@pytest.mark.parametrize(
    "details", [Code("a"), {"x": [Code("a"), {"y": 1.5}]}, {"deep": [Code("é")], "none": None}], ids=str
)
def test_json_fields_arrive_by_their_own_encoder_and_decoder_where_the_codec_does_not_know_a_type(details: Any) -> None:
    assert snapshot(Parcel(details=details)).details == details


@pytest.mark.parametrize("details", [{1: Code("a")}, (Code("a"),), [object()]])
def test_what_a_json_field_would_change_is_refused(details: Any) -> None:
    with pytest.raises(EncodeError) as caught:
        snapshot(Parcel(details=details))
    assert caught.value.path.startswith(".details")


def test_what_is_too_large_is_not_tried_again_as_a_text() -> None:
    with override_settings(DEFERRED_SIGNALS={"MAX_SIZE": 20}), pytest.raises(TooLarge):
        snapshot(Parcel(details=[1] * 100))


SHELF = {
    "places": [[1, None], [2, 3]],
    "names": ["a", "é"],
    "free": DateRange(date(2026, 1, 1), date(2026, 2, 1)),
}


def test_array_and_range_fields_arrive_as_they_were() -> None:
    there = snapshot(Shelf(**SHELF))
    assert {name: getattr(there, name) for name in SHELF} == SHELF
    assert type(there.free) is DateRange


@pytest.mark.skipif(
    connections["default"].vendor != "postgresql", reason="arrays are of PostgreSQL: make test-postgresql"
)
def test_rows_with_array_and_range_fields_arrive() -> None:
    with connections["default"].schema_editor() as editor:
        editor.create_model(Shelf)
    row = Shelf.objects.get(pk=Shelf.objects.create(**SHELF).pk)
    for there in (travel(row), snapshot(row)):
        assert fields(there) == fields(row)
        assert there.places == SHELF["places"]


@pytest.mark.parametrize("scan", [b"", b"\x00\xff", bytearray(b"\x01"), memoryview(b"\x02\x03")])
def test_binary_fields_arrive_as_they_were(scan: Any) -> None:
    there = snapshot(Ticket(code=Code("T1"), scan=scan))
    assert bytes(there.scan) == bytes(scan)


@pytest.fixture
def _storage() -> Iterator[None]:
    field = Article._meta.get_field("picture")
    kept, field.storage = field.storage, InMemoryStorage()
    yield
    field.storage = kept


@pytest.mark.usefixtures("_storage")
class TestFiles:
    @pytest.mark.parametrize("picture", [None, "", "cats/a.png"])
    @pytest.mark.parametrize("looked_at", [True, False])
    def test_a_file_arrives_by_its_name(self, picture: str | None, looked_at: bool) -> None:
        article = Article(title="a", picture=picture)
        if looked_at:
            assert article.picture is not None
        assert snapshot(article).picture == picture

    def test_an_image_arrives_with_its_size_and_is_not_opened(self) -> None:
        Parcel.objects.create(photo="cats/a.png", photo_width=4, photo_height=5)
        there = snapshot(Parcel.objects.get())
        assert (there.photo.name, there.photo_width, there.photo_height) == ("cats/a.png", 4, 5)

    def test_a_saved_file_can_be_read_on_arrival(self) -> None:
        article = Article.objects.create(title="a", picture=ContentFile(b"meow", "a.txt"))
        with snapshot(article).picture.open() as file:
            assert file.read() == b"meow"

    @pytest.mark.parametrize("looked_at", [True, False])
    def test_a_file_that_is_not_stored_yet_is_deferred_until_it_is(self, looked_at: bool) -> None:
        Article.objects.create(title="a", picture=ContentFile(b"old", "a.txt"))
        article = Article.objects.get()
        article.picture = ContentFile(b"new", "a.txt")
        if looked_at:
            assert article.picture.name == "a.txt"
        there = snapshot(article)
        article.save()
        assert article.picture.name != "a.txt"
        assert there.picture.name == article.picture.name


def test_what_only_hangs_on_an_instance_stays_behind(order: Order) -> None:
    row = Order.objects.select_related("customer").annotate(more=Value(1)).get()
    there = snapshot(row)
    assert not hasattr(there, "more")
    assert "customer" not in there._state.fields_cache


def test_a_model_of_a_migration_is_refused_as_instance_and_as_class() -> None:
    state = ProjectState()
    state.add_model(ModelState.from_model(Customer))
    historical = state.apps.get_model("shop", "Customer")
    for value in (historical, historical(name="x")):
        with pytest.raises(EncodeError, match="historical") as caught:
            Encoder().encode(value)
        assert caught.value.type_name == "__fake__.Customer"


def test_a_snapshot_announces_itself_as_every_loaded_row_does(anna: Customer) -> None:
    seen: list[Any] = []

    def note(sender: Any, **kwargs: Any) -> None:
        seen.append(sender)

    sent = Encoder(snapshot=True).encode(anna)
    pre_init.connect(note, sender=Customer)
    Decoder().decode(sent)
    pre_init.disconnect(note, sender=Customer)
    assert seen == [Customer]


@pytest.mark.parametrize(
    "data",
    [
        ["shop.nothing", None, True, {}],
        ["shop.customer", "elsewhere", False, {}],
        ["shop.customer", 5, False, {}],
        ["shop.customer", None, "yes", {}],
        ["shop.customer", None, None, {}],
        ["shop.customer", None, True, []],
        ["shop.customer", None, True, None],
        ["shop.customer", None, True, {"pk": 1}],
        ["shop.customer", None, True, {"save": 1}],
        ["shop.customer", None, True, {"_state": 1}],
        ["shop.customer", None, True, {"__class__": 1}],
        ["shop.customer", None, True, {"objects": 1}],
        ["shop.customer", None, True, {"id": {"$field": "x"}}],
        ["shop.customer", None, True, {"id": {"$field": 5}}],
        ["shop.order", None, True, {"id": {"$field": "no uuid"}}],
        ["shop.order", None, True, {"placed": {"$field": "yesterday"}}],
        ["shop.customer", None, True],
        "shop.customer",
        5,
    ],
    ids=str,
)
def test_a_snapshot_that_makes_no_sense_is_a_decode_error(data: Any) -> None:
    with queries(0), pytest.raises(DecodeError) as caught:
        Decoder().decode({"$snapshot": data})
    assert "yesterday" not in str(caught.value)


def test_a_field_that_a_release_has_added_is_deferred(anna: Customer) -> None:
    sent = Encoder(snapshot=True).encode(anna)
    del sent["$snapshot"][3]["email"]
    assert Decoder().decode(sent).email == "anna@example.com"


# --- Classes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [Customer, Regular, GiftOrder, Line, User, ContentType, Article.buyers.through])
def test_model_classes_arrive_by_their_label(model: type[models.Model]) -> None:
    assert Encoder().encode(model) == {"$model": model._meta.label_lower}
    assert travel(model) is model


def test_a_model_that_replaces_another_of_its_label_is_the_one_that_travels(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced = dict(apps.all_models["shop"], customer=Order)
    monkeypatch.setitem(apps.all_models, "shop", replaced)
    for value in (Customer, Customer(name="x")):
        with pytest.raises(EncodeError, match="app registry"):
            Encoder().encode(value)


def test_a_model_of_an_isolated_registry_is_refused() -> None:
    with isolate_apps("tests.shop"):

        class Elsewhere(models.Model):
            class Meta:
                app_label = "shop"

        with pytest.raises(EncodeError, match="app registry"):
            Encoder().encode(Elsewhere(pk=1))


def test_an_abstract_model_is_refused() -> None:
    with pytest.raises(EncodeError, match="app registry"):
        Encoder().encode(AbstractUser)


@pytest.mark.parametrize("label", ["shop.nothing", "shop", "", "a.b.c", None, 5, ["shop.customer"], "os.system"])
def test_a_label_that_is_none_is_a_decode_error(label: Any) -> None:
    with pytest.raises(DecodeError, match="not installed"):
        Decoder().decode({"$model": label})


# --- QuerySets -------------------------------------------------------------------------------------------------------


@pytest.fixture
def customers() -> list[Customer]:
    return [Customer.objects.create(name=name) for name in ("a", "b", "c")]


def test_a_queryset_travels_as_its_keys_and_arrives_lazy(customers: list[Customer]) -> None:
    with queries(1):
        sent = payload(value=Customer.objects.filter(name__gte="b"))
    Customer.objects.create(name="d")
    with queries(0):
        there = arrived(sent)["value"]
    assert isinstance(there, models.QuerySet)
    assert {it.name for it in there} == {"b", "c"}
    assert there.filter(name="c").count() == 1


def test_a_queryset_that_has_been_read_is_not_read_again(customers: list[Customer]) -> None:
    read = Customer.objects.order_by("-name")
    assert len(read) == 3
    with queries(0):
        sent = Encoder().encode(read)
    assert sent == {"$queryset": ["shop.customer", "default", [it.pk for it in reversed(customers)]]}


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (lambda rows: rows.order_by("name")[1:], "bc"),
        (lambda rows: rows.none(), ""),
        (lambda rows: rows.only("name"), "abc"),
        (lambda rows: rows.prefetch_related().prefetch_related("order_set"), "abc"),
        (lambda rows: rows.filter(name="a").union(rows.filter(name="b")), "ab"),
        (lambda rows: rows.annotate(n=models.Count("order")).filter(n=0), "abc"),
        (lambda rows: rows.distinct(), "abc"),
        (lambda rows: rows.filter(name="a") | rows.filter(name="c"), "ac"),
    ],
)
def test_querysets_of_every_kind_arrive(kind: Any, names: str, customers: list[Customer]) -> None:
    assert sorted(it.name for it in travel(kind(Customer.objects.all()))) == list(names)


def test_a_queryset_of_hidden_rows_and_composite_or_odd_keys_arrives() -> None:
    Article.objects.create(title="h", hidden=True)
    line = Line.objects.create(order_id=uuid.uuid4(), number=1)
    ticket = Ticket.objects.create(code=Code("T1"))
    assert travel(Article._base_manager.all()).get().title == "h"
    assert travel(Line.objects.all()).get() == line
    assert travel(Ticket.objects.all()).get() == ticket


def test_a_queryset_of_joined_rows_has_each_of_them_once(anna: Customer) -> None:
    for _ in range(2):
        Order.objects.create(customer=anna)
    twice = Customer.objects.filter(order__total__gte=0)
    assert len(twice) == 2
    assert travel(twice).get() == anna


def test_a_queryset_arrives_in_the_order_of_its_model(customers: list[Customer]) -> None:
    there = travel(Customer.objects.order_by("-name"))
    assert there.ordered is Customer.objects.all().ordered
    assert {it.name for it in there} == {"a", "b", "c"}
    assert [it.name for it in travel(list(Customer.objects.order_by("-name")))] == ["c", "b", "a"]


def test_what_was_annotated_or_prefetched_does_not_come_with_a_queryset(customers: list[Customer]) -> None:
    there = travel(Customer.objects.annotate(n=models.Count("order")).prefetch_related("order_set")).first()
    assert not hasattr(there, "n")
    with queries(1):
        assert list(there.order_set.all()) == []


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        (lambda rows: rows.raw("SELECT * FROM shop_customer"), "Send a list of it"),
        (lambda rows: rows, "manager.all()"),
        (lambda rows: rows.create(name="d").order_set, "manager.all()"),
        (lambda rows: Article.objects.create(title="a").buyers, "manager.all()"),
    ],
)
def test_what_is_only_like_a_queryset_is_refused_and_told_the_way(kind: Any, remedy: str) -> None:
    value = kind(Customer.objects)
    with queries(0), pytest.raises(EncodeError) as caught:
        Encoder().encode(value)
    assert remedy in caught.value.reason


@pytest.mark.parametrize("kind", ["values", "values_list"])
def test_a_values_queryset_is_refused(kind: str) -> None:
    with queries(0), pytest.raises(EncodeError, match="Send a list of it"):
        Encoder().encode(getattr(Customer.objects, kind)("name"))


def test_a_queryset_of_another_database_arrives_from_there() -> None:
    Customer.objects.using("other").create(name="Olga")
    assert travel(Customer.objects.using("other")).get().name == "Olga"


def test_a_queryset_that_would_read_a_replica_arrives_from_the_primary() -> None:
    Customer.objects.using("other").create(pk=7, name="stale")
    Customer.objects.using("default").create(pk=7, name="fresh")
    with override_settings(DATABASE_ROUTERS=[f"{__name__}.Replica"]):
        there = travel(Customer.objects.all())
        assert there.db == "default"
        assert there.get().name == "fresh"
        assert travel(Customer.objects.using("other")).get().name == "stale"


@pytest.mark.parametrize(
    "data",
    [
        ["shop.nothing", "default", [1]],
        ["shop.customer", "elsewhere", [1]],
        ["shop.customer", "default", "1, 2"],
        ["shop.customer", "default", {"a": 1}],
        ["shop.customer", "default", None],
        ["shop.customer", "default", ["x"]],
        ["shop.customer", "default"],
        None,
    ],
    ids=str,
)
def test_a_queryset_that_makes_no_sense_is_a_decode_error(data: Any) -> None:
    with queries(0), pytest.raises(DecodeError):
        Decoder().decode({"$queryset": data})


# --- Cost ------------------------------------------------------------------------------------------------------------


def test_an_encoder_leaves_no_cycles_behind(anna: Customer) -> None:
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            Encoder().encode({"instance": anna, "created": True})
        assert gc.collect() == 0
    finally:
        gc.enable()
