"""Snapshots: a model instance as it was at the send, made again without asking the database.

An object that one send carries twice (the ``instance`` and the ``origin`` of a delete) is written once and arrives as
one object: its snapshot is written as ``{"$same": [number, …]}``, and ``{"$same": number}`` where it comes again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from django.core.files import File
from django.db import models

from ..exceptions import EncodeError, UnknownName
from ..references import known_alias, model_of
from .base import Decoder, Encoder
from .field_values import UNKNOWN, field_json, field_value
from .saving import mark

if TYPE_CHECKING:
    Field = models.Field[Any, Any]


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
    chosen = [
        field
        for field in meta.concrete_fields
        if (names is None or field.name in names or field.attname in names)
        and not (field.name in without or field.attname in without)
    ]
    # An image asks for its width and height when it is made.
    asked = {name for field in chosen for name in (getattr(field, "width_field", 0), getattr(field, "height_field", 0))}
    return [field for field in meta.concrete_fields if field in chosen or _is_of_key(field) or field.name in asked]


def _is_of_key(field: Field) -> bool:
    """Whether the field is the primary key or a part of it, here or in a parent, or the link to a parent."""
    return (
        field.primary_key or field in field.model._meta.pk_fields or getattr(field.remote_field, "parent_link", False)
    )


def decode_snapshot(decoder: Decoder, data: Any) -> models.Model:
    """The instance of a snapshot."""
    label, alias, adding, fields = data
    model = model_of(label)
    by_name = {field.attname: field for field in model._meta.concrete_fields}
    if type(adding) is not bool or type(fields) is not dict or not set(fields) <= set(by_name):
        raise UnknownName(f"A snapshot of {model._meta.label} has fields that the model here does not have.")
    values = {name: decoder.decode(made) for name, made in fields.items()}
    values = {name: field_value(by_name[name], value) for name, value in values.items()}
    ordered = [name for name in by_name if name in values]
    made = model.from_db(None if alias is None else known_alias(alias), ordered, [values[name] for name in ordered])
    # The model's own __init__ and from_db may have made something else of them.
    held = vars(made)
    for name, value in values.items():
        # A file holds its name.
        if getattr(held[name], "name", None) != value if isinstance(held[name], File) else held[name] is not value:
            held[name] = value
    made._state.adding = adding
    if not adding:
        mark(made)
    return made
