"""The richer types of the standard library and Django arrive with all that is in them, and no type becomes another."""

from __future__ import annotations

import functools
import io
import ipaddress
import itertools
import json
import pathlib
import sys
import time as clock
import types
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from typing import Any, Generic, NamedTuple, TypeVar
from zoneinfo import TZPATH, ZoneInfo

import dateutil.tz  # type: ignore[import-untyped]
import pytest
import pytz  # type: ignore[import-untyped]
from django.core.files.base import ContentFile
from django.http import QueryDict
from django.utils.datastructures import ImmutableList, MultiValueDict
from django.utils.safestring import SafeString

from deferred_signals.codec import Decoder, Encoder
from deferred_signals.exceptions import DecodeError, EncodeError, UnknownName
from deferred_signals.strict_json import dump

from .shop.models import Customer
from .travel import canonical, travel

HERE = __name__
T = TypeVar("T")


def refused(value: Any) -> EncodeError:
    with pytest.raises(EncodeError) as caught:
        Encoder().encode(value)
    return caught.value


class Plain:
    """A class of the user's own."""


@dataclass
class Box(Generic[T]):
    x: T


#: Code that fills a MultiValueDict by hand is not always careful.
NO_LIST: Any = "no list"


def make_list() -> list[Any]:
    return []


# --- Dicts that are more than a dict ---------------------------------------------------------------------------------


def reordered() -> OrderedDict[str, int]:
    made = OrderedDict(a=1, b=2, c=3)
    made.move_to_end("a")
    return made


@pytest.mark.parametrize(
    "value",
    [
        OrderedDict(),
        reordered(),
        OrderedDict([((1, 2), None), ("$a", [OrderedDict(x=1)])]),
        Counter(),
        Counter("abracadabra"),
        Counter({"a": -1, "b": 0, (1,): Decimal("1.5")}),
        defaultdict(None),
        defaultdict(list, a=[1]),
        defaultdict(dict, {1: {2: 3}}),
        defaultdict(Plain),
        defaultdict[str, Any](Customer, a=1),
        deque(),
        deque([1, (2,)]),
        deque([1, 2], maxlen=2),
        deque(maxlen=0),
        MultiValueDict(),
        MultiValueDict({"a": [1, 2], "b": [], "c": NO_LIST}),
        QueryDict(),
        QueryDict("a=1&a=2&b=&%24ref=x"),
        QueryDict("a=1", mutable=True),
        QueryDict("a=%FC", encoding="latin-1"),
    ],
    ids=repr,
)
def test_it_arrives_with_its_type_its_order_and_its_state(value: Any) -> None:
    assert canonical(travel(value)) == canonical(value)
    assert travel(value) == value


def test_what_typing_notes_on_an_object_is_no_obstacle() -> None:
    for value in (Counter[str]("aa"), OrderedDict[str, int](a=1), MultiValueDict[str, int]({"a": [1]}), Box[int](1)):
        assert hasattr(value, "__orig_class__")
        assert travel(value) == value


def test_a_default_factory_works_on_the_worker() -> None:
    arrived = travel(defaultdict(list))
    arrived["new"].append(1)
    assert arrived == {"new": [1]}


def test_a_full_deque_still_forgets_its_oldest_member() -> None:
    arrived = travel(deque([1, 2, 3], maxlen=3))
    arrived.append(4)
    assert list(arrived) == [2, 3, 4]


def test_an_immutable_querydict_arrives_immutable_and_a_mutable_one_mutable() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        travel(QueryDict("a=1"))["b"] = "2"
    arrived = travel(QueryDict("a=1&a=2", mutable=True))
    arrived["b"] = "3"
    assert arrived.urlencode() == "a=1&a=2&b=3"


def test_a_querydict_arrives_whatever_the_limit_of_fields_there_is(settings: Any) -> None:
    value = QueryDict("a=1&b=2&c=3")
    settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = 1
    assert travel(value) == value


@pytest.mark.parametrize(
    "factory",
    [lambda: 1, make_list, functools.partial(list), clock.time, print],
    ids=["lambda", "function", "partial", "builtin", "print"],
)
def test_a_default_factory_that_is_no_class_is_refused_with_a_remedy(factory: Any) -> None:
    # A function would run on the worker as soon as a key is missing, and the wire would have chosen it.
    error = refused({"a": defaultdict(factory)})
    assert (error.path, error.type_name) == ("['a']", "collections.defaultdict")
    assert "dict(value)" in error.reason


def test_a_default_factory_that_nobody_finds_is_refused() -> None:
    assert "dotted path" in refused(defaultdict(type("Made", (), {}))).reason


@pytest.mark.parametrize("kind", [OrderedDict, Counter, MultiValueDict, QueryDict])
def test_attributes_beside_the_items_are_not_dropped_silently(kind: Any) -> None:
    value = kind()
    value.note = 1
    assert "attributes of its own" in refused(value).reason


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (OrderedDict(a=1, b=object()), "['b']"),
        (Counter({"a": object()}), "['a']"),
        (defaultdict(list, {1: object()}), "[item 0]"),
        (MultiValueDict({"file": [1, object()]}), "['file'][1]"),
        (OrderedDict({object(): 1}), "[item 0]"),
        (deque([1, [object()]]), "[1][0]"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_the_path_leads_into_it(value: Any, path: str) -> None:
    assert refused(value).path == path


@pytest.mark.parametrize(
    "wrap",
    [
        lambda it: OrderedDict(a=it),
        lambda it: Counter(a=it),
        lambda it: defaultdict(list, a=it),
        lambda it: deque([it]),
        lambda it: MultiValueDict({"a": it}),
    ],
)
def test_each_of_them_counts_as_a_level(wrap: Any) -> None:
    value: Any = 0
    for _ in range(33):
        value = wrap(value)
    assert "MAX_DEPTH" in refused(value).reason


# --- Members that only look equal ------------------------------------------------------------------------------------


def test_no_member_is_lost_where_two_of_them_look_alike() -> None:
    # Each NaN is a key of its own, unlike 1, 1.0 and True, which are one.
    two = {float("nan"), float("nan")}
    assert len(travel(two)) == len(two) == 2
    assert len(travel({float("nan"): 1, float("nan"): 2})) == 2
    assert canonical(travel({1: "a"})) == canonical({1: "a"}) != canonical({True: "a"})
    assert canonical(travel({1.0: "a"})) == canonical({1.0: "a"}) != canonical({1: "a"})
    assert canonical(travel({True: "a", "1": "b", b"1": "c"})) == canonical({True: "a", "1": "b", b"1": "c"})


@pytest.mark.parametrize(
    "data",
    [
        {"$dict": [["a", 1], ["a", 2]]},
        {"$dict": [[1, 1], [True, 2]]},
        {"$set": [1, 1]},
        {"$frozenset": [1, True]},
        {"$ordereddict": [["a", 1], ["a", 2]]},
        {"$counter": [["a", 1], ["a", 2]]},
    ],
)
def test_members_that_become_one_on_the_worker_are_not_dropped_silently(data: Any) -> None:
    with pytest.raises(DecodeError):
        Decoder().decode(data)


def test_two_errors_that_would_become_one_are_not_dropped_silently() -> None:
    with pytest.raises(DecodeError):
        travel({ValueError("a"), ValueError("a")})


# --- Numbers and addresses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        0j,
        complex(-0.0, 0.0),
        complex(0.0, -0.0),
        complex("inf+nanj"),
        Fraction(1, 3),
        Fraction(-(10**400), 3),
        range(0),
        range(2, 2),
        range(10, -10, -3),
        range(2**70),
        *map(ipaddress.ip_address, ["127.0.0.1", "::1", "fe80::1%eth0"]),
        *map(ipaddress.ip_network, ["10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0"]),
        *map(ipaddress.ip_interface, ["10.1.2.3/8", "2001:db8::1/32", "fe80::1%eth0/64"]),
    ],
    ids=str,
)
def test_it_arrives_as_it_was(value: Any) -> None:
    assert canonical(travel(value)) == canonical(value)
    assert canonical(travel({value: (value,)})) == canonical({value: (value,)})


def test_an_address_with_a_scope_that_utf8_cannot_say_is_refused() -> None:
    assert "surrogate" in refused(ipaddress.ip_address("fe80::1%\udcff")).reason


# --- Time zones ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", [dateutil.tz.UTC, dateutil.tz.tzutc(), pytz.utc], ids=repr)
def test_the_utc_of_other_libraries_arrives_as_the_very_same(zone: Any) -> None:
    assert travel(zone) is zone
    when = datetime(2026, 1, 2, 3, tzinfo=zone)
    assert travel(when) == when
    assert travel(when).tzinfo is zone
    assert travel(time(1, tzinfo=zone)).tzinfo is zone


def test_the_utc_of_a_library_that_the_worker_lacks_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Encoder().encode(pytz.utc)
    monkeypatch.setitem(sys.modules, "pytz", None)
    with pytest.raises(UnknownName, match="pytz, which is not installed"):
        Decoder().decode(data)


class OwnZone(ZoneInfo):
    """A subclass: its rules may be others."""


def of_file(key: str | None) -> ZoneInfo:
    """The rules of one place under the key of another."""
    [path] = [path for root in TZPATH if (path := pathlib.Path(root) / "Asia/Tokyo").exists()][:1]
    with path.open("rb") as file:
        return ZoneInfo.from_file(file, key=key)


@pytest.mark.parametrize(
    "zone",
    [
        OwnZone("Europe/Vienna"),
        of_file(None),
        of_file("Europe/Vienna"),
        of_file("No/Where"),
        pytz.timezone("Europe/Vienna"),
        dateutil.tz.gettz("Europe/Vienna"),
        dateutil.tz.tzoffset(None, 3600),
        dateutil.tz.tzlocal(),
    ],
    ids=["subclass", "file", "file with a key", "unknown key", "pytz", "dateutil", "offset", "local"],
)
def test_a_zone_that_would_arrive_as_another_one_is_refused_with_a_remedy(zone: Any) -> None:
    for value in (datetime(2026, 1, 2, tzinfo=zone), time(1, tzinfo=zone)):
        assert "astimezone" in refused(value).reason


def test_a_zone_that_is_not_the_cached_one_travels_by_its_key() -> None:
    when = datetime(2026, 1, 2, tzinfo=ZoneInfo.no_cache("Europe/Vienna"))
    assert travel(when) == when
    assert travel(when).tzinfo.key == "Europe/Vienna"


@pytest.mark.parametrize(
    "zone",
    [
        timezone(timedelta(seconds=1)),
        timezone(timedelta(hours=-23, minutes=-59, seconds=-59)),
        timezone(timedelta(microseconds=-1)),
        timezone(timedelta(hours=1), "a name with + and ü"),
        timezone(timedelta(0), ""),
    ],
    ids=repr,
)
def test_offsets_of_seconds_and_less_arrive_exactly(zone: timezone) -> None:
    for value in (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=zone, fold=1), time(3, 4, 5, 6, tzinfo=zone, fold=1), zone):
        assert canonical(travel(value)) == canonical(value)
        assert repr(travel(value)) == repr(value)


def test_a_zone_whose_name_utf8_cannot_say_is_refused() -> None:
    zone = timezone(timedelta(0), "\udcff")
    for value in (zone, datetime(2026, 1, 2, tzinfo=zone), time(1, tzinfo=zone)):
        assert "surrogate" in refused(value).reason


# --- No type becomes another -----------------------------------------------------------------------------------------


class Slotted:
    __slots__ = ("x",)


class Code(StrEnum):
    A = "a"


class Level(IntEnum):
    LOW = 1


class Pair(NamedTuple):
    left: Any
    right: Any


class Place(Pair, Enum):
    """Its members are tuples, too."""

    HOME = (1, 2)


def of(kind: type, *args: Any) -> Any:
    """A value of a subclass that says nothing new."""
    made = type("Own", (kind,), {"__module__": HERE})
    return made(*args)


@pytest.mark.parametrize(
    "value",
    [
        of(str, "a"),
        of(SafeString, "a"),
        of(int, 1),
        of(float, 1.0),
        of(complex, 1),
        of(bytes, b"a"),
        of(bytearray, b"a"),
        of(list, [1]),
        of(tuple, [1]),
        of(dict, {"a": 1}),
        of(set, [1]),
        of(frozenset, [1]),
        of(OrderedDict),
        of(defaultdict, list),
        of(Counter),
        of(deque),
        of(MultiValueDict),
        of(QueryDict),
        of(Decimal, "1.10"),
        of(Fraction, 1, 3),
        of(uuid.UUID, "0" * 32),
        of(datetime, 2026, 1, 2),
        of(date, 2026, 1, 2),
        of(time, 1),
        of(timedelta, 1),
        of(ZoneInfo, "UTC"),
        of(ipaddress.IPv4Address, "127.0.0.1"),
        of(pathlib.PurePosixPath, "a"),
        of(types.SimpleNamespace),
        ImmutableList([1]),
        tuple.__new__(Pair, [1]),
        Slotted(),
    ],
    ids=lambda value: type(value).__mro__[1].__name__,
)
def test_subclasses_are_refused_with_a_remedy_and_never_become_their_base(value: Any) -> None:
    for wrapped in (value, [value], {"a": value}, deque([value])):
        error = refused(wrapped)
        assert "register_codec()" in error.reason or "zoneinfo" in error.reason
        assert error.type_name.rpartition(".")[2] == type(value).__name__


@pytest.mark.parametrize("kind", [str, int])
def test_as_keys_they_are_refused_too(kind: Any) -> None:
    key = of(kind, "1")
    assert refused({key: 1}).path == "[item 0]"
    assert refused({frozenset({(key,)}): 1}).path == "[item 0][0][0]"


@pytest.mark.parametrize("value", [Code.A, Level.LOW, Place.HOME, SafeString("a"), True], ids=repr)
def test_those_that_are_known_are_kept_as_values_and_as_keys(value: Any) -> None:
    for wrapped in (value, [value], {value: 1}, (frozenset({value}),)):
        assert canonical(travel(wrapped)) == canonical(wrapped)
    assert isinstance(value, SafeString) or travel(value) is value


def test_a_member_is_not_made_a_second_time_by_what_the_wire_says() -> None:
    with pytest.raises(DecodeError):
        Decoder().decode({"$namedtuple": [f"{HERE}.Place", [1, 2]]})


@pytest.mark.parametrize("value", [0.0, -0.0, 0, False, "", b"", None], ids=repr)
def test_what_is_falsy_keeps_its_type(value: Any) -> None:
    assert canonical(travel([value, {value: value}])) == canonical([value, {value: value}])


@pytest.mark.parametrize("fold", [0, 1])
def test_times_and_datetimes_keep_fold_and_microseconds(fold: int) -> None:
    for zone in (None, UTC, ZoneInfo("Europe/Vienna")):
        for value in (time(2, 30, 0, 1, zone, fold=fold), datetime(2026, 10, 25, 2, 30, 0, 999_999, zone, fold=fold)):
            assert canonical(travel(value)) == canonical(value)


# --- Refused with a remedy of its own --------------------------------------------------------------------------------


async def coroutine() -> None: ...


async def async_generator() -> Any:
    yield


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ((number for number in [1]), "list(value)"),
        (iter([1]), "list(value)"),
        (iter({1: 2}.items()), "list(value)"),
        (map(str, [1]), "list(value)"),
        (filter(None, [1]), "list(value)"),
        (enumerate([1]), "list(value)"),
        (zip([1], strict=True), "list(value)"),
        (itertools.chain([1]), "list(value)"),
        (itertools.islice([1], 1), "list(value)"),
        ({}.keys(), "list(value)"),
        ({}.values(), "list(value)"),
        ({1: 2}.items(), "list(value)"),
        (types.MappingProxyType({}), "dict(value)"),
        (vars(Plain), "dict(value)"),
        (memoryview(b"a"), "bytes(value)"),
        ("a".upper, "dotted path"),
        (json, "Send its name"),
        (async_generator(), "a list of its values"),
        (io.StringIO("a"), "Send its name"),
        (io.BytesIO(b"a"), "Send its name"),
        (ContentFile(b"a"), "Send its name"),
        (Customer.objects, "manager.all()"),
        (Customer(pk=1).order_set, "manager.all()"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_travel_at_all_is_refused_with_what_to_send_instead(value: Any, remedy: str) -> None:
    assert remedy in refused(value).reason


def test_a_coroutine_is_refused_with_what_to_send_instead() -> None:
    value = coroutine()
    assert "Await it" in refused(value).reason
    value.close()


# --- What is on the wire ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (OrderedDict(a=1), '{"$ordereddict":[["a",1]]}'),
        (Counter("aa"), '{"$counter":[["a",2]]}'),
        (defaultdict(list, a=[]), '{"$defaultdict":["builtins.list",[["a",[]]]]}'),
        (defaultdict(None), '{"$defaultdict":[null,[]]}'),
        (deque([1], 3), '{"$deque":[[1],3]}'),
        (QueryDict("a=1"), '{"$querydict":[[["a",["1"]]],false,"utf-8"]}'),
        (MultiValueDict({"a": [1]}), '{"$multivaluedict":[["a",[1]]]}'),
        (1 + 2j, '{"$complex":[1.0,2.0]}'),
        (Fraction(1, 3), '{"$fraction":[1,3]}'),
        (range(3), '{"$range":[0,3,1]}'),
        (ipaddress.ip_address("::1"), '{"$ip":["IPv6Address","::1"]}'),
        (dateutil.tz.UTC, '{"$timezone":"dateutil.tz:UTC"}'),
    ],
    ids=lambda value: "",
)
def test_the_wire_form_is_as_it_was_released(value: Any, text: str) -> None:
    # A change here breaks messages that are on their way, and workers of the release before.
    assert dump(Encoder().encode(value)) == text
    assert canonical(Decoder().decode(json.loads(text))) == canonical(value)


# --- Nonsense under a good signature ---------------------------------------------------------------------------------

HUGE = {"$int": hex(10**5000)}


@pytest.mark.parametrize(
    "data",
    [
        *({tag: data} for tag in ("$dict", "$ordereddict", "$counter", "$multivaluedict")
          for data in (None, 5, "ab", {"a": 1}, [1], [[1]], [["a", 1, 2]], [[[], 1]], {})),
        {"$defaultdict": None},
        {"$defaultdict": []},
        {"$defaultdict": ["builtins.list"]},
        {"$defaultdict": ["builtins.list", 5]},
        {"$defaultdict": ["builtins.len", []]},
        {"$defaultdict": ["os.abort", []]},
        {"$defaultdict": [f"{HERE}.make_list", []]},
        {"$defaultdict": [5, []]},
        {"$defaultdict": [["builtins.list"], []]},
        {"$defaultdict": ["no.where", []]},
        {"$deque": None},
        {"$deque": []},
        {"$deque": [[]]},
        {"$deque": [[], -1]},
        {"$deque": [[], True]},
        {"$deque": [[], 1.0]},
        {"$deque": [[], "1"]},
        {"$deque": [[], 10**30]},
        {"$deque": [[1, 2], 1]},
        {"$deque": ["ab", None]},
        {"$deque": [{"a": 1}, None]},
        {"$querydict": []},
        {"$querydict": [[], 1, "utf-8"]},
        {"$querydict": [[], True, None]},
        {"$querydict": [[], True, {"$safe": "utf-8"}]},
        {"$querydict": [5, True, "utf-8"]},
        {"$querydict": [[], True]},
        {"$complex": 1.0},
        {"$complex": [1.0]},
        {"$complex": [1, 2]},
        {"$complex": ["1", "2"]},
        {"$complex": [1.0, {"$decimal": "1"}]},
        {"$complex": [1.0, {"$notcarried": ["a", "b", "c"]}]},
        {"$fraction": "1e999999999"},
        {"$fraction": ["1", "3"]},
        {"$fraction": [1, 0]},
        {"$fraction": [1.5, 1]},
        {"$fraction": [True, 1]},
        {"$fraction": [{"$decimal": "1E+999999999"}, 1]},
        {"$range": [0, 1e999, 1]},
        {"$range": [0, 1, 0]},
        {"$range": [0]},
        {"$range": [0, 1]},
        {"$range": 5},
        {"$range": [0, True, 1]},
        {"$range": [0, {"$notcarried": ["a", "b", "c"]}, 1]},
        {"$ip": "127.0.0.1"},
        {"$ip": ["IPv4Address", 1]},
        {"$ip": ["IPv4Address", "::1"]},
        {"$ip": ["IPv4Address", "localhost"]},
        {"$ip": ["ip_address", "::1"]},
        {"$ip": ["IPv4Network", "10.0.0.1/8"]},
        {"$ip": [["IPv4Address"], "::1"]},
        {"$timezone": "os:getcwd"},
        {"$timezone": "dateutil.tz:tzlocal"},
        {"$timezone": "pytz:UnknownTimeZoneError"},
        {"$datetime": ["2020-01-01T00:00:00", "os:getcwd", 0]},
        {"$namedtuple": [f"{HERE}.Pair", [1]]},
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_nonsense_is_a_decode_error(data: Any) -> None:
    with pytest.raises(DecodeError):
        Decoder().decode([{"a": data}])


def test_a_few_bytes_do_not_become_gigabytes() -> None:
    # Each of these would, if it were counted out, expanded or hashed digit by digit.
    data = {"$set": [
        {"$range": [0, HUGE, 1]},
        {"$fraction": [HUGE, 3]},
        {"$decimal": "1E+999999999999"},
        {"$tuple": [{"$range": [HUGE, 0, {"$int": "-0x1"}]}]},
        {"$ip": ["IPv6Network", "::/0"]},
    ]}  # fmt: skip
    started = clock.process_time()
    assert len(Decoder().decode(data)) == 5
    assert len(Decoder().decode({"$deque": [[], 2**62]})) == 0
    assert clock.process_time() - started < 1
