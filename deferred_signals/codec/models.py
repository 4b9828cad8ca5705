"""The codecs of Django's models: instances by reference or snapshot, model classes, querysets.

A reference is read again from the database when it arrives; a snapshot brings the fields as they were and is made
again without touching the database. Which of them: ``instance=`` and the signal decide; what has no row (unsaved,
deleted), and a row of which one send carries two objects, is always a snapshot.
"""

from __future__ import annotations

from typing import Any

from django.db import models, router
from django.db.models.base import ModelBase

from ..exceptions import DecodeError, EncodeError
from ..references import Reference, known_alias, label_of, model_of, write_alias
from .base import Decoder, Encoder, TwoStates, add, type_name
from .containers import decoded_items, items


def _label(model: type[models.Model]) -> str:
    label = label_of(model)
    if label is None:
        raise EncodeError(
            "the app registry does not have this model class (a migration's historical model?), so a worker could not "
            "find it.",
            f"{model.__module__}.{model.__qualname__}",
        )
    return label


def _instance(encoder: Encoder, value: models.Model) -> Any:
    model = type(value)
    label = _label(model)
    pk = value.pk
    if value._state.adding or pk is None or (isinstance(pk, tuple) and None in pk):
        return _snapshot(encoder, value, label)
    row = (model._meta.concrete_model, pk)
    if encoder.rows.setdefault(row, value) is not value and row not in encoder.apart:
        raise TwoStates(row)
    if encoder.snapshot or row in encoder.apart:
        return _snapshot(encoder, value, label)
    return {"$ref": [label, encoder.encode(pk), write_alias(value)]}


def _decode_reference(decoder: Decoder, data: Any) -> models.Model:
    label, pk, alias = data
    reference = Reference(label, decoder.decode(pk), alias)
    found = decoder.rows.get(reference)
    if found is None:
        found = decoder.rows[reference] = reference.fetch()
    return found


def _snapshot(encoder: Encoder, value: models.Model, label: str) -> Any:
    loaded = value.__dict__
    encoder.down(value)
    fields: dict[str, Any] = {}
    for field in value._meta.concrete_fields:
        # A deferred field is not loaded for this; it stays deferred on the worker.
        if field.attname in loaded:
            try:
                made = _field(encoder, field, value, loaded[field.attname])
            except EncodeError as error:
                raise error.under(f".{field.attname}") from None
            if made is not _UNKNOWN:
                fields[field.attname] = made
    encoder.depth -= 1
    return {"$snapshot": [label, value._state.db, value._state.adding, fields]}


_UNKNOWN = object()


def _field(encoder: Encoder, field: models.Field[Any, Any], instance: models.Model, value: Any) -> Any:
    """The JSON of one field's value: by the codec if it knows the type, else in the field's own text form."""
    if hasattr(value, "resolve_expression"):
        # An F() or a function: what the database made of it is not known here. Deferred, so it is read when used.
        return _UNKNOWN
    depth = encoder.depth
    try:
        return encoder.encode(value)
    except EncodeError:
        encoder.depth = depth
        text = field.value_to_string(instance)
        try:
            same = isinstance(text, str) and bool(field.to_python(text) == value)
        except Exception:  # noqa: BLE001 - a field that cannot do this cannot travel
            same = False
        if not same:
            raise
        return {"$field": text}


def _decode_snapshot(decoder: Decoder, data: Any) -> models.Model:
    label, alias, adding, fields = data
    model = model_of(label)
    by_name = {field.attname: field for field in model._meta.concrete_fields}
    if type(fields) is not dict or not set(fields) <= set(by_name):
        raise DecodeError(f"A snapshot of {model._meta.label} has fields that the model here does not have.")
    values = {
        name: by_name[name].to_python(made["$field"])
        if type(made) is dict and set(made) == {"$field"}
        else decoder.decode(made)
        for name, made in fields.items()
    }
    ordered = [name for name in by_name if name in values]
    made = model.from_db(None if alias is None else known_alias(alias), ordered, [values[name] for name in ordered])
    made._state.adding = adding
    return made


def _model(encoder: Encoder, value: type[models.Model]) -> Any:
    return {"$model": _label(value)}


def _queryset(encoder: Encoder, value: models.QuerySet[Any]) -> Any:
    # Private, for nothing public tells a values() queryset from one of instances.
    if value._fields is not None:  # type: ignore[attr-defined]
        raise EncodeError("it is a values() queryset. Send a list of it.", type_name(value))
    explicit = value.db != router.db_for_read(value.model)
    alias = value.db if explicit else router.db_for_write(value.model)
    pks = items(encoder, value.values_list("pk", flat=True))
    return {"$queryset": [_label(value.model), alias, pks]}


def _decode_queryset(decoder: Decoder, data: Any) -> models.QuerySet[Any]:
    label, alias, pks = data
    manager = model_of(label)._base_manager
    return manager.using(known_alias(alias)).filter(pk__in=decoded_items(decoder, pks))


add(models.Model, _instance, tag="$ref", decode=_decode_reference, subclasses=True)
add(models.Model, _instance, tag="$snapshot", decode=_decode_snapshot, subclasses=True)
add(ModelBase, _model, tag="$model", decode=lambda decoder, data: model_of(data), subclasses=True)
add(models.QuerySet, _queryset, tag="$queryset", decode=_decode_queryset, subclasses=True)
