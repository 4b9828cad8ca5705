"""Names are looked up, never imported, and nobody's code runs on the way."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from decimal import Decimal
from typing import Any

import pytest
from django.db import router
from django.db.models import Value
from django.db.models.base import Model, ModelBase
from django.test import override_settings
from django.utils.functional import SimpleLazyObject

from deferred_signals.exceptions import DecodeError
from deferred_signals.references import (
    Reference,
    is_importable,
    is_instance,
    is_model,
    is_same_instance,
    key_of,
    known_alias,
    label_of,
    look_up,
    model_of,
    path_of,
    write_alias,
)
from deferred_signals.rows import fetch

from .shop.models import Article, Customer, Line, Regular

HERE = __name__


class Holder:
    class Inner:
        def method(self) -> None: ...

    @staticmethod
    def static() -> None: ...

    @classmethod
    def of_class(cls) -> None: ...

    @property
    def computed(self) -> int:
        raise AssertionError("it ran")


class Heir(Holder):
    pass


def function() -> None: ...


alias_of_function = function


@pytest.mark.parametrize(
    "thing",
    [Holder, Holder.Inner, Holder.Inner.method, Holder.static, function, len, str, os.getcwd],
)
def test_what_stands_at_module_level_is_found_by_its_own_path(thing: Any) -> None:
    assert is_importable(thing)
    assert look_up(str(path_of(thing))) is thing


def test_nobodys_type_is_found() -> None:
    assert path_of(type(None)) == "types.NoneType"
    assert look_up("types.NoneType") is type(None)


@pytest.mark.parametrize("thing", [lambda: None, type("Made", (), {}), 5, "text", Holder(), None, types, property()])
def test_what_has_no_path_of_its_own_is_not_importable(thing: Any) -> None:
    assert not is_importable(thing)


def test_a_local_function_has_no_path() -> None:
    def local() -> None: ...

    assert path_of(local) is None


def test_a_path_that_leads_to_something_else_is_not_importable() -> None:
    def other() -> None: ...

    other.__qualname__ = "function"
    assert path_of(other) == f"{HERE}.function"
    assert not is_importable(other)


def test_members_are_found_in_bases_and_static_methods_are_unwrapped() -> None:
    assert look_up(f"{HERE}.Heir.static") is Holder.static
    assert look_up(f"{HERE}.Heir.Inner.method") is Holder.Inner.method
    assert look_up(f"{HERE}.alias_of_function") is function


def test_descriptors_are_returned_and_not_asked() -> None:
    assert look_up(f"{HERE}.Holder.computed") is vars(Holder)["computed"]
    assert look_up(f"{HERE}.Holder.of_class") is vars(Holder)["of_class"]


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "..",
        "builtins",
        "builtins.",
        ".builtins",
        "builtins.nothing",
        "builtins..len",
        "builtins.len.__self__",
        "builtins.str.nothing",
        f"{HERE}.os.system",
        f"{HERE}.os.path.join",
        f"{HERE}.Holder.nothing.more",
        f"{HERE}.function.__globals__",
        "no.such.module",
        "antigravity.x",
        "sys.modules.os",
        "builtins.len\n",
        "a." * 500 + "b",
        "." * 999,
    ],
)
def test_nothing_is_found_elsewhere(path: str) -> None:
    modules = set(sys.modules)
    assert look_up(path) is None
    assert set(sys.modules) == modules


def test_a_path_of_a_megabyte_takes_no_time() -> None:
    assert look_up("a." * 500_000) is None


def test_no_module_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lazy(types.ModuleType):
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(f"{name} was asked")

    lazy = Lazy("traps")
    types.ModuleType.__getattribute__(lazy, "__dict__")["function"] = function
    monkeypatch.setitem(sys.modules, "traps", lazy)
    monkeypatch.setitem(sys.modules, "traps.none", None)  # as import writes it
    assert look_up("traps.function") is function
    assert look_up("traps.none.x") is None
    assert look_up("traps.other") is None


def test_no_metaclass_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Meta(type):
        def __getattribute__(cls, name: str) -> Any:
            raise AssertionError(f"{name} was asked")

    class Tricky(metaclass=Meta):
        def method(self) -> None: ...

    module: Any = types.ModuleType("traps")
    module.Tricky = Tricky
    monkeypatch.setitem(sys.modules, "traps", module)
    assert isinstance(look_up("traps.Tricky.method"), types.FunctionType)
    assert look_up("traps.Tricky.other") is None


def test_models_are_known_from_other_things() -> None:
    assert is_model(Customer)
    assert is_model(Model)
    assert not is_model(Customer())
    assert not is_model(ModelBase)
    assert is_instance(Customer())
    assert is_instance(SimpleLazyObject(Customer))
    assert not is_instance(Customer)


def test_instances_are_of_one_row_by_model_and_key() -> None:
    one = Customer(pk=1)
    assert is_same_instance(one, Customer(pk=1))
    assert is_same_instance(one, Regular(pk=1))
    assert is_same_instance(new := Customer(), new)
    assert not is_same_instance(one, Customer(pk=2))
    assert not is_same_instance(Customer(), Customer())
    assert not is_same_instance(Customer(pk=Value(7)), Customer(pk=Value(7)))  # a key that the database will make
    assert not is_same_instance(one, Article(pk=1))
    assert not is_same_instance(one, 1)
    assert not is_same_instance(None, one)


def test_where_there_are_no_models_nothing_is_one() -> None:
    code = (
        "import sys\n"
        "from deferred_signals.references import is_instance, is_model\n"
        "assert 'django.db.models.base' not in sys.modules\n"
        "assert not is_model(int) and not is_instance(5)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_where_there_are_no_models_nothing_is_one_here_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "django.db.models.base")
    assert not is_model(Customer)
    assert not is_instance(Customer())


def test_a_label_leads_to_the_model_and_back() -> None:
    assert model_of("shop.customer") is Customer
    assert label_of(Customer) == "shop.customer"
    assert label_of(Regular) == "shop.regular"


def test_a_model_that_the_registry_does_not_have_has_no_label() -> None:
    impostor: Any = type.__new__(ModelBase, "Customer", (), {"_meta": Customer._meta})
    assert label_of(impostor) is None


@pytest.mark.parametrize(
    "label", ["shop.nothing", "shop", "", ".", "a.b.c", None, 5, [], {}, b"shop.customer", Customer]
)
def test_no_other_label_leads_anywhere(label: Any) -> None:
    with pytest.raises(DecodeError):
        model_of(label)


@pytest.mark.parametrize("alias", ["nowhere", "", None, 5, [], {}, "DEFAULT", "default "])
def test_only_aliases_of_this_process_are_known(alias: Any) -> None:
    assert known_alias("other") == "other"
    with pytest.raises(DecodeError, match="DATABASES"):
        known_alias(alias)


def test_an_instance_is_written_where_it_came_from() -> None:
    made = Customer()
    assert write_alias(made) == "default"
    made._state.db = "other"
    assert write_alias(made) == "other"


class Elsewhere:
    """A router with an opinion about customers only."""

    def db_for_write(self, model: type[Model], **hints: Any) -> str | None:
        return "other" if model is Customer else None


@pytest.mark.parametrize("routers", [[], [f"{HERE}.Elsewhere"], [f"{HERE}.Holder"]])
def test_the_alias_is_what_djangos_router_says(routers: list[str]) -> None:
    with override_settings(DATABASE_ROUTERS=routers):
        for made in (Customer(), Line()):
            for alias in (None, "default", "other"):
                made._state.db = alias
                assert write_alias(made) == router.db_for_write(type(made), instance=made)


@pytest.mark.parametrize("routers", [[], [f"{HERE}.Elsewhere"]])
def test_a_lazy_object_is_written_where_what_it_wraps_is(routers: list[str]) -> None:
    with override_settings(DATABASE_ROUTERS=routers):
        made = Customer()
        lazy: Any = SimpleLazyObject(lambda: made)
        assert write_alias(lazy) == write_alias(made)


def test_a_key_is_read_by_its_fields() -> None:
    assert key_of(Customer, "5") == 5
    text = "6c08f93e-836f-4493-95c9-6ad0c683bc1a"
    order_id, number = key_of(Line, (text, "3"))
    assert (str(order_id), number) == (text, 3)


@pytest.mark.parametrize("key", ["x", [], {}, (), object(), float("inf"), float("nan")])
def test_what_is_no_key_is_said_without_showing_it(key: Any) -> None:
    with pytest.raises(DecodeError) as caught:
        key_of(Customer, key)
    assert str(caught.value) == "The payload's primary key is none for shop.customer."
    assert caught.value.__suppress_context__


def test_references_are_equal_by_what_they_say() -> None:
    assert Reference("shop.customer", 1, "default") == Reference("shop.customer", 1, "default")
    assert len({Reference("shop.customer", 1, "default"), Reference("shop.customer", 1, "other")}) == 2


def test_a_key_that_would_take_minutes_to_read_is_refused():
    with pytest.raises(DecodeError, match="primary key is none"):
        fetch(Reference("shop.customer", Decimal("1e4000000"), "default"))
