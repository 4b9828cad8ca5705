"""``register_codec`` as people will use it: money, enums, pydantic models, attrs classes, subclasses of builtins."""

from __future__ import annotations

import enum
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, ClassVar

import attrs
import pydantic
import pytest

from deferred_signals import register_codec
from deferred_signals.codec import Decoder, Encoder, base, custom
from deferred_signals.exceptions import DecodeError, EncodeError
from deferred_signals.strict_json import dump

from .travel import canonical, travel

HERE = __name__


@pytest.fixture(autouse=True)
def _codecs_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    base.load()
    for table in ("_exact", "_families", "tags", "_found"):
        monkeypatch.setattr(base, table, dict(getattr(base, table)))
    monkeypatch.setattr(custom, "tags", base.tags)
    monkeypatch.setattr(custom, "_owners", {})


# --- Money -----------------------------------------------------------------------------------------------------------


class Money:
    """As libraries have it: an amount, a currency, arithmetic."""

    def __init__(self, amount: Decimal, currency: str) -> None:
        self.amount, self.currency = amount, currency

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.amount, self.currency))


def test_money_travels_in_and_as_everything() -> None:
    register_codec(Money, tag="money", encode=lambda it: [it.amount, it.currency], decode=lambda parts: Money(*parts))
    price = Money(Decimal("9.90"), "EUR")
    value = {"total": price, price: {price}, "lines": [(price, 2)]}
    assert travel(value) == value
    assert dump(Encoder().encode(price)) == '{"$money":[{"$decimal":"9.90"},"EUR"]}'


# --- Enums -----------------------------------------------------------------------------------------------------------


class Status(enum.Enum):
    """An enum with behaviour, whose members may be renamed; its values stand in the database and stay."""

    DRAFT = 1
    PUBLIC = 2

    def is_visible(self) -> bool:
        return self is Status.PUBLIC


def test_an_enum_may_travel_by_value_instead_of_by_name() -> None:
    assert Encoder().encode(Status.PUBLIC) == {"$enum": [f"{HERE}.Status", "PUBLIC"]}
    register_codec(Status, tag="status", encode=lambda it: it.value, decode=Status)
    assert Encoder().encode(Status.PUBLIC) == {"$status": 2}
    assert travel({Status.PUBLIC: Status.DRAFT}) == {Status.PUBLIC: Status.DRAFT}
    assert travel(Status.PUBLIC).is_visible()
    with pytest.raises(DecodeError):
        Decoder().decode({"$status": 3})


# --- pydantic --------------------------------------------------------------------------------------------------------


class Line(pydantic.BaseModel):
    sku: str
    price: Decimal
    amount: int = 1


class GiftLine(Line):
    greeting: str | None = None


class Basket(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")

    owner: str
    made: datetime
    lines: list[Line]
    kind: Any = Status.DRAFT


class Validated(pydantic.BaseModel):
    checked: ClassVar[list[Any]] = []
    x: int

    @pydantic.field_validator("x")
    @classmethod
    def check(cls, value: int) -> int:
        cls.checked.append(value)
        return value


def of_pydantic(parts: list[Any]) -> Any:
    kind, fields_set, values = parts
    if not issubclass(kind, pydantic.BaseModel):
        raise ValueError("not a model")
    return kind.model_construct(fields_set, **values)


def teach_pydantic() -> None:
    register_codec(
        pydantic.BaseModel,
        tag="pydantic",
        subclasses=True,
        encode=lambda it: [type(it), it.model_fields_set, dict(it)],
        decode=of_pydantic,
    )


def test_one_codec_serves_all_pydantic_models_and_each_keeps_its_class() -> None:
    teach_pydantic()
    more: Any = {"note": {"more": (1, 2)}}
    basket = Basket(
        owner="Ada",
        made=datetime(2026, 1, 2, tzinfo=UTC),
        lines=[Line(sku="a", price=Decimal("1.10")), GiftLine(sku="b", price=Decimal(2), greeting="Hi")],
        **more,
    )
    arrived: Any = travel({"basket": basket})["basket"]
    assert arrived == basket
    assert [type(line) for line in arrived.lines] == [Line, GiftLine]
    assert arrived.model_fields_set == basket.model_fields_set
    assert arrived.lines[0].model_fields_set == {"sku", "price"}
    assert arrived.model_dump() == basket.model_dump()
    assert arrived.note == {"more": (1, 2)}


def test_a_pydantic_model_is_made_again_without_its_validators() -> None:
    teach_pydantic()
    value = Validated(x=1)
    assert travel(value) == value
    assert Validated.checked == [1]


def test_what_no_codec_knows_in_a_pydantic_model_is_told_with_its_path() -> None:
    teach_pydantic()
    with pytest.raises(EncodeError) as caught:
        Encoder().encode([Basket(owner="Ada", made=datetime(2026, 1, 2, tzinfo=UTC), lines=[], kind=object())])
    assert "['kind']" in caught.value.path


@pytest.mark.parametrize(
    "data", [None, [], ["x"], [{"$class": "builtins.dict"}, {"$set": []}, {}], [{"$class": "no.Where"}, 1, 2]]
)
def test_nonsense_for_a_pydantic_model_is_a_decode_error(data: Any) -> None:
    teach_pydantic()
    with pytest.raises(DecodeError):
        Decoder().decode({"$pydantic": data})


# --- attrs -----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Address:
    street: str
    city: str = "Vienna"


@attrs.define
class Parcel:
    to: Address
    weight: Decimal
    _number: int = 0


@pytest.mark.parametrize("kind", [Address, Parcel])
def test_an_attrs_class_without_a_codec_is_refused_with_the_remedy(kind: type) -> None:
    with pytest.raises(EncodeError, match=r"register_codec\(\)"):
        Encoder().encode(object.__new__(kind))


def test_attrs_classes_travel_with_one_line_each() -> None:
    def teach(kind: type[attrs.AttrsInstance]) -> None:
        register_codec(kind, encode=lambda it: attrs.astuple(it, recurse=False), decode=lambda parts: kind(*parts))

    teach(Address)
    teach(Parcel)
    parcel = Parcel(Address("Ring 1"), Decimal("1.5"), 7)
    assert travel({Address("Ring 1"): [parcel]}) == {Address("Ring 1"): [parcel]}
    assert list(Encoder().encode(parcel)) == [f"${HERE}.Parcel"]


# --- Subclasses of builtins ------------------------------------------------------------------------------------------


class Slug(str):
    """Text that has been checked."""

    __slots__ = ()


class Cents(int):
    """Whole cents."""


class Percent(Decimal):
    """Of a hundred."""


class Birthday(date):
    """A day that comes back."""


class Options(dict[str, Any]):
    """A dict with a method of its own."""


@pytest.mark.parametrize(
    ("value", "encode", "decode"),
    [
        (Slug("a-b"), str, Slug),
        (Cents(5), int, Cents),
        (Percent("1.10"), Decimal, Percent),
        (Birthday(2026, 1, 2), date.isoformat, Birthday.fromisoformat),
        (Options(a=1), dict, Options),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_the_remedy_that_the_error_names_for_a_subclass_works(value: Any, encode: Any, decode: Any) -> None:
    kind = type(value)
    with pytest.raises(EncodeError, match=r"register_codec\(\)"):
        Encoder().encode(value)
    register_codec(kind, encode=encode, decode=decode)
    assert canonical(travel([value, {"a": value}])) == canonical([value, {"a": value}])
    assert canonical(json.loads(dump(Encoder().encode(value)))) != canonical(value)


def test_a_codec_for_a_class_and_its_subclasses_may_keep_the_class() -> None:
    register_codec(
        Slug,
        tag="slug",
        subclasses=True,
        encode=lambda it: [type(it), str(it)],
        decode=lambda parts: str.__new__(parts[0], parts[1]),
    )
    assert type(travel(Upper("A"))) is Upper
    assert type(travel(Slug("a"))) is Slug


class Upper(Slug):
    __slots__ = ()
