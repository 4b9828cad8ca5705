"""Plain values arrive as they were, whatever they are, or are refused with words that help."""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import ipaddress
import json
import math
import operator
import os
import pathlib
import pickle
import subprocess
import sys
import types
import uuid
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar
from zoneinfo import ZoneInfo

import pytest
from django.apps import apps
from django.contrib.auth.models import AnonymousUser
from django.db import models
from django.db.models.signals import post_save
from django.dispatch import Signal
from django.http import HttpRequest, QueryDict
from django.test import RequestFactory, override_settings
from django.urls import reverse_lazy
from django.utils import translation
from django.utils.datastructures import MultiValueDict
from django.utils.functional import SimpleLazyObject, cached_property, lazy
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy, ngettext_lazy
from hypothesis import given
from hypothesis import strategies as st

from deferred_signals.codec import CarriedError, Decoder, Encoder, NotCarried, base, custom, register_codec
from deferred_signals.codec.migrate import MigrationSnapshot
from deferred_signals.codec.requests import RequestSnapshot
from deferred_signals.codec.stand_ins import not_carried
from deferred_signals.exceptions import (
    ConnectError,
    DecodeError,
    EncodeError,
    NewerWire,
    NotCarriedError,
    UnknownReceiver,
)
from deferred_signals.references import path_of
from deferred_signals.strict_json import dump

from .shop.models import Article, Customer
from .travel import canonical, envelope, travel

T = TypeVar("T")
HERE = __name__


class Colour(enum.Enum):
    RED = "r"
    GREEN = "g"
    ROUGE = "r"  # noqa: PIE796 - another name of the same member


class Size(models.TextChoices):
    SMALL = "s", gettext_lazy("small")
    LARGE = "l", gettext_lazy("large")


class Level(models.IntegerChoices):
    LOW = 1
    HIGH = 2


class Number(enum.IntEnum):
    ONE = 1


class Right(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Mode(enum.IntFlag, boundary=enum.KEEP):
    X = 1
    W = 2


class Odd(enum.Enum):
    """An enum whose members have an interface of their own."""

    FIRST = object()

    @property
    def name(self) -> str:
        return "what the user reads"


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = 0


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: Any
    made_in: ClassVar[str] = "Vienna"

    @functools.cached_property
    def twice(self) -> Any:
        return self.x * 2

    @cached_property
    def thrice(self) -> Any:
        return self.x * 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Slotted:
    x: Any
    y: Any = None


@dataclasses.dataclass
class Typed(Generic[T]):
    x: T


@dataclasses.dataclass
class Child(Point):
    z: Any = dataclasses.field(default_factory=list)


class Extra(Point):
    """Not a dataclass of its own: what it adds to the fields of its base is in a slot."""

    __slots__ = ("hidden",)


class Pair(NamedTuple):
    left: Any
    right: Any = None


class Named(namedtuple("Named", "a b")):  # noqa: PYI024 - the untyped kind
    @functools.cached_property
    def total(self) -> int:
        return int(self.a + self.b)


class Plain:
    @staticmethod
    def static() -> None: ...

    def method(self) -> None: ...


class Alarm(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def function() -> None: ...


def decorated(wrapped: Any) -> Any:
    @functools.wraps(wrapped)
    def wrapper() -> None:
        wrapped()

    return wrapper


@decorated
def wrapped() -> None: ...


knock = Signal()
renamed = type("renamed", (Signal,), {"name": "not a path"})()


# --- Everything that travels arrives as it was -----------------------------------------------------------------------

ZONES = st.one_of(
    st.none(),
    st.timezones(),
    st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone),
    st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)), st.text("ABC", min_size=1)),
)
TEXT = st.one_of(
    st.text(), st.sampled_from(["$ref", "$", "$dict", "__type__", "__value__", "\x00", "\u2028", "é", "😀"])
)
HASHABLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(2**62, 2**66) | st.integers(-(2**66), -(2**62)),
    st.floats(),
    st.decimals(allow_nan=False),
    TEXT,
    TEXT.map(SafeString),
    st.binary(),
    st.dates(),
    st.datetimes(timezones=ZONES),
    st.builds(lambda when, fold: when.replace(fold=fold), st.datetimes(timezones=ZONES), st.integers(0, 1)),
    st.times(timezones=ZONES),
    st.timedeltas(),
    st.uuids(),
    st.sampled_from([*Colour, *Size, *Level, *Right, *Mode, Right.READ | Right.WRITE, Right(0), Mode(2**70 + 5)]),
    st.sampled_from([Number.ONE, Odd.FIRST]),
    st.text("ab/. é", max_size=5).map(pathlib.PurePosixPath),
    # Python 3.11 says two paths to be equal of which str() makes one, as of \\\\:\\ and \\:
    st.text("ab\\: é", max_size=5)
    .map(pathlib.PureWindowsPath)
    .filter(lambda path: repr(pathlib.PureWindowsPath(str(path))) == repr(path)),
    st.text("ab/. é", max_size=5).map(pathlib.Path),
    st.sampled_from([ZoneInfo("Europe/Vienna"), UTC, timezone(timedelta(hours=1), "CET")]),
    st.sampled_from([function, wrapped, Plain.static, Plain.method, len, os.getcwd, Plain, int, type, type(None)]),
    st.sampled_from([Colour, Pair, ValueError, Customer, post_save, knock]),
    st.complex_numbers(),
    st.fractions(),
    st.builds(range, st.integers(), st.integers(), st.integers().filter(bool)),
    st.ip_addresses(),
    st.ip_addresses().map(ipaddress.ip_network),
    st.builds(lambda address, bits: ipaddress.ip_interface(f"{address}/{bits}"), st.ip_addresses(), st.integers(0, 32)),
    st.sampled_from([*apps.get_app_configs(), apps]),
    st.builds(MigrationSnapshot, TEXT, TEXT),
)
KEYS = st.recursive(
    HASHABLE,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.frozensets(inner, max_size=3),
        st.builds(Pair, inner, inner),
        st.builds(Frozen, inner),
    ),
    max_leaves=4,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
#: What a send may carry that no set can hold, and what arrives in its documented stand-in.
LEAVES = st.one_of(
    HASHABLE,
    st.binary().map(bytearray),
    st.decimals(),
    st.builds(QueryDict, TEXT, mutable=st.booleans(), encoding=st.sampled_from([None, "latin-1"])),
    st.builds(AnonymousUser),
    st.builds(Customer, name=TEXT),
    st.builds(Customer, pk=st.integers(), name=TEXT),
    st.builds(Article, pk=TEXT, tags=JSON),
    st.sampled_from([gettext_lazy("Monday"), lazy(mark_safe, SafeString)("<b>")]),
    TEXT.map(lambda text: SimpleLazyObject(lambda: text)),
    st.builds(ValueError, TEXT) | st.builds(CarriedError, TEXT, TEXT),
    TEXT.map(lambda text: RequestFactory().get("/", {"q": text}, headers={"user-agent": "Lynx"})),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(deque),
        st.lists(inner, max_size=3).map(lambda items: deque(items, 3)),
        st.dictionaries(KEYS, inner, max_size=3).map(OrderedDict),
        st.dictionaries(KEYS, inner, max_size=3).map(Counter),
        st.builds(
            defaultdict, st.sampled_from([None, list, int, Plain, Customer]), st.dictionaries(KEYS, inner, max_size=3)
        ),
        st.dictionaries(TEXT, st.lists(inner, max_size=3), max_size=3).map(MultiValueDict),
        st.builds(RequestSnapshot, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, user=inner),
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.sets(KEYS, max_size=3),
        st.frozensets(KEYS, max_size=3),
        st.dictionaries(TEXT, inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=3),
        st.builds(Point, inner, inner),
        st.builds(Child, inner, inner, inner),
        st.builds(Typed, inner),
        st.builds(lambda x, y: Slotted(x=x, y=y), inner, inner),
        st.builds(Pair, inner, inner),
        st.builds(Named, inner, inner),
    ),
    max_leaves=12,
)


@given(VALUES)
def test_whatever_travels_arrives_as_it_was(value: Any) -> None:
    assert canonical(travel(value)) == canonical(value)


@given(st.recursive(TEXT | st.integers(0, 9), lambda inner: st.dictionaries(TEXT, inner, max_size=2) | st.lists(inner)))
def test_no_data_can_look_like_a_tag(value: Any) -> None:
    assert travel(value) == value


@given(st.recursive(st.none() | st.integers() | st.floats() | st.text(), st.lists))
def test_what_json_can_say_is_written_as_json_says_it(value: Any) -> None:
    text = dump(Encoder().encode(value))
    assert json.loads(text) is not ...
    assert text.isprintable() or "\\" in text or not text.isascii() or "\x7f" in text


@pytest.mark.parametrize(
    "value",
    [
        {"$ref": ["shop.customer", 1, "default"]},
        {"$snapshot": []},
        {"$": 1},
        {"$dict": [["a", 1]]},
        {"$field": "x"},
        {"$ref": 1, "plain": 2},
        {"__type__": "datetime", "__value__": "2020-01-01"},
        {"__value__": {"__type__": "x"}},
        {"a": {"$class": "os.system"}},
        [["$ref", 1]],
        {("a", 1): {None: {True: {1.5: {b"x": {Colour.RED: {date(2020, 1, 1): "deep"}}}}}}},
        {1: "int", "1": "text"},
        {},
        [],
        (),
        set(),
        frozenset(),
        "",
        b"",
        {"": ""},
    ],
)
def test_dicts_that_look_like_something_else_arrive_as_dicts(value: Any) -> None:
    assert canonical(travel(value)) == canonical(value)


@pytest.mark.parametrize("value", [-0.0, 0.0, 5e-324, 1.7976931348623157e308, 0.1 + 0.2, math.nan, math.inf, -math.inf])
def test_floats_arrive_to_the_last_bit(value: float) -> None:
    assert canonical(travel(value)) == canonical(value)


@pytest.mark.parametrize(
    "value",
    [2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**10_000, -(10**10_000)],
    ids=lambda it: f"{it.bit_length()} bits",
)
def test_ints_of_any_size_arrive(value: int) -> None:
    # Compared, not shown: Python refuses to print ten thousand digits.
    assert (travel(value) == value) is True


@pytest.mark.parametrize("text", ["NaN", "-NaN123", "sNaN", "Infinity", "-0", "1.10", "1E+999999", "0E-20"])
def test_decimals_keep_their_digits(text: str) -> None:
    assert str(travel(Decimal(text))) == text


@pytest.mark.parametrize("fold", [0, 1])
def test_an_hour_that_happens_twice_arrives_as_the_one_it_was(fold: int) -> None:
    value = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Vienna"), fold=fold)
    arrived = travel(value)
    assert (arrived, arrived.fold, arrived.utcoffset()) == (value, fold, value.utcoffset())
    assert arrived.tzinfo is value.tzinfo


def test_utc_arrives_as_utc_itself() -> None:
    assert travel(datetime(2020, 1, 1, tzinfo=UTC)).tzinfo is UTC
    assert travel(UTC) is UTC


class FakeDatetime(datetime):
    """As freezegun's."""


class FakeDate(date):
    """As freezegun's."""


def test_a_frozen_clock_travels_as_a_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeDatetime, "__module__", "freezegun.api")
    monkeypatch.setattr(FakeDate, "__module__", "freezegun.api")
    assert canonical(travel(FakeDatetime(2020, 1, 1, 12, tzinfo=UTC))) == canonical(
        datetime(2020, 1, 1, 12, tzinfo=UTC)
    )
    assert canonical(travel(FakeDate(2020, 1, 1))) == canonical(date(2020, 1, 1))


@pytest.mark.parametrize("value", [Colour.RED, Colour.ROUGE, Size.SMALL, Level.HIGH, Number.ONE, Odd.FIRST])
def test_members_arrive_as_the_members_themselves(value: enum.Enum) -> None:
    assert travel(value) is value


@pytest.mark.parametrize("value", [Right.READ, Right.READ | Right.WRITE, Right(0), Mode.X, Mode(7), Mode(2**70)])
def test_flags_arrive_with_all_their_bits(value: enum.Flag) -> None:
    assert travel(value) is value


class Guess(enum.IntFlag, boundary=enum.KEEP):
    ONE = 1
    TWO = 2

    @classmethod
    def _missing_(cls, value: object) -> Any:
        raise AssertionError("its code ran with what the wire said")


def test_a_flags_own_code_does_not_run() -> None:
    assert Decoder().decode({"$flag": [path_of(Guess), 3]})._value_ == 3


def test_safe_text_stays_safe() -> None:
    assert type(travel(mark_safe("<b>"))) is SafeString
    assert type(travel("<b>")) is str


def test_lazy_text_travels_as_it_reads_at_the_send() -> None:
    with translation.override("de"):
        sent = Encoder().encode(gettext_lazy("Monday"))
    assert sent == "Montag"
    assert type(travel(lazy(mark_safe, SafeString)("<b>"))) is SafeString
    assert travel(ngettext_lazy("%d day", "%d days", 3) % 3) == "3 days"


def test_a_lazy_value_that_is_no_text_is_refused() -> None:
    with pytest.raises(EncodeError, match="Evaluate it before the send"):
        Encoder().encode(lazy(lambda: 5, int)())


def test_a_lazy_value_that_fails_is_refused_with_the_cause() -> None:
    with pytest.raises(EncodeError, match="evaluation raised NoReverseMatch") as caught:
        Encoder().encode({"url": reverse_lazy("nowhere")})
    assert caught.value.path == "['url']"
    assert type(caught.value.__cause__).__name__ == "NoReverseMatch"


def test_a_lazy_object_travels_as_what_it_wraps() -> None:
    assert canonical(travel(SimpleLazyObject(lambda: Point(1, 2)))) == canonical(Point(1, 2))
    assert type(travel(SimpleLazyObject(AnonymousUser))) is AnonymousUser


def test_a_lazy_object_that_fails_is_refused_with_the_cause() -> None:
    def nobody() -> None:
        raise LookupError("secret")

    with pytest.raises(EncodeError, match="evaluation raised LookupError") as caught:
        Encoder().encode(SimpleLazyObject(nobody))
    assert "secret" not in str(caught.value)


def test_nobodys_type_arrives_because_it_is_a_sender() -> None:
    # user_logged_out is sent with it for an anonymous user.
    assert travel(type(None)) is type(None)


# --- Refused, and what is said ---------------------------------------------------------------------------------------


def refused(value: Any) -> EncodeError:
    with pytest.raises(EncodeError) as caught:
        Encoder().encode(value)
    return caught.value


class Local(tzinfo):
    def utcoffset(self, when: datetime | None) -> timedelta:
        return timedelta(hours=1)

    dst = utcoffset

    def tzname(self, when: datetime | None) -> str:
        return "local"


class Refusing:
    """Its codec says itself what is wrong."""


class Failing:
    """Its codec fails."""


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        (object(), "object", "register_codec()"),
        (Plain(), f"{HERE}.Plain", "register_codec()"),
        (slice(1), "slice", "register_codec()"),
        (Plain().method, "method", "Send the object"),
        (lambda: 1, "function <lambda>", "dotted path"),
        (decorated(function), "function function", "dotted path"),
        (functools.partial(function), "functools.partial", "register_codec()"),
        (type("Made", (), {}), "type Made", "dotted path"),
        (sys.version_info, "sys.version_info", "plain tuple"),
        (datetime(2020, 1, 1, tzinfo=Local()), f"{HERE}.Local", "zoneinfo.ZoneInfo"),
        (time(1, tzinfo=Local()), f"{HERE}.Local", "fixed offset"),
        (Signal(), "django.dispatch.dispatcher.Signal", "module attribute"),
        ("\ud800", "str", "surrogate"),
        (SafeString("\ud800"), "str", "surrogate"),
        (pathlib.Path("a\udcff"), "str", "surrogate"),
        (ValueError("\udcff"), "str", "surrogate"),
        (Alarm(), f"{HERE}.Alarm", "RuntimeError"),
        (iter([]), "list_iterator", "list(value)"),
    ],
    ids=lambda value: "",
)
def test_what_cannot_travel_is_refused_with_its_type_and_a_remedy(value: Any, kind: str, words: str) -> None:
    error = refused(value)
    assert error.type_name == kind
    assert words in error.reason
    assert "cannot travel" in str(error)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([1, [2, object()]], "[1][1]"),
        ((object(),), "[0]"),
        ({object()}, "[0]"),
        ({"items": [{"price": object()}]}, "['items'][0]['price']"),
        ({"a": 1, "long key with data in it": object()}, "[item 1]"),
        ({"a" * 31: object()}, "[item 0]"),
        ({"$a": object()}, "[item 0]"),
        ({1: 1, 2: object()}, "[item 1]"),
        ({(object(),): 1}, "[item 0][0]"),
        ({"ok": 1, "\udcff": 1}, "[item 1]"),
        (Point(1, [object()]), ".y[0]"),
        (Slotted(x=object()), ".x"),
        (Pair(1, object()), "[1]"),
    ],
    ids=lambda value: "",
)
def test_the_path_leads_to_what_cannot_travel(value: Any, path: str) -> None:
    assert refused(value).path == path


def test_no_message_contains_a_value() -> None:
    error = refused({"4111 1111 1111 1111": ["secret\ud800"]})
    error.receiver = "shop.receivers.charge"
    text = str(error.under("kwargs['card']"))
    assert text.startswith("kwargs['card'][item 0][0] (str) cannot travel to shop.receivers.charge: it contains")
    assert "4111" not in text
    assert "secret" not in text


def nested(levels: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(levels - 1):
        made = [made]
    return made


def test_32_levels_travel_and_33_do_not() -> None:
    assert travel(nested(32)) == nested(32)
    assert refused(nested(33)).path == "[0]" * 32
    with override_settings(DEFERRED_SIGNALS={"MAX_DEPTH": 2}):
        assert "more than 2 levels deep" in refused(nested(3)).reason


@pytest.mark.parametrize(
    "wrap", [list, tuple, lambda made: {"a": made[0]}, lambda made: {1: made[0]}, lambda m: Point(m[0])]
)
def test_every_container_counts_as_a_level(wrap: Any) -> None:
    value: Any = 0
    for _ in range(33):
        value = wrap([value])
    assert "MAX_DEPTH" in refused(value).reason


def test_what_contains_itself_is_refused() -> None:
    a: list[Any] = []
    a.append(a)
    b: dict[str, Any] = {}
    b["b"] = Point(b)
    assert "contains itself" in refused(a).reason
    assert "contains itself" in refused(b).reason


def test_siblings_do_not_add_up_to_depth() -> None:
    row = [[], {}, (), set(), {1: 2}, Point(1), Pair(1), Frozen(1), {"a": []}, deque(), OrderedDict(), QueryDict()]
    assert canonical(travel(row * 20)) == canonical(row * 20)


@override_settings(DEFERRED_SIGNALS={"MAX_DEPTH": 100})
def test_the_deepest_setting_still_travels() -> None:
    value: Any = 0
    for _ in range(99):
        value = {1: value}
    assert travel((value,)) == (value,)


# --- Dataclasses and named tuples ------------------------------------------------------------------------------------


def test_cached_properties_do_not_travel_and_do_not_disturb() -> None:
    value = Frozen(2)
    assert (value.twice, value.thrice) == (4, 6)
    arrived = travel(value)
    assert vars(arrived) == {"x": 2}
    assert arrived.twice == 4
    pair = Named(1, 2)
    assert pair.total == 3
    assert travel(pair) == pair


def unset() -> Point:
    made = Point(1, 2)
    del made.x
    return made


def with_attribute(value: Any, name: str) -> Any:
    object.__setattr__(value, name, 1)
    return value


@dataclasses.dataclass
class Propertied:
    x: Any

    @property
    def y(self) -> int:
        return 1


def _set_x(self: Any, value: Any) -> None:
    raise AssertionError("its code ran with what the wire said")


@pytest.mark.parametrize(
    "value",
    [
        with_attribute(Point(1), "note"),
        with_attribute(Extra(1), "hidden"),
        with_attribute(Named(1, 2), "note"),
        unset(),
    ],
    ids=["dataclass", "slot", "named tuple", "unset field"],
)
def test_what_holds_more_or_less_than_its_fields_is_refused(value: Any) -> None:
    assert "than its fields" in refused(value).reason


def test_a_property_beside_the_fields_is_no_obstacle() -> None:
    assert travel(Propertied(1)) == Propertied(1)


@dataclasses.dataclass
class Active:
    """Every way in which its own code could run."""

    x: Any
    y: Any = 7
    ran: ClassVar[list[str]] = []

    def __post_init__(self) -> None:
        self.ran.append("__post_init__")

    def __setattr__(self, name: str, value: Any) -> None:
        self.ran.append("__setattr__")
        object.__setattr__(self, name, value)

    def __setstate__(self, state: Any) -> None:
        self.ran.append("__setstate__")


class ActiveTuple(NamedTuple("ActiveTuple", [("x", Any)])):
    ran: ClassVar[list[str]] = []

    def __new__(cls, x: Any) -> Self:
        cls.ran.append("__new__")
        return super().__new__(cls, x)

    def __init__(self, x: Any) -> None:
        self.ran.append("__init__")


def test_decoding_runs_no_code_of_a_dataclass() -> None:
    data = Encoder().encode(Active(1))
    Active.ran.clear()
    arrived = Decoder().decode(data)
    assert Active.ran == []
    assert vars(arrived) == {"x": 1, "y": 7}


def test_decoding_runs_no_code_of_a_named_tuple() -> None:
    data = Encoder().encode(ActiveTuple(1))
    ActiveTuple.ran.clear()
    arrived = Decoder().decode(data)
    assert ActiveTuple.ran == []
    assert (type(arrived), arrived[0]) == (ActiveTuple, 1)


@dataclasses.dataclass
class Newborn:
    x: int

    def __new__(cls, *args: Any) -> Self:
        raise AssertionError("its code ran")


@dataclasses.dataclass
class Guarded:
    x: Any


Guarded.x = property(lambda self: 1, _set_x)


@pytest.mark.parametrize("kind", [Newborn, Guarded])
def test_a_dataclass_that_must_run_code_to_be_made_is_refused_on_both_sides(kind: type) -> None:
    assert "dataclass" in refused(object.__new__(kind)).reason
    with pytest.raises(DecodeError):
        Decoder().decode({"$dataclass": [path_of(kind), {"x": 1}]})


def test_a_field_that_a_release_has_added_has_its_default() -> None:
    assert Decoder().decode({"$dataclass": [f"{HERE}.Point", {"x": 5}]}) == Point(5, 0)
    assert Decoder().decode({"$namedtuple": [f"{HERE}.Pair", [5]]}) == Pair(5, None)


# --- Names: classes, functions, signals ------------------------------------------------------------------------------


def test_a_signal_arrives_as_itself_whatever_it_calls_itself() -> None:
    assert travel(post_save) is post_save
    assert travel(renamed) is renamed


def test_what_lives_in_main_is_refused_because_a_worker_has_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plain, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Plain", Plain, raising=False)
    assert "worker imports too" in refused(Plain).reason


class Trap:
    """Whoever asks it about itself runs code."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked")


class Loaded(types.ModuleType):
    """A lazy module: whoever asks it for anything has it loaded."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked")


class Meta(type):
    def __getattribute__(cls, name: str) -> Any:
        raise AssertionError(f"{name} was asked")


class Tricky(metaclass=Meta):
    pass


@pytest.fixture
def _traps(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = types.ModuleType("traps")
    module.trap = Trap()
    module.lazy_object = SimpleLazyObject(lambda: pytest.fail("it was evaluated"))
    module.tricky = Tricky
    module.os = os
    module.__getattr__ = lambda name: pytest.fail("the module's __getattr__ ran")
    monkeypatch.setitem(sys.modules, "traps", module)
    monkeypatch.setitem(sys.modules, "traps.lazy", Loaded("traps.lazy"))
    monkeypatch.setitem(sys.modules, "traps.odd", Trap())


@pytest.mark.usefixtures("_traps")
@pytest.mark.parametrize("tag", ["$function", "$class", "$enum", "$flag", "$dataclass", "$namedtuple", "$signal"])
@pytest.mark.parametrize(
    "path",
    [
        "traps.trap",
        "traps.trap.x",
        "traps.lazy_object",
        "traps.lazy_object.x",
        "traps.tricky.x",
        "traps.missing",
        "traps.missing.x",
        "traps.lazy.x",
        "traps.odd.x",
        "traps.os.system",
        f"{HERE}.os.system",
        f"{HERE}.os.path.join",
        f"{HERE}.Nothing",
        f"{HERE}",
        f"{HERE}.__name__",
        f"{HERE}.__builtins__.eval",
        f"{HERE}.Plain.__dict__",
        f"{HERE}.Plain.__class__",
        f"{HERE}.function.__globals__",
        f"{HERE}.function.__code__",
        f"{HERE}.Frozen.twice",
        "nowhere.at.all",
        "antigravity.fly",
        "this",
        "",
        ".",
        "..",
        ".builtins.eval",
        "builtins..eval",
        "builtins.eval\n",
        " builtins.eval",
        "os;system",
        "a." * 200_000,
        None,
        5,
        [],
        {},
        ["builtins.eval"],
        {"$class": "builtins.str"},
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_path_from_the_wire_is_only_ever_looked_up(tag: str, path: Any) -> None:
    data = path if tag in {"$function", "$class", "$signal"} else [path, 1 if tag == "$flag" else {}]
    base.load()
    modules = set(sys.modules)
    with pytest.raises((DecodeError, UnknownReceiver)):
        Decoder().decode({tag: data})
    assert set(sys.modules) == modules


@pytest.mark.parametrize(
    "data",
    [
        {"$enum": ["builtins.str", "upper"]},
        {"$enum": [f"{HERE}.Colour", "__class__"]},
        {"$enum": [f"{HERE}.Colour", "mro"]},
        {"$enum": [f"{HERE}.Colour", "r"]},
        {"$enum": [f"{HERE}.Colour", ["RED"]]},
        {"$enum": [f"{HERE}.Colour"]},
        {"$flag": [f"{HERE}.Colour", 1]},
        {"$flag": [f"{HERE}.Right", "READ"]},
        {"$flag": [f"{HERE}.Right", True]},
        {"$flag": [f"{HERE}.Right", 2**80]},
        {"$dataclass": ["builtins.dict", {}]},
        {"$dataclass": ["subprocess.Popen", {"args": "ls"}]},
        {"$dataclass": [f"{HERE}.Plain", {}]},
        {"$dataclass": [f"{HERE}.function", {}]},
        {"$dataclass": [f"{HERE}.Point", {"x": 1, "y": 2, "z": 3}]},
        {"$dataclass": [f"{HERE}.Point", {"y": 2}]},
        {"$dataclass": [f"{HERE}.Child", {"x": 1, "y": 2}]},
        {"$dataclass": [f"{HERE}.Point", {"x": 1, "y": 2, "__class__": 3}]},
        {"$dataclass": [f"{HERE}.Point", [["x", 1], ["y", 2]]]},
        {"$dataclass": [f"{HERE}.Point", None]},
        {"$namedtuple": ["builtins.tuple", [1]]},
        {"$namedtuple": ["builtins.list", [1]]},
        {"$namedtuple": ["sys.version_info", [1]]},
        {"$namedtuple": [f"{HERE}.Pair", [1, 2, 3]]},
        {"$namedtuple": [f"{HERE}.Pair", []]},
        {"$namedtuple": [f"{HERE}.Pair", "ab"]},
        {"$namedtuple": [f"{HERE}.Pair", {"left": 1}]},
        {"$class": "builtins.len"},
        {"$function": "builtins.str"},
        {"$int": 5},
        {"$int": "ten"},
        {"$float": "1.5"},
        {"$float": ["nan"]},
        {"$decimal": 1.5},
        {"$decimal": "ten"},
        {"$decimal": ["1"]},
        {"$uuid": "1"},
        {"$uuid": 1},
        {"$bytes": "é"},
        {"$bytes": "A"},
        {"$bytes": [1, 2]},
        {"$bytearray": 5},
        {"$date": "2020-13-01"},
        {"$date": 5},
        {"$datetime": "2020-01-01"},
        {"$datetime": ["2020-01-01T00:00:00", None]},
        {"$datetime": ["2020-01-01T00:00:00", "", 0]},
        {"$datetime": ["2020-01-01T00:00:00", "../../etc/passwd", 0]},
        {"$datetime": ["2020-01-01T00:00:00", "/etc/passwd", 0]},
        {"$datetime": ["2020-01-01T00:00:00", "Europe", 0]},
        {"$datetime": ["2020-01-01T00:00:00", "No/Where", 0]},
        {"$datetime": ["2020-01-01T00:00:00", "a\x00b", 0]},
        {"$datetime": ["2020-01-01T00:00:00", "+nan", 0]},
        {"$datetime": ["2020-01-01T00:00:00", "+1e99", 0]},
        {"$datetime": ["2020-01-01T00:00:00", None, 2]},
        {"$datetime": ["2020-01-01T00:00:00", 5, 0]},
        {"$time": ["25:00:00", None, 0]},
        {"$timedelta": [10**12, 0, 0]},
        {"$timedelta": ["1", 0, 0]},
        {"$timedelta": [1]},
        {"$timezone": 5},
        {"$timezone": ""},
        {"$path": ["Path", "/"]},
        {"$path": ["PosixPath", 5]},
        {"$path": "/"},
        {"$dict": [[1]]},
        {"$dict": [[[], 1]]},
        {"$dict": {"a": 1}},
        {"$dict": 5},
        {"$tuple": {"a": 1}},
        {"$tuple": "ab"},
        {"$set": [[1]]},
        {"$set": 5},
        {"$frozenset": [{}]},
        {"$exception": ["a"]},
        {"$exception": 5},
        {"$notcarried": ["a"]},
        {"$safe": 5},
    ],
    ids=lambda value: str(value)[:60],
)
def test_nonsense_under_a_good_signature_is_a_decode_error(data: Any) -> None:
    with pytest.raises(DecodeError) as caught:
        Decoder().decode([{"a": data}])
    (payload,) = data.values()
    assert not isinstance(payload, str) or len(payload) < 5 or payload not in str(caught.value)


def test_a_tag_that_nobody_knows_may_be_of_a_newer_release() -> None:
    with pytest.raises(NewerWire, match="register_codec"):
        Decoder().decode([{"$quaternion": [1, 2, 3, 4]}])


def test_functions_and_classes_are_returned_and_not_called() -> None:
    # A function is data. Its name is signed, and nothing here calls it.
    assert Decoder().decode({"$function": "posix.system"}) is os.system
    assert Decoder().decode({"$class": "subprocess.Popen"}) is subprocess.Popen


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"$tuple":[', '{"$dict":[[1,'])
def test_nesting_beyond_pythons_stack_is_a_decode_error(opening: str) -> None:
    data: Any = 0
    for _ in range(20_000):
        data = {"[": lambda d: [d], "{": lambda d: {"a": d}}[opening[0]](data)
    with pytest.raises(DecodeError, match="too deep"):
        Decoder().decode(data)
    while data:  # taken apart by hand: Python's own way would be as deep
        data = data[0] if isinstance(data, list) else data["a"]


# --- Exceptions ------------------------------------------------------------------------------------------------------


def test_an_exception_arrives_as_its_type_and_text() -> None:
    arrived = travel(ValueError("boom"))
    assert (arrived.type_name, arrived.text, str(arrived)) == ("ValueError", "boom", "ValueError: boom")
    assert travel(json.JSONDecodeError("x", "y", 0)).type_name == "json.decoder.JSONDecodeError"


def test_a_carried_error_travels_on_as_it_is() -> None:
    once = travel(KeyError("a"))
    assert isinstance(once, CarriedError)
    assert travel(once) == once
    assert hash(travel(once)) == hash(once)
    assert once != KeyError("a")
    assert pickle.loads(pickle.dumps(once)) == once


# --- NotCarried ------------------------------------------------------------------------------------------------------

MARKER: Any = NotCarried("kwargs['socket']", "socket.socket", "send its address.")


@pytest.mark.parametrize(
    "use",
    [
        bool,
        str,
        int,
        float,
        bytes,
        len,
        list,
        tuple,
        set,
        dict,
        iter,
        next,
        reversed,
        round,
        abs,
        os.fspath,
        "{}".format,
        lambda it: f"{it}",
        lambda it: f"{it:>10}",
        lambda it: "%s" % it,  # noqa: UP031
        lambda it: "%d" % it,  # noqa: UP031
        lambda it: it.send,
        lambda it: it(),
        lambda it: it[0],
        lambda it: it["a"],
        lambda it: 1 in it,
        lambda it: it == 1,
        lambda it: it != 1,
        lambda it: it < 1,
        lambda it: 1 < it,  # noqa: SIM300
        lambda it: it + 1,
        lambda it: 1 + it,
        lambda it: it - 1,
        lambda it: it * 2,
        lambda it: it / 2,
        lambda it: 2 // it,
        lambda it: it % 2,
        lambda it: it**2,
        lambda it: it | {},
        lambda it: it & {1},
        lambda it: -it,
        lambda it: ~it,
        lambda it: [1, 2][it],
        lambda it: not it,
        lambda it: setattr(it, "a", 1),
        lambda it: delattr(it, "a"),
        lambda it: it.__setitem__("a", 1),
        lambda it: it.__delitem__("a"),
        lambda it: it.__enter__(),
        lambda it: it.__await__(),
        lambda it: {**it},
        lambda it: [*it],
        complex,
        math.floor,
        math.ceil,
        math.trunc,
        sorted,
        operator.length_hint,
        lambda it: f"{it!s}",
        lambda it: it >= 1,
        lambda it: it == it,  # noqa: PLR0124
        lambda it: it == None,  # noqa: E711
        lambda it: it @ 1,
        lambda it: 1 @ it,
        lambda it: it << 1,
        lambda it: 1 << it,
        lambda it: it >> 1,
        lambda it: 1 >> it,
        lambda it: divmod(it, 1),
        lambda it: divmod(1, it),
        lambda it: 1 - it,
        lambda it: 2 * it,
        lambda it: 2**it,
        lambda it: 2 % it,
        lambda it: 2 | it,
        lambda it: 2 & it,
        lambda it: it ^ 1,
        lambda it: 2 ^ it,
        lambda it: +it,
        "".join,
        max,
        lambda it: isinstance(1, it),
        lambda it: issubclass(int, it),
        lambda it: it.__anext__(),
        lambda it: getattr(it, "name", None),
        lambda it: hasattr(it, "name"),
        lambda it: it[1:2],
    ],
)
def test_every_use_of_what_was_not_carried_explains(use: Any) -> None:
    with pytest.raises(NotCarriedError) as caught:
        use(MARKER)
    text = str(caught.value)
    assert text == "kwargs['socket'] (socket.socket) did not travel to the worker: send its address."


def test_passing_a_marker_on_is_harmless() -> None:
    assert repr(MARKER) == "<NotCarried kwargs['socket'] (socket.socket)>"
    assert f"{[MARKER]}" == "[<NotCarried kwargs['socket'] (socket.socket)>]"
    assert {MARKER: 1}[MARKER] == 1
    assert [MARKER].index(MARKER) == 0
    assert isinstance(MARKER, NotCarried)
    assert MARKER is not None
    assert not hasattr(MARKER, "__html__")


@pytest.mark.parametrize(
    "again",
    [
        copy.copy,
        copy.deepcopy,
        lambda it: [copy.copy(it[0])],
        lambda it: pickle.loads(pickle.dumps(it)),
        lambda it: pickle.loads(pickle.dumps(it, protocol=0)),
        travel,
    ],
    ids=["list", "deepcopy", "copy", "pickle", "old pickle", "travel"],
)
def test_a_marker_can_be_copied_pickled_and_sent_on(again: Any) -> None:
    made: Any
    (made,) = again([MARKER])
    assert repr(made) == repr(MARKER)
    with pytest.raises(NotCarriedError, match="send its address"):
        made.recv(1)


def test_what_an_error_refused_becomes_a_marker() -> None:
    error = refused({"a": object()}).under("kwargs['b']")
    with pytest.raises(
        NotCarriedError, match=r"kwargs\['b'\]\['a'\] \(object\) did not travel to the worker: this type"
    ):
        bool(Decoder().decode(not_carried(error)))


# --- HttpRequest -----------------------------------------------------------------------------------------------------


def test_a_request_arrives_without_its_secrets() -> None:
    request = RequestFactory().post(
        "/pay/?step=2",
        {"card": "SECRET-body"},
        headers={
            "authorization": "Bearer SECRET-token",
            "cookie": "sessionid=SECRET-cookie",
            "x-csrftoken": "SECRET-csrf",
            "user-agent": "Firefox",
            "x-request-id": "r-1",
            "accept-language": "de",
        },
    )
    request.session = {"key": "SECRET-session"}  # type: ignore[assignment]
    request.user = AnonymousUser()
    text = dump(Encoder().encode(request))
    assert "SECRET" not in text
    arrived = travel(request)
    assert type(arrived.user) is AnonymousUser
    assert dataclasses.replace(arrived, user=None) == RequestSnapshot(
        method="POST",
        path="/pay/",
        query="step=2",
        scheme="http",
        host="testserver",
        remote_addr="127.0.0.1",
        headers={
            "accept-language": "de",
            "content-type": request.headers["Content-Type"],
            "user-agent": "Firefox",
            "x-request-id": "r-1",
        },
    )


def test_a_request_of_a_forbidden_host_arrives_without_host() -> None:
    assert travel(RequestFactory().get("/", headers={"host": "evil host"})).host is None


def test_the_bare_request_of_djangos_test_client_arrives() -> None:
    # Client.login() sends user_logged_in with it.
    assert travel(HttpRequest()) == RequestSnapshot(
        method=None, path="", query="", scheme="http", host=None, remote_addr=None
    )


def test_a_user_who_cannot_be_asked_for_now_keeps_no_request_from_travelling() -> None:
    """A deferred receiver of got_request_exception must not make the outage worse that it is told of."""
    request = RequestFactory().get("/")
    request.user = SimpleLazyObject(lambda: 1 / 0)  # type: ignore[assignment]
    found = travel(request)
    assert found.method == "GET"
    with pytest.raises(NotCarriedError, match=r"^request\.user .* its evaluation raised ZeroDivisionError"):
        str(found.user)


def test_what_else_of_a_request_cannot_travel_is_told() -> None:
    request = RequestFactory().get("/")
    request.method = object()  # type: ignore[assignment]
    assert refused(request).path == ".method"


# --- register_codec --------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _codecs_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    base.load()
    for table in ("_exact", "_families", "tags", "_found"):
        monkeypatch.setattr(base, table, dict(getattr(base, table)))
    monkeypatch.setattr(custom, "tags", base.tags)
    monkeypatch.setattr(custom, "_owners", {})


class Money:
    def __init__(self, amount: Decimal, currency: str) -> None:
        self.amount, self.currency = amount, currency

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


class Coin(Money):
    pass


def teach(kind: type = Money, **options: Any) -> None:
    register_codec(kind, encode=lambda it: [it.amount, it.currency], decode=lambda data: kind(*data), **options)


def test_a_type_that_was_taught_travels_inside_of_everything() -> None:
    teach()
    value = {"prices": [Point(Money(Decimal("1.10"), "EUR"))]}
    assert travel(value) == value
    assert list(Encoder().encode(Money(Decimal(1), "EUR"))) == [f"${HERE}.Money"]


def test_a_type_that_was_taught_later_is_no_longer_refused() -> None:
    refused(Money(Decimal(1), "EUR"))
    teach()
    assert travel(Money(Decimal(1), "EUR")) == Money(Decimal(1), "EUR")


def test_subclasses_travel_only_if_said() -> None:
    teach()
    refused(Coin(Decimal(1), "EUR"))
    teach(subclasses=True)
    assert type(travel(Coin(Decimal(1), "EUR"))) is Money


def test_the_nearest_base_decides() -> None:
    teach(subclasses=True)
    teach(Coin, subclasses=True)
    assert type(travel(type("Penny", (Coin,), {})(Decimal(1), "EUR"))) is Coin


def test_a_codec_may_replace_a_built_in_one() -> None:
    register_codec(uuid.UUID, encode=lambda it: it.hex, decode=uuid.UUID, tag="short uuid")
    value = uuid.uuid4()
    assert Encoder().encode(value) == {"$short uuid": value.hex}
    assert travel(value) == value
    assert Decoder().decode({"$uuid": str(value)}) == value


def test_a_type_may_be_taught_twice_and_an_old_tag_is_still_read() -> None:
    teach(tag="money")
    teach(tag="money")
    old = Encoder().encode(Money(Decimal(1), "EUR"))
    teach(tag="cash")
    assert Encoder().encode(Money(Decimal(1), "EUR")) != old
    assert Decoder().decode(old) == Money(Decimal(1), "EUR")


def test_a_tag_belongs_to_one_type() -> None:
    teach(tag="money")
    with pytest.raises(ConnectError, match="'money' is taken"):
        teach(Coin, tag="money")


@pytest.mark.parametrize("tag", ["ref", "snapshot", "dict", "int", "field", "class"])
def test_no_type_takes_a_built_in_tag(tag: str) -> None:
    class Nameless(Money):
        pass

    for kind in (Money, Nameless):
        with pytest.raises(ConnectError, match="is taken"):
            teach(kind, tag=tag)


def test_local_types_need_a_tag_and_do_not_share_it() -> None:
    one, two = (type("<locals>.Local", (Money,), {}) for _ in range(2))
    with pytest.raises(ConnectError, match="tag="):
        teach(one)
    teach(one, tag="local")
    teach(one, tag="local")
    with pytest.raises(ConnectError, match="is taken"):
        teach(two, tag="local")


def test_only_classes_are_taught() -> None:
    with pytest.raises(ConnectError, match="is not a class"):
        teach(function)  # type: ignore[arg-type]


def test_a_codec_that_fails_is_named_by_the_type_and_keeps_the_cause() -> None:
    register_codec(Failing, encode=lambda it: 1 / 0, decode=lambda data: 1 // data)
    error = refused([Failing()])
    assert (error.path, error.type_name) == ("[0]", f"{HERE}.Failing")
    assert "its codec raised ZeroDivisionError" in error.reason
    assert isinstance(error.__cause__, ZeroDivisionError)
    with pytest.raises(DecodeError, match="ZeroDivisionError"):
        Decoder().decode({f"${HERE}.Failing": 0})


def test_a_codec_may_say_itself_what_is_wrong() -> None:
    def refuse(value: Any) -> None:
        raise EncodeError("it is open. Close it before the send.")

    register_codec(Refusing, encode=refuse, decode=lambda data: Refusing())
    assert str(refused({"door": Refusing()})) == "['door'] cannot travel: it is open. Close it before the send."


def test_a_codec_that_returns_itself_for_ever_is_refused() -> None:
    register_codec(Refusing, encode=lambda it: [it], decode=lambda data: Refusing())
    assert "contains itself" in refused(Refusing()).reason


def test_a_codec_that_returns_what_cannot_travel_is_refused() -> None:
    register_codec(Refusing, encode=lambda it: object(), decode=lambda data: Refusing())
    assert refused(Refusing()).type_name == "object"


# --- Loading ---------------------------------------------------------------------------------------------------------


def test_no_other_thread_takes_the_table_for_full_before_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    while_loading: list[bool] = []
    monkeypatch.setattr(base, "_loaded", False)
    monkeypatch.setattr(base, "import_module", lambda name: while_loading.append(base._loaded))
    base.load()
    assert while_loading
    assert not any(while_loading)
    assert base._loaded


def test_the_first_value_finds_the_codec_that_it_has_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = base._exact
    monkeypatch.setattr(base, "_exact", {})
    monkeypatch.setattr(base, "_found", {})
    monkeypatch.setattr(base, "_loaded", False)
    monkeypatch.setattr(base, "import_module", lambda name: base._exact.update(kept))
    assert Encoder().encode(Decimal("1.5")) == {"$decimal": "1.5"}
    assert not base._found


def test_a_table_that_could_not_be_loaded_is_loaded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(base, "_loaded", False)
    monkeypatch.setattr(base, "import_module", broken)
    for _ in range(2):
        with pytest.raises(ImportError):
            base.load()


def test_importing_the_package_imports_no_models_and_no_celery() -> None:
    code = (
        "import sys, deferred_signals; "
        "assert not {'celery', 'django.db.models', 'django.contrib.auth', 'django.http'} & set(sys.modules), "
        "[name for name in sys.modules if name.startswith(('celery', 'django.db.models'))]"
    )
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)


def test_a_payload_of_values_has_no_spaces_to_pay_for() -> None:
    text = envelope(kwargs={"a": Encoder().encode([1, {"b": (1, 2)}])}).to_text()
    assert '"kwargs":{"a":[1,{"b":{"$tuple":[1,2]}}]}' in text


@dataclasses.dataclass
class Counted:
    name: str
    count: int = dataclasses.field(init=False, default=3)


def test_a_field_that_a_dataclass_leaves_to_its_class_arrives_with_its_default() -> None:
    changed = Counted("b")
    changed.count = 4
    assert [travel(Counted("a")), travel(changed)] == [Counted("a"), changed]
    assert travel(changed).count == 4
