"""The codecs of what travels with the name of a class, function or signal: looked up, never imported."""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
from typing import Any

from django.dispatch import Signal

from ..exceptions import DecodeError, EncodeError, UnknownReceiver
from ..references import is_importable, look_up, path_of
from ..signal_names import signal_name
from .base import Decoder, Encoder, add, type_name
from .containers import decoded_items, items

_FUNCTIONS = types.FunctionType | types.BuiltinFunctionType


def importable(value: Any) -> str:
    """The dotted path of a class or function, when it leads back to it. Raises EncodeError."""
    if not is_importable(value):
        raise EncodeError(
            "it cannot be found again by its dotted path. Classes and functions travel by name and must stand at "
            "module level under the name they were defined with.",
            f"{type_name(value)} {getattr(value, '__qualname__', '')}".strip(),
        )
    return str(path_of(value))


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


def _named_tuple(encoder: Encoder, value: tuple[Any, ...]) -> Any:
    kind = type(value)
    if not hasattr(kind, "_fields"):
        raise EncodeError(
            "it is a tuple of a type of its own. Send a plain tuple or use register_codec().",
            type_name(value),
        )
    return {"$namedtuple": [importable(kind), items(encoder, value)]}


def _decode_namedtuple(decoder: Decoder, data: Any) -> Any:
    path, values = data
    kind = found(path, type)
    if not issubclass(kind, tuple) or len(kind._fields) != len(values):
        raise ValueError("not that named tuple")
    # tuple.__new__ and not the class: a __new__ of the user's could do anything with what the wire says.
    return tuple.__new__(kind, decoded_items(decoder, values))


def _dataclass(encoder: Encoder, value: Any) -> Any:
    kind: Any = type(value)
    names = [field.name for field in dataclasses.fields(kind)]
    cached = {
        name
        for name in getattr(value, "__dict__", {})
        if isinstance(getattr(kind, name, None), functools.cached_property)
    }
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
    made = object.__new__(kind)  # type: ignore[arg-type]  # found says it is a class
    for name, item in values.items():
        object.__setattr__(made, name, decoder.decode(item))
    return made


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


def _by_path(kind: type, tag: str, expected: Any, *, subclasses: bool = False) -> None:
    add(
        kind,
        lambda encoder, value: {tag: importable(value)},
        tag=tag,
        decode=lambda decoder, data: found(data, expected),
        subclasses=subclasses,
    )


add(enum.Enum, _enum, tag="$enum", decode=_decode_enum, subclasses=True)
add(enum.Flag, _enum, tag="$flag", decode=_decode_flag, subclasses=True)
add(tuple, _named_tuple, tag="$namedtuple", decode=_decode_namedtuple, subclasses=True)
add("dataclass", _dataclass, tag="$dataclass", decode=_decode_dataclass)
add(Signal, _signal, tag="$signal", decode=_decode_signal, subclasses=True)
_by_path(type, "$class", type, subclasses=True)
_by_path(types.FunctionType, "$function", _FUNCTIONS)
_by_path(types.BuiltinFunctionType, "$function", _FUNCTIONS)
