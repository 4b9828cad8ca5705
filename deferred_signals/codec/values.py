"""The codecs of Python's and Django's plain values."""

from __future__ import annotations

import base64
import dataclasses
import enum
import functools
import math
import pathlib
import types
import uuid
from collections.abc import Iterable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from django.dispatch import Signal
from django.utils.functional import LazyObject, Promise

from ..context import zone_from_text, zone_to_text
from ..exceptions import DecodeError, EncodeError, NotCarriedError, UnknownReceiver
from ..references import is_importable, look_up, path_of
from ..registry import signal_name
from .base import Decoder, Encoder, add, type_name


def _as_is(encoder: Encoder, value: Any) -> Any:
    return value


def _str(encoder: Encoder, value: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise EncodeError("it contains a lone surrogate, which no UTF-8 text can.", "str") from None
    return value


def _int(encoder: Encoder, value: int) -> Any:
    # Beyond 64 bits JSON readers differ, and beyond 4,300 digits Python's own refuses.
    return value if -(2**63) <= value < 2**64 else {"$int": hex(value)}


def _float(encoder: Encoder, value: float) -> Any:
    return value if math.isfinite(value) else {"$float": repr(value)}


def _decode_float(decoder: Decoder, data: Any) -> float:
    return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[data]


def items(encoder: Encoder, values: Iterable[Any]) -> list[Any]:
    """The JSON of each value of a container."""
    encoder.down(values)
    made: list[Any] = []
    try:
        for value in values:
            made.append(encoder.encode(value))  # noqa: PERF401 - the index of the bad one is needed below
    except EncodeError as error:
        raise error.under(f"[{len(made)}]") from None
    encoder.depth -= 1
    return made


def _collection(tag: str) -> Any:
    return lambda encoder, values: {tag: items(encoder, values)}


def _decode_items(kind: Any) -> Any:
    return lambda decoder, data: kind(_list(decoder, data))


def _list(decoder: Decoder, data: Any) -> list[Any]:
    if type(data) is not list:
        raise ValueError("not a list")
    return [decoder.decode(item) for item in data]


def _dict(encoder: Encoder, value: dict[Any, Any]) -> Any:
    encoder.down(value)
    number = 0
    try:
        if all(type(key) is str and key[:1] != "$" for key in value):
            made: Any = {}
            for key, item in value.items():
                made[_str(encoder, key)] = encoder.encode(item)
                number += 1
        else:
            made = {"$dict": (pairs := [])}
            for key, item in value.items():
                pairs.append([encoder.encode(key), encoder.encode(item)])
                number += 1
    except EncodeError as error:
        # Keys are data: only one that looks like a field name is shown.
        shown = repr(key) if type(key) is str and key.isidentifier() and len(key) <= 30 else f"item {number}"
        raise error.under(f"[{shown}]") from None
    encoder.depth -= 1
    return made


def _decode_dict(decoder: Decoder, data: Any) -> dict[Any, Any]:
    return {decoder.decode(key): decoder.decode(value) for key, value in data}


def _zone(value: tzinfo) -> str:
    text = zone_to_text(value)
    if text is None:
        raise EncodeError("its time zone is neither a zoneinfo.ZoneInfo nor a fixed offset.", type_name(value))
    return text


def _when(value: datetime | time) -> list[Any]:
    zone = None if value.tzinfo is None else _zone(value.tzinfo)
    return [value.replace(tzinfo=None).isoformat(), zone, value.fold]


def _datetime(encoder: Encoder, value: datetime) -> Any:
    return {"$datetime": _when(value)}


def _time(encoder: Encoder, value: time) -> Any:
    return {"$time": _when(value)}


def _decode_when(kind: Any) -> Any:
    def decode(decoder: Decoder, data: Any) -> Any:
        text, zone, fold = data
        return kind.fromisoformat(text).replace(tzinfo=zone and zone_from_text(zone), fold=fold)

    return decode


def _text_of(tag: str, to_text: Any = str) -> Any:
    return lambda encoder, value: {tag: to_text(value)}


def _from_text(kind: Any) -> Any:
    def decode(decoder: Decoder, data: Any) -> Any:
        if type(data) is not str:
            raise ValueError("not a string")
        return kind(data)

    return decode


def _base64(value: bytes | bytearray) -> str:
    return base64.b64encode(value).decode()


def importable(value: Any) -> str:
    """The dotted path of a class or function, when it leads back to it. Raises EncodeError."""
    if not is_importable(value):
        raise EncodeError(
            "it cannot be found again by its dotted path. Classes and functions travel by name and must stand at module "
            "level under the name they were defined with.",
            f"{type_name(value)} {getattr(value, '__qualname__', '')}".strip(),
        )
    return path_of(value)  # type: ignore[return-value]  # is_importable says it has one


def found(path: Any, kind: Any) -> Any:
    """What stands under a dotted path in this process, which must be a ``kind``. Raises DecodeError."""
    thing = look_up(path) if type(path) is str else None
    if not isinstance(thing, kind):
        raise DecodeError("A class or function that the payload names is not in the imported modules of this process.")
    return thing


def _enum(encoder: Encoder, value: enum.Enum) -> Any:
    if isinstance(value, enum.Flag):
        return {"$flag": [importable(type(value)), value.value]}
    return {"$enum": [importable(type(value)), value.name]}


def _decode_enum(decoder: Decoder, data: Any) -> Any:
    path, name = data
    return found(path, enum.EnumType).__members__[name]


def _decode_flag(decoder: Decoder, data: Any) -> Any:
    path, number = data
    kind = found(path, enum.EnumType)
    if not issubclass(kind, enum.Flag) or type(number) is not int:
        raise ValueError("not a flag")
    return kind(number)


def _tuple(encoder: Encoder, value: tuple[Any, ...]) -> Any:
    kind = type(value)
    if kind is tuple:
        return {"$tuple": items(encoder, value)}
    if not hasattr(kind, "_fields"):
        raise EncodeError("it is a tuple of a type of its own. Send a plain tuple or use register_codec().", type_name(value))
    return {"$namedtuple": [importable(kind), items(encoder, value)]}


def _decode_namedtuple(decoder: Decoder, data: Any) -> Any:
    path, values = data
    kind = found(path, type)
    if not issubclass(kind, tuple) or len(kind._fields) != len(values):  # type: ignore[attr-defined]
        raise ValueError("not that named tuple")
    # tuple.__new__ and not the class: a __new__ of the user's could do anything with what the wire says.
    return tuple.__new__(kind, _list(decoder, values))


def _dataclass(encoder: Encoder, value: Any) -> Any:
    kind = type(value)
    names = [field.name for field in dataclasses.fields(kind)]
    cached = {name for name in getattr(value, "__dict__", {}) if isinstance(getattr(kind, name, None), functools.cached_property)}
    if kind.__new__ is not object.__new__ or set(getattr(value, "__dict__", {})) - cached - set(names):
        raise EncodeError("it is a dataclass that holds more than its fields. Use register_codec().", type_name(value))
    encoder.down(value)
    made = {}
    for name in names:
        try:
            made[name] = encoder.encode(getattr(value, name))
        except EncodeError as error:
            raise error.under(f".{name}") from None
    encoder.depth -= 1
    return {"$dataclass": [importable(kind), made]}


def _decode_dataclass(decoder: Decoder, data: Any) -> Any:
    path, values = data
    kind = found(path, type)
    if not dataclasses.is_dataclass(kind) or kind.__new__ is not object.__new__:
        raise ValueError("not a dataclass")
    if {field.name for field in dataclasses.fields(kind)} != set(values):
        raise ValueError("its fields have changed")
    # Neither __init__ nor __post_init__ runs: the fields are set to what they were.
    made = object.__new__(kind)
    for name, item in values.items():
        object.__setattr__(made, name, decoder.decode(item))
    return made


def _lazy_text(encoder: Encoder, value: Promise) -> Any:
    # What pickle is told: (function, args, kwargs, *types of the result). Only strings can be forced unchanged.
    if str not in value.__reduce__()[1][3:]:  # type: ignore[index]
        raise EncodeError("it is a lazy value that is not a string. Evaluate it before the send.", type_name(value))
    return encoder.encode(str(value))


def _lazy_object(encoder: Encoder, value: LazyObject) -> Any:
    # The pickle protocol is the public way to what a LazyObject wraps.
    return encoder.encode(value.__reduce__()[1][0])


def _exception(encoder: Encoder, value: BaseException) -> Any:
    return {"$exception": [f"{type(value).__module__}.{type(value).__qualname__}", str(value)]}


class CarriedError(Exception):
    """Stands on the worker for an exception that was an argument: ``type_name`` and the text are what travelled."""

    def __init__(self, type_name: str, text: str) -> None:
        super().__init__(type_name, text)
        self.type_name = type_name
        self.text = text

    def __str__(self) -> str:
        return f"{self.type_name}: {self.text}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CarriedError) and self.args == other.args

    def __hash__(self) -> int:
        return hash(self.args)


def _decode_exception(decoder: Decoder, data: Any) -> CarriedError:
    name, text = data
    return CarriedError(str(name), str(text))


class NotCarried:
    """Stands on the worker for an argument that could not travel and that the receiver does not name.

    Passing it on is harmless; looking into it raises NotCarriedError, which says what it was and what to do.
    """

    __slots__ = ("_what",)

    def __init__(self, where: str, type_name: str, reason: str) -> None:
        object.__setattr__(self, "_what", (where, type_name, reason))

    def _raise(self, *args: Any, **kwargs: Any) -> Any:
        where, kind, reason = object.__getattribute__(self, "_what")
        raise NotCarriedError(f"{where} ({kind}) did not travel to the worker: {reason}")

    __getattr__ = __setattr__ = __call__ = __bool__ = __iter__ = __len__ = __getitem__ = __contains__ = __str__ = _raise
    __int__ = __float__ = __index__ = __lt__ = __le__ = __gt__ = __ge__ = __add__ = __radd__ = __format__ = _raise

    def __repr__(self) -> str:
        where, kind, _ = object.__getattribute__(self, "_what")
        return f"<NotCarried {where} ({kind})>"


def not_carried(error: EncodeError) -> dict[str, Any]:
    """The JSON of the marker for what an EncodeError refused."""
    return {"$notcarried": [error.path, error.type_name, error.reason]}


def _decode_not_carried(decoder: Decoder, data: Any) -> NotCarried:
    where, kind, reason = data
    return NotCarried(where, kind, reason)


def _signal(encoder: Encoder, value: Signal) -> Any:
    name = signal_name(value)
    if name is None:
        raise EncodeError("the signal has no name. Make it a module attribute, or Signal(name=...).", type_name(value))
    return {"$signal": name}


def _decode_signal(decoder: Decoder, data: Any) -> Signal:
    signal = look_up(data) if type(data) is str else None
    if not isinstance(signal, Signal):
        raise UnknownReceiver("A signal that the payload carries as a value is not known in this process.")
    return signal


_PATHS = {
    kind.__name__: kind
    for kind in (pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath)
}


def _decode_path(decoder: Decoder, data: Any) -> pathlib.PurePath:
    kind, text = data
    return _PATHS[kind](text)


def _decode_timedelta(decoder: Decoder, data: Any) -> timedelta:
    days, seconds, microseconds = data
    return timedelta(days, seconds, microseconds)


for _kind in (type(None), bool):
    add(_kind, _as_is)
add(str, _str)
add(int, _int, tag="$int", decode=lambda decoder, data: int(data, 16))
add(float, _float, tag="$float", decode=_decode_float)
add(list, items)
add(dict, _dict, tag="$dict", decode=_decode_dict)
add(tuple, _tuple, tag="$tuple", decode=_decode_items(tuple))
add(tuple, _tuple, tag="$namedtuple", decode=_decode_namedtuple, subclasses=True)
add(set, _collection("$set"), tag="$set", decode=_decode_items(set))
add(frozenset, _collection("$frozenset"), tag="$frozenset", decode=_decode_items(frozenset))
add(bytes, _text_of("$bytes", _base64), tag="$bytes", decode=_from_text(functools.partial(base64.b64decode, validate=True)))
add(bytearray, _text_of("$bytearray", _base64), tag="$bytearray", decode=_from_text(lambda text: bytearray(base64.b64decode(text, validate=True))))
add(datetime, _datetime, tag="$datetime", decode=_decode_when(datetime))
add(time, _time, tag="$time", decode=_decode_when(time))
add(date, _text_of("$date", date.isoformat), tag="$date", decode=_from_text(date.fromisoformat))
add(timedelta, lambda encoder, value: {"$timedelta": [value.days, value.seconds, value.microseconds]}, tag="$timedelta", decode=_decode_timedelta)
for _zone_kind in (ZoneInfo, timezone):
    add(_zone_kind, _text_of("$timezone", _zone), tag="$timezone", decode=_from_text(zone_from_text))
add(Decimal, _text_of("$decimal"), tag="$decimal", decode=_from_text(Decimal))
add(uuid.UUID, _text_of("$uuid"), tag="$uuid", decode=_from_text(uuid.UUID))
for _path_kind in _PATHS.values():
    add(_path_kind, lambda encoder, value: {"$path": [type(value).__name__, str(value)]}, tag="$path", decode=_decode_path)
add(enum.Enum, _enum, tag="$enum", decode=_decode_enum, subclasses=True)
add(enum.Flag, _enum, tag="$flag", decode=_decode_flag, subclasses=True)
add("dataclass", _dataclass, tag="$dataclass", decode=_decode_dataclass)
add(Promise, _lazy_text, subclasses=True)
add(LazyObject, _lazy_object, subclasses=True)
add(type, _text_of("$class", importable), tag="$class", decode=lambda decoder, data: found(data, type), subclasses=True)
for _function_kind in (types.FunctionType, types.BuiltinFunctionType):
    add(_function_kind, _text_of("$function", importable), tag="$function", decode=lambda decoder, data: found(data, types.FunctionType | types.BuiltinFunctionType))
add(BaseException, _exception, tag="$exception", decode=_decode_exception, subclasses=True)
add(Signal, _signal, tag="$signal", decode=_decode_signal, subclasses=True)
add(NotCarried, lambda encoder, value: {"$notcarried": list(object.__getattribute__(value, "_what"))}, tag="$notcarried", decode=_decode_not_carried)
