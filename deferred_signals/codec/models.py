"""The codecs of Django's model instances, by reference or snapshot, and of model classes.

A reference is read again from the database when it arrives; a snapshot brings the fields as they were and is made
again without touching the database. Which of them: ``instance=`` and the signal decide; what has no row (unsaved,
deleted), and a row of which one send carries two objects, is always a snapshot.
"""

from __future__ import annotations

from json.encoder import encode_basestring
from typing import Any

from django.db import models
from django.db.models.base import ModelBase

from ..exceptions import EncodeError
from ..references import Reference, label_of, model_of, write_alias
from ..rows import fetch
from .base import Decoder, Encoder, TwoStates, add, type_name
from .field_values import UNKNOWN, field_json
from .scalars import write_int
from .snapshots import decode_same, decode_snapshot, snapshot


def label_in(encoder: Encoder, model: type[models.Model]) -> str:
    """The label of a model. Raises EncodeError for one that is not in the app registry."""
    if encoder.model is model:
        # An instance and its class often come together.
        return encoder.label
    label = label_of(model)
    if label is None:
        raise EncodeError(
            "the app registry does not have this model class (a migration's historical model?), so a worker could not "
            "find it. Send the label and the primary key.",
            f"{model.__module__}.{model.__qualname__}",
        )
    encoder.model, encoder.label = model, label
    return label


def _instance(encoder: Encoder, value: models.Model) -> Any:
    model = type(value)
    label = label_in(encoder, model)
    pk = value.pk
    if encoder.snapshot or value._state.adding or pk is None or (isinstance(pk, tuple) and None in pk):
        return snapshot(encoder, value, label)
    alias = encoder.using
    if alias is None or value._state.db != alias:
        alias = write_alias(value)
    row = (model._meta.concrete_model, pk, alias)
    try:
        if row in encoder.apart:
            return snapshot(encoder, value, label)
        same = encoder.rows.setdefault(row, value) is value
    except TypeError:
        raise EncodeError(
            'its primary key cannot be hashed, so it cannot be referred to. Use instance="snapshot".', type_name(value)
        ) from None
    if not same:
        raise TwoStates(row)
    return {"$ref": [label, primary_key(encoder, value, pk), alias]}


def primary_key(encoder: Encoder, value: models.Model, pk: Any) -> Any:
    """The JSON of an instance's primary key."""
    depth = encoder.depth
    try:
        return encoder.encode(pk)
    except EncodeError:
        # Of a type of its field's own. A composite key is a tuple.
        encoder.depth = depth
        parts = [field_json(encoder, field, value, getattr(value, field.attname)) for field in value._meta.pk_fields]
        if UNKNOWN in parts:
            raise EncodeError(
                "its primary key is not known here, for the database has made it and has not told it. Give the field a "
                "default= in place of db_default=, or read the row before the send.",
                type_name(value),
            ) from None
        return {"$tuple": parts} if isinstance(pk, tuple) else parts[0]


def _decode_reference(decoder: Decoder, data: Any) -> models.Model:
    label, pk, alias = data
    reference = Reference(label, decoder.decode(pk), alias)
    found = decoder.rows.get(reference)
    if found is None:
        found = decoder.rows[reference] = (decoder.fetch or fetch)(reference)
    return found


def _model(encoder: Encoder, value: type[models.Model]) -> Any:
    return {"$model": label_in(encoder, value)}


def _write_reference(value: models.Model) -> str | None:
    pk, label = value.pk, label_of(type(value))
    if type(pk) is not int or label is None or value._state.adding or (number := write_int(pk)) is None:
        return None
    return f'{{"$ref":["{label}",{number},{encode_basestring(write_alias(value))}]}}'


def _write_model(value: type[models.Model]) -> str | None:
    label = label_of(value)
    return None if label is None else f'{{"$model":"{label}"}}'


add(models.Model, _instance, tag="$ref", decode=_decode_reference, subclasses=True, write=_write_reference)
add(models.Model, _instance, tag="$snapshot", decode=decode_snapshot, subclasses=True)
add(models.Model, _instance, tag="$same", decode=decode_same, subclasses=True)
add(
    ModelBase,
    _model,
    tag="$model",
    decode=lambda decoder, data: model_of(data),
    subclasses=True,
    write=_write_model,
)
