"""The codecs of records, values with named fields: named tuples and dataclasses."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import types
from typing import Any

from django.utils.functional import cached_property

from ..exceptions import EncodeError, UnknownName
from .base import Decoder, Encoder, add, type_name
from .containers import decoded_items, items
from .named import enum_json, found, importable


def _named_tuple(encoder: Encoder, value: Any) -> Any:
    kind = type(value)
    if issubclass(kind, enum.Enum):
        # A tuple is a base of it that is nearer than Enum.
        return enum_json(encoder, value)
    fields = getattr(kind, "_fields", None)
    if fields is None or len(fields) != len(value) or _held(value) or hasattr(kind, "__del__"):
        raise EncodeError(
            "it is a tuple of a type of its own, or a named tuple that holds more or less than its fields or has its "
            "own __del__. Send a plain tuple or use register_codec().",
            type_name(value),
        )
    return {"$namedtuple": [importable(kind), items(encoder, value)]}


def _decode_namedtuple(decoder: Decoder, data: Any) -> Any:
    path, values = data
    kind = found(path, type)
    # A __del__ would run with what the wire says.
    if not issubclass(kind, tuple) or issubclass(kind, enum.Enum) or hasattr(kind, "__del__"):
        raise ValueError("not a named tuple")
    # A field that this release has added has its default, if it has one.
    names = kind._fields[len(values) :]
    if len(values) > len(kind._fields) or not set(names) <= set(kind._field_defaults):
        raise UnknownName("A named tuple in the payload has other fields than its class in this process.")
    added = [kind._field_defaults[name] for name in names]
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
            "it is a dataclass that holds more or less than its fields, or has its own __new__ or __del__. Use "
            "register_codec().",
            type_name(value),
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
        raise UnknownName("A dataclass in the payload has other fields than its class in this process.")
    # Neither __init__ nor __post_init__ runs: the fields are set to what they were.
    made = object.__new__(kind)  # type: ignore[arg-type]  # found says it is a class
    for name, default in fields.items():
        object.__setattr__(made, name, decoder.decode(values[name]) if name in values else default)
    return made


def _is_plain(kind: Any) -> bool:
    """Whether object itself can make one, set its fields and let it go.

    No __new__ and no __del__, which would run with what the wire says, and no property under a field's name.
    """
    members = [inspect.getattr_static(kind, field.name, None) for field in dataclasses.fields(kind)]
    return (
        kind.__new__ is object.__new__
        and not hasattr(kind, "__del__")
        and all(
            type(member) is types.MemberDescriptorType or not hasattr(type(member), "__set__") for member in members
        )
    )


add(tuple, _named_tuple, tag="$namedtuple", decode=_decode_namedtuple, subclasses=True)
add("dataclass", _dataclass, tag="$dataclass", decode=_decode_dataclass)
