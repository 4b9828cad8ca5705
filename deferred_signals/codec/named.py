"""The codecs of what travels by name, classes, functions, signals and enums: looked up, never imported."""

from __future__ import annotations

import enum
import types
from typing import Any

from django.dispatch import Signal

from ..exceptions import EncodeError, UnknownName, UnknownReceiver
from ..references import is_importable, look_up, path_of
from ..signal_names import signal_path
from .base import Decoder, Encoder, add, type_name

_FUNCTIONS = types.FunctionType | types.BuiltinFunctionType


def importable(value: Any) -> str:
    """The dotted path of a class or function, when it leads back to it. Raises EncodeError."""
    path = str(path_of(value))
    if path.startswith("__main__.") or not is_importable(value):
        raise EncodeError(
            "it cannot be found again by its dotted path. Classes and functions travel by name and must stand at "
            "module level under the name they were defined with, in a module that the worker imports too.",
            f"{type_name(value)} {getattr(value, '__qualname__', '')}".strip(),
        )
    return path


def found(path: Any, kind: Any) -> Any:
    """What stands under a dotted path in this process, which must be a ``kind``. Raises DecodeError."""
    thing = look_up(path) if type(path) is str else None
    # Not isinstance: that also asks the object, and a lazy one in a module would be evaluated to answer.
    if not issubclass(type(thing), kind):
        raise UnknownName("A class or function that the payload names is not in the imported modules of this process.")
    return thing


def enum_json(encoder: Encoder, value: enum.Enum) -> Any:
    if isinstance(value, enum.Flag):
        return {"$flag": [importable(type(value)), encoder.encode(value._value_)]}
    return {"$enum": [importable(type(value)), value._name_]}


def _decode_enum(decoder: Decoder, data: Any) -> Any:
    path, name = data
    members = found(path, enum.EnumType).__members__
    if name not in members:
        raise UnknownName("A member of an enum that the payload names is not in this process.")
    return members[name]


def _decode_flag(decoder: Decoder, data: Any) -> Any:
    path, number = data
    kind: Any = found(path, enum.EnumType)
    number = decoder.decode(number)
    if not issubclass(kind, enum.Flag) or type(number) is not int:
        raise ValueError("not a flag")
    member = kind._value2member_map_.get(number)
    try:
        # Flag's own way to make a combination: the class may have another one, which could do anything.
        return enum.Flag._missing_.__func__(kind, number) if member is None else member  # type: ignore[attr-defined]
    except ValueError:
        raise UnknownName("A flag in the payload has a bit that is not in this process's class.") from None


def _signal(encoder: Encoder, value: Signal) -> Any:
    path = signal_path(value)
    if path is None:
        raise EncodeError("no module holds this signal. Make it a module attribute.", type_name(value))
    return {"$signal": path}


def _decode_signal(decoder: Decoder, data: Any) -> Any:
    signal: Any = look_up(data) if type(data) is str else None
    if not issubclass(type(signal), Signal):
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


add(enum.Enum, enum_json, tag="$enum", decode=_decode_enum, subclasses=True)
add(enum.Flag, enum_json, tag="$flag", decode=_decode_flag, subclasses=True)
add(Signal, _signal, tag="$signal", decode=_decode_signal, subclasses=True)
_by_path(type, "$class", type, subclasses=True)
_by_path(types.FunctionType, "$function", _FUNCTIONS)
_by_path(types.BuiltinFunctionType, "$function", _FUNCTIONS)
