"""The codecs of model fields, of the files that they hold, and of what a save has changed in them."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.db.models.fields.files import FieldFile

from ..exceptions import EncodeError, UnknownName
from ..references import model_of, type_name
from .base import Decoder, Encoder, add
from .changed import Changes, FieldChanges
from .field_values import field_json, field_value
from .models import label_in


def _field(encoder: Encoder, value: models.Field[Any, Any]) -> Any:
    model = getattr(value, "model", None)
    if model is None or value not in (*model._meta.fields, *model._meta.many_to_many):
        raise EncodeError("it is a field of no model, or a copy of one. Send its name.", type_name(value))
    return {"$modelfield": [label_in(encoder, model), value.name]}


def _decode_field(decoder: Decoder, data: Any) -> Any:
    label, name = data
    return _field_of(model_of(label), name)


def _field_of(model: type[models.Model], name: Any) -> Any:
    try:
        return model._meta.get_field(name)
    except FieldDoesNotExist:
        raise UnknownName(f"A field of {model._meta.label} that the payload names is not in this process.") from None


def _file(encoder: Encoder, value: FieldFile) -> Any:
    if not getattr(value, "_committed", False) or type(value) is not value.field.attr_class:
        raise EncodeError("it is a file that is not in its storage yet. Save it before the send.", type_name(value))
    return {"$fieldfile": [encoder.encode(value.instance), value.field.name, encoder.encode(value.name)]}


def _decode_file(decoder: Decoder, data: Any) -> FieldFile:
    instance, name, file = data
    instance = decoder.decode(instance)
    if not isinstance(instance, models.Model):
        raise ValueError("not an instance")
    field = _field_of(type(instance), name)
    if not isinstance(field, models.FileField) or not (file is None or type(file) is str):
        raise ValueError("not a file")
    return field.attr_class(instance, field, file)


def _changes(encoder: Encoder, value: FieldChanges) -> Any:
    instance = value.instance
    by_name = {field.attname: field for field in instance._meta.concrete_fields}
    encoder.down(value)
    made = {}
    for name, change in value.items():
        try:
            made[name] = [field_json(encoder, by_name[name], instance, one) for one in change]
        except EncodeError as error:
            error.under(f"[{name!r}]")
            raise
    encoder.depth -= 1
    return {"$changes": [label_in(encoder, type(instance)), made]}


def _decode_changes(decoder: Decoder, data: Any) -> Changes:
    label, changes = data
    model = model_of(label)
    by_name = {field.attname: field for field in model._meta.concrete_fields}
    if not set(changes) <= set(by_name):
        raise UnknownName(f"Changes of {model._meta.label} have fields that the model here does not have.")
    made = {}
    for name, (old, new) in changes.items():
        field = by_name[name]
        made[name] = (field_value(field, decoder.decode(old)), field_value(field, decoder.decode(new)))
    return made


add(models.Field, _field, tag="$modelfield", decode=_decode_field, subclasses=True)
add(FieldFile, _file, tag="$fieldfile", decode=_decode_file, subclasses=True)
add(FieldChanges, _changes, tag="$changes", decode=_decode_changes)
