"""A row is read by a statement that is made once, and arrives as Django's own ``get`` has it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db import DatabaseError, connections, models, transaction
from django.db.models.signals import post_init
from django.test import override_settings
from django.test.utils import CaptureQueriesContext, isolate_apps

from deferred_signals import rows

from .shop.models import AccessToken, AnyField, Article, Customer, GiftOrder, Line, Note, Order, Parcel, Regular, Ticket
from .test_codec_models import SHAPES, fields, rows_of_every_shape

pytestmark = pytest.mark.django_db(databases=["default", "other"])

PLAIN = (Customer, Regular, Order, Note, Parcel, User, ContentType, Article.buyers.through)
OTHERS = (Article, GiftOrder, Line, Ticket, AccessToken)


def statement(model: Any, alias: str = "default") -> Any:
    """What is read by, None where Django's own ``get`` reads."""
    return rows._statement_of(model, alias, connections[alias].vendor)


class Counted:
    """Whether Django made a query and wrote its SQL."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        get = models.QuerySet.get

        def counting(queryset: Any, *args: Any, **kwargs: Any) -> Any:
            self.count += 1
            return get(queryset, *args, **kwargs)

        monkeypatch.setattr(models.QuerySet, "get", counting)


@pytest.fixture
def gets(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_of_every_shape_is_read_as_django_reads_it(shape: str) -> None:
    row = rows_of_every_shape()[shape]
    model = type(row)
    expected = model._base_manager.get(pk=row.pk)
    with CaptureQueriesContext(connections["default"]) as queries:
        found = rows.read(model, row.pk, "default")
    assert len(queries) == 1
    assert (type(found), fields(found)) == (model, fields(expected))
    assert (found._state.db, found._state.adding) == ("default", False)


@pytest.mark.parametrize("model", PLAIN)
def test_rows_of_plain_models_are_read_without_making_the_query_anew(model: type[models.Model]) -> None:
    assert statement(model) is not None


@pytest.mark.parametrize(("model", "is_converted"), [(Customer, False), (User, None), (Order, None), (Parcel, True)])
def test_values_that_are_converted_on_their_way_are_so_here(model: type[models.Model], is_converted: Any) -> None:
    # SQLite and MySQL have times and UUIDs converted, PostgreSQL has not.
    expected = connections["default"].vendor != "postgresql" if is_converted is None else is_converted
    assert (statement(model).names is None) is expected


def queries_of_django(shape: str, gets: Counted) -> int:
    """How many there are in the reading of a row of that shape."""
    row = rows_of_every_shape()[shape]
    gets.count = 0
    assert rows.read(type(row), row.pk, "default") == row
    return gets.count


@pytest.mark.parametrize("shape", ["big auto field", "uuid", "proxy", "fields of every kind"])
def test_the_statement_is_used(shape: str, gets: Counted) -> None:
    assert queries_of_django(shape, gets) == 0


@pytest.mark.parametrize("shape", ["multi-table", "composite", "text", "type of its own"])
def test_rows_of_other_models_are_read_by_django(shape: str, gets: Counted) -> None:
    assert queries_of_django(shape, gets) == 1


def test_a_row_is_read_from_the_database_that_is_named() -> None:
    Customer.objects.create(pk=7, name="here")
    Customer.objects.using("other").create(pk=7, name="there")
    found = [rows.read(Customer, 7, alias) for alias in ("default", "other")]
    assert [(row.name, row._state.db) for row in found] == [("here", "default"), ("there", "other")]


@pytest.mark.parametrize("key", [0, -1, 5, 2**31, 2**63, 10**30, None, "5"])
def test_a_row_that_is_not_there_does_not_exist(key: Any) -> None:
    with pytest.raises(Customer.DoesNotExist):
        rows.read(Customer, key, "default")


@pytest.mark.parametrize(
    "field", [models.CharField(max_length=50), models.DateTimeField(null=True)], ids=["plain", "converted"]
)
def test_of_two_rows_with_one_key_none_is_chosen(field: Any) -> None:
    """As in a view."""
    with isolate_apps("tests.shop"):

        class Twice(models.Model):
            value = field

            class Meta:
                db_table = "twice"
                managed = False
                app_label = "shop"

    with connections["default"].cursor() as cursor:
        cursor.execute("CREATE VIEW twice AS SELECT 1 AS id, NULL AS value UNION ALL SELECT 1, NULL")
    try:
        with pytest.raises(Twice.MultipleObjectsReturned):
            rows.read(Twice, 1, "default")
    finally:
        with connections["default"].cursor() as cursor:
            cursor.execute("DROP VIEW twice")


def test_a_uuid_that_is_not_there_does_not_exist() -> None:
    with pytest.raises(Order.DoesNotExist):
        rows.read(Order, uuid.uuid4(), "default")


def test_a_manager_of_the_projects_own_is_asked_each_time(gets: Counted) -> None:
    class Hiding(models.Manager[Any]):
        def get_queryset(self) -> models.QuerySet[Any]:
            return super().get_queryset().exclude(name="Anna")

    with isolate_apps("tests.shop"):

        class Hidden(models.Model):
            name = models.CharField(max_length=50)
            objects = Hiding()

            class Meta:
                db_table = Customer._meta.db_table
                base_manager_name = "objects"
                app_label = "shop"

    anna, berta = (Customer.objects.create(name=name) for name in ("Anna", "Berta"))
    with pytest.raises(Hidden.DoesNotExist):
        rows.read(Hidden, anna.pk, "default")
    assert rows.read(Hidden, berta.pk, "default").name == "Berta"
    assert gets.count == 2


def test_a_field_that_is_not_read_as_it_stands_in_the_table_is_read_by_django(gets: Counted) -> None:
    class Shouted(AnyField):
        def select_format(self, compiler: Any, sql: str, params: Any) -> tuple[str, Any]:
            return f"UPPER({sql})", params

    with isolate_apps("tests.shop"):

        class Loud(models.Model):
            name = Shouted(max_length=50)

            class Meta:
                db_table = Customer._meta.db_table
                app_label = "shop"

    anna = Customer.objects.create(name="Anna")
    assert rows.read(Loud, anna.pk, "default").name == "ANNA"
    assert gets.count == 1


def test_a_model_whose_table_is_another_one_now_is_read_from_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in projects whose tables are of a tenant."""
    pk = Customer.objects.create(pk=77, name="Anna").pk
    assert rows.read(Customer, pk, "default").name == "Anna"
    monkeypatch.setattr(Customer._meta, "db_table", "customers_of_a_tenant")
    with pytest.raises(DatabaseError), transaction.atomic():
        rows.read(Customer, pk, "default")


def test_a_model_that_has_got_a_field_is_read_with_it() -> None:
    with isolate_apps("tests.shop"):

        class Grown(models.Model):
            class Meta:
                db_table = Customer._meta.db_table
                app_label = "shop"

    anna = Customer.objects.create(name="Anna")
    assert rows.read(Grown, anna.pk, "default").pk == anna.pk
    with isolate_apps("tests.shop"):
        models.CharField(max_length=50).contribute_to_class(Grown, "name")
    assert rows.read(Grown, anna.pk, "default").__dict__["name"] == "Anna"


def test_times_are_read_as_the_settings_of_the_moment_say() -> None:
    """On MySQL they are converted with USE_TZ only."""
    with isolate_apps("tests.shop"):

        class Login(models.Model):
            last_login = models.DateTimeField(null=True)

            class Meta:
                db_table = User._meta.db_table
                app_label = "shop"

    user = User.objects.create(username="anna", last_login=datetime(2026, 1, 2, tzinfo=UTC))
    for use_tz in (False, True, False):
        with override_settings(USE_TZ=use_tz):
            expected = Login._base_manager.get(pk=user.pk)
            assert fields(rows.read(Login, user.pk, "default")) == fields(expected)


def told(read: Callable[[], Any]) -> Any:
    try:
        with transaction.atomic():
            return fields(read())
    except DatabaseError as error:
        return type(error)


def test_a_column_that_the_table_spells_in_another_way_is_read_by_django() -> None:
    """SQLite and MySQL find ``NAME`` where the table has ``name``. PostgreSQL does not."""
    with isolate_apps("tests.shop"):

        class Legacy(models.Model):
            id = models.AutoField(primary_key=True, db_column="ID")
            login = models.DateTimeField(db_column="LAST_LOGIN", null=True)

            class Meta:
                db_table = User._meta.db_table
                app_label = "shop"

        class Half(models.Model):
            login = models.DateTimeField(db_column="LAST_LOGIN", null=True)

            class Meta:
                db_table = User._meta.db_table
                app_label = "shop"

    user = User.objects.create(username="anna", last_login=datetime(2026, 1, 2, tzinfo=UTC))
    for model in (Legacy, Half):
        ours, djangos = (partial(rows.read, model, user.pk, "default"), partial(model._base_manager.get, pk=user.pk))
        assert told(ours) == told(djangos)


def test_signals_and_from_db_are_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    def from_db(cls: Any, *args: Any, **kwargs: Any) -> Any:
        made = models.Model.from_db.__func__(cls, *args, **kwargs)  # type: ignore[attr-defined]
        told.append("from_db")
        return made

    def made(instance: Any, **kwargs: Any) -> None:
        told.append(instance.name)

    anna = Customer.objects.create(name="Anna")
    monkeypatch.setattr(Customer, "from_db", classmethod(from_db))
    post_init.connect(made, sender=Customer)
    try:
        rows.read(Customer, anna.pk, "default")
    finally:
        post_init.disconnect(made, sender=Customer)
    assert told == ["Anna", "from_db"]
