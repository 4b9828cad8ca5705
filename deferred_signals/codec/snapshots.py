"""Snapshots: a model instance as it was at the send, made again without asking the database.

An object that one send carries twice (the ``instance`` and the ``origin`` of a delete) is written once and arrives as
one object: its snapshot is written as ``{"$same": [number, …]}``, and ``{"$same": number}`` where it comes again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from types import NoneType
from typing import TYPE_CHECKING, Any

from django.core.files import File
from django.db import models
from django.db.models.expressions import DatabaseDefault

from ..exceptions import EncodeError, TooLarge, UnknownName
from ..references import known_alias, model_of
from .base import Decoder, Encoder, add
from .saving import mark
from .scalars import text_codec

if TYPE_CHECKING:
    Field = models.Field[Any, Any]


class FieldText(str):
    """A value in the text form of its model field, which only the field can read."""

    __slots__ = ()


class FieldDefault:
    """Stands for what the database will fill in when an unsaved instance is saved: the field's ``db_default``."""


def snapshot(encoder: Encoder, value: models.Model, label: str) -> Any:
    """The JSON of an instance as it is. Raises EncodeError."""
    known = encoder.snapshots.get(id(value))
    if known is not None:
        return _again(encoder, *known)
    loaded = value.__dict__
    encoder.down(value)
    fields: dict[str, Any] = {}
    for field in carried(type(value), encoder.fields, encoder.exclude):
        # A deferred field is not loaded for this; it stays deferred on the worker.
        if field.attname in loaded:
            try:
                made = field_json(encoder, field, value, loaded[field.attname])
            except EncodeError as error:
                error.under(f".{field.attname}")
                raise
            if made is not UNKNOWN:
                fields[field.attname] = made
    encoder.depth -= 1
    made = {"$snapshot": [label, value._state.db, value._state.adding, fields]}
    encoder.snapshots[id(value)] = (value, made)
    return made


def _again(encoder: Encoder, value: models.Model, made: dict[str, Any]) -> Any:
    """What is written for an object whose snapshot was written before, as ``made``."""
    if "$same" not in made:
        number = list(encoder.snapshots).index(id(value))
        first = dict(made)
        made.clear()
        made["$same"] = [number, first]
    return {"$same": made["$same"][0]}


def decode_same(decoder: Decoder, data: Any) -> Any:
    """The object of a ``$same``."""
    if type(data) is list:
        number, first = data
        decoder.same[number] = decoder.decode(first)
        return decoder.same[number]
    return decoder.same[data]


def carried(model: type[models.Model], names: Collection[str] | None, without: Collection[str]) -> Iterable[Field]:
    """The fields that a snapshot carries, by the options ``fields`` and ``exclude``; those of the key in any case."""
    meta = model._meta
    if names is None and not without:
        return meta.concrete_fields
    return [
        field
        for field in meta.concrete_fields
        if _is_of_key(field)
        or (
            (names is None or field.name in names or field.attname in names)
            and not (field.name in without or field.attname in without)
        )
    ]


def _is_of_key(field: Field) -> bool:
    """Whether the field is the primary key or a part of it, here or in a parent, or the link to a parent."""
    return (
        field.primary_key or field in field.model._meta.pk_fields or getattr(field.remote_field, "parent_link", False)
    )


#: What the database will make of a value is not known here: the field is deferred, and read when it is used.
UNKNOWN = object()

#: Not files, expressions or values that only their field can say.
_PLAIN = frozenset({NoneType, bool, int, float, str})


def field_json(encoder: Encoder, field: Field, instance: models.Model, value: Any) -> Any:
    """The JSON of one field's value: by the codec if it knows the type, else in a text form that the field reads."""
    if type(value) in _PLAIN:
        return encoder.encode(value)
    if isinstance(value, File):
        # Of a file field. A file that is not in the storage yet gets its name there.
        return encoder.encode(value.name) if getattr(value, "_committed", False) else UNKNOWN
    if isinstance(value, DatabaseDefault) and instance._state.adding:
        return {"$default": None}
    if hasattr(value, "resolve_expression"):
        # An F() or a function.
        return UNKNOWN
    position = encoder.position()
    try:
        return encoder.encode(value)
    except TooLarge:
        raise
    except EncodeError:
        encoder.back_to(position)
        text = _text(field, instance, value)
        if text is None:
            raise
        return encoder.encode(FieldText(text))


def _text(field: Field, instance: models.Model, value: Any) -> str | None:
    """A text of which the field makes an equal value again; None if it has none."""
    try:
        for text in _texts(field, instance, value):
            if isinstance(text, str):
                read = _from_text(field, text)
                if type(read) is type(value) and bool(read == value):
                    return text
    except Exception:  # noqa: BLE001, S110 - a field that cannot do this cannot travel
        pass
    return None


def _texts(field: Field, instance: models.Model, value: Any) -> Iterator[Any]:
    """The texts that Django's fields have for a value: one for fixtures, one for the database."""
    if isinstance(field, models.JSONField):
        yield json.dumps(value, cls=field.encoder)
        return
    with suppress(Exception):  # many fields leave it out
        yield field.value_to_string(instance)
    yield field.get_prep_value(value)


def _from_text(field: Field, text: str) -> Any:
    return json.loads(text, cls=field.decoder) if isinstance(field, models.JSONField) else field.to_python(text)


def decode_snapshot(decoder: Decoder, data: Any) -> models.Model:
    """The instance of a snapshot."""
    label, alias, adding, fields = data
    model = model_of(label)
    by_name = {field.attname: field for field in model._meta.concrete_fields}
    if type(adding) is not bool or type(fields) is not dict or not set(fields) <= set(by_name):
        raise UnknownName(f"A snapshot of {model._meta.label} has fields that the model here does not have.")
    values = {name: decoder.decode(made) for name, made in fields.items()}
    for name, value in values.items():
        if type(value) is FieldText:
            values[name] = _from_text(by_name[name], str.__str__(value))
        elif type(value) is FieldDefault:
            values[name] = by_name[name].get_default()
    ordered = [name for name in by_name if name in values]
    made = model.from_db(None if alias is None else known_alias(alias), ordered, [values[name] for name in ordered])
    made._state.adding = adding
    if not adding:
        mark(made)
    return made


text_codec(FieldText, "$field", str.__str__, FieldText)
add(
    FieldDefault, lambda encoder, value: {"$default": None}, tag="$default", decode=lambda decoder, data: FieldDefault()
)
