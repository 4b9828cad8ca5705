"""The codecs of what travels with the name of a class, function or signal: looked up, never imported."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import types
from typing import Any

from django.dispatch import Signal
from django.utils.functional import cached_property

from ..exceptions import EncodeError, UnknownName, UnknownReceiver
from ..references import is_importable, look_up, path_of
from ..signal_names import signal_path
from .base import Decoder, Encoder, add, type_name
from .containers import decoded_items, items

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


def _enum(encoder: Encoder, value: enum.Enum) -> Any:
    if isinstance(value, enum.Flag):
        return {"$flag": [importable(type(value)), encoder.encode(value._value_)]}
    return {"$enum": [importable(type(value)), value._name_]}


def _decode_enum(decoder: Decoder, data: Any) -> Any:
    path, name = data
    return found(path, enum.EnumType).__members__[name]


def _decode_flag(decoder: Decoder, data: Any) -> Any:
    path, number = data
    kind: Any = found(path, enum.EnumType)
    number = decoder.decode(number)
    if not issubclass(kind, enum.Flag) or type(number) is not int:
        raise ValueError("not a flag")
    member = kind._value2member_map_.get(number)
    # Flag's own way to make a combination: the class may have another one, which could do anything.
    return enum.Flag._missing_.__func__(kind, number) if member is None else member  # type: ignore[attr-defined]


def _named_tuple(encoder: Encoder, value: Any) -> Any:
    kind = type(value)
    if issubclass(kind, enum.Enum):
        # A tuple is a base of it that is nearer than Enum.
        return _enum(encoder, value)
    if not hasattr(kind, "_fields") or len(kind._fields) != len(value) or _held(value):
        raise EncodeError(
            "it is a tuple of a type of its own, or a named tuple that holds more or less than its fields. Send a "
            "plain tuple or use register_codec().",
            type_name(value),
        )
    return {"$namedtuple": [importable(kind), items(encoder, value)]}


def _decode_namedtuple(decoder: Decoder, data: Any) -> Any:
    path, values = data
    kind = found(path, type)
    if not issubclass(kind, tuple) or issubclass(kind, enum.Enum) or len(kind._fields) < len(values):
        raise ValueError("not that named tuple")
    # A field that this release has added has its default, if it has one.
    added = [kind._field_defaults[name] for name in kind._fields[len(values) :]]
    # tuple.__new__ and not the class: a __new__ of the user's could do anything with what the wire says.
    return tuple.__new__(kind, decoded_items(decoder, values) + added)


def _held(value: Any) -> set[str]:
    """The names of all that an object holds, in its __dict__ and in slots, except what others keep there.

    Cached properties do, and ``Box[int](1)`` notes its type for typing's own use.
    """
    # By object's own method: a class may say less about itself.
    state = object.__getstate__(value)
    parts = state if isinstance(state, tuple) else (state,)
    names = {name for part in parts for name in part or ()} - {TYPING_NOTE}
    return {name for name in names if not isinstance(inspect.getattr_static(type(value), name, None), _CACHED)}


TYPING_NOTE = "__orig_class__"
_CACHED = (functools.cached_property, cached_property)


def _dataclass(encoder: Encoder, value: Any) -> Any:
    return {"$dataclass": [importable(type(value)), encoded_fields(encoder, value)]}


def encoded_fields(encoder: Encoder, value: Any, without: str = "") -> dict[str, Any]:
    """The JSON of a dataclass's fields, by name."""
    kind: Any = type(value)
    held = _held(value)
    fields = dataclasses.fields(kind)
    # A field that __init__ does not set has its default from the class.
    names = [field.name for field in fields if field.name in held or field.init or field.default is dataclasses.MISSING]
    if not _is_plain(kind) or held != set(names):
        raise EncodeError(
            "it is a dataclass that holds more or less than its fields. Use register_codec().", type_name(value)
        )
    encoder.down(value)
    made = {}
    for name in names:
        if name == without:
            continue
        try:
            made[name] = encoder.encode(getattr(value, name))
        except EncodeError as error:
            error.under(f".{name}")
            raise
    encoder.depth -= 1
    return made


def _decode_dataclass(decoder: Decoder, data: Any) -> Any:
    path, values = data
    return with_fields(decoder, found(path, type), values, {})


def with_fields(decoder: Decoder, kind: Any, values: dict[str, Any], known: dict[str, Any]) -> Any:
    """The dataclass of what ``encoded_fields`` wrote; ``known`` holds the values of the fields that it left out."""
    if not dataclasses.is_dataclass(kind) or not _is_plain(kind) or type(values) is not dict:
        raise ValueError("not a dataclass")
    # A field that this release has added has its default, if it has one.
    fields = {field.name: field.default for field in dataclasses.fields(kind)} | known
    missing = [name for name in fields if name not in values]
    if set(values) - set(fields) or any(fields[name] is dataclasses.MISSING for name in missing):
        raise ValueError("its fields have changed")
    # Neither __init__ nor __post_init__ runs: the fields are set to what they were.
    made = object.__new__(kind)  # type: ignore[arg-type]  # found says it is a class
    for name, default in fields.items():
        object.__setattr__(made, name, decoder.decode(values[name]) if name in values else default)
    return made


def _is_plain(kind: Any) -> bool:
    """Whether object itself can make one and set its fields: no __new__, and no property under a field's name."""
    members = [inspect.getattr_static(kind, field.name, None) for field in dataclasses.fields(kind)]
    return kind.__new__ is object.__new__ and all(
        type(member) is types.MemberDescriptorType or not hasattr(type(member), "__set__") for member in members
    )


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


add(enum.Enum, _enum, tag="$enum", decode=_decode_enum, subclasses=True)
add(enum.Flag, _enum, tag="$flag", decode=_decode_flag, subclasses=True)
add(tuple, _named_tuple, tag="$namedtuple", decode=_decode_namedtuple, subclasses=True)
add("dataclass", _dataclass, tag="$dataclass", decode=_decode_dataclass)
add(Signal, _signal, tag="$signal", decode=_decode_signal, subclasses=True)
_by_path(type, "$class", type, subclasses=True)
_by_path(types.FunctionType, "$function", _FUNCTIONS)
_by_path(types.BuiltinFunctionType, "$function", _FUNCTIONS)
