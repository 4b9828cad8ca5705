"""The codecs of Django's models: instances by reference or snapshot, model classes, querysets.

A reference is read again from the database when it arrives; a snapshot brings the fields as they were and is made
again without touching the database. Which of them: ``instance=`` and the signal decide; what has no row (unsaved,
deleted), and a row of which one send carries two objects, is always a snapshot.
"""

from __future__ import annotations

from typing import Any

from django.core.files import File
from django.db import models, router
from django.db.models.base import ModelBase

from ..exceptions import EncodeError, UnknownName
from ..references import Reference, key_of, known_alias, label_of, model_of, write_alias
from .base import Decoder, Encoder, TwoStates, add, type_name
from .containers import decoded_items, items
from .scalars import text_codec


class FieldText(str):
    """A value in the text form of its model field, which only the field can read."""

    __slots__ = ()


def _label(model: type[models.Model]) -> str:
    label = label_of(model)
    if label is None:
        raise EncodeError(
            "the app registry does not have this model class (a migration's historical model?), so a worker could not "
            "find it. Send the label and the primary key.",
            f"{model.__module__}.{model.__qualname__}",
        )
    return label


def _instance(encoder: Encoder, value: models.Model) -> Any:
    model = type(value)
    label = _label(model)
    pk = value.pk
    if encoder.snapshot or value._state.adding or pk is None or (isinstance(pk, tuple) and None in pk):
        return _snapshot(encoder, value, label)
    alias = write_alias(value)
    row = (model._meta.concrete_model, pk, alias)
    if row in encoder.apart:
        return _snapshot(encoder, value, label)
    if encoder.rows.setdefault(row, value) is not value:
        raise TwoStates(row)
    return {"$ref": [label, _primary_key(encoder, value, pk), alias]}


def _primary_key(encoder: Encoder, value: models.Model, pk: Any) -> Any:
    depth = encoder.depth
    try:
        return encoder.encode(pk)
    except EncodeError:
        # Of a type of its field's own. A composite key is a tuple.
        encoder.depth = depth
        parts = [_field(encoder, field, value, getattr(value, field.attname)) for field in value._meta.pk_fields]
        return {"$tuple": parts} if isinstance(pk, tuple) else parts[0]


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
                error.under(f".{field.attname}")
                raise
            if made is not _UNKNOWN:
                fields[field.attname] = made
    encoder.depth -= 1
    return {"$snapshot": [label, value._state.db, value._state.adding, fields]}


#: What the database will make of a value is not known here: the field is deferred, and read when it is used.
_UNKNOWN = object()


def _field(encoder: Encoder, field: models.Field[Any, Any], instance: models.Model, value: Any) -> Any:
    """The JSON of one field's value: by the codec if it knows the type, else in the field's own text form."""
    if isinstance(value, File):
        # Of a file field. A file that is not in the storage yet gets its name there.
        return encoder.encode(value.name) if getattr(value, "_committed", False) else _UNKNOWN
    if hasattr(value, "resolve_expression"):
        # An F() or a function.
        return _UNKNOWN
    depth = encoder.depth
    try:
        return encoder.encode(value)
    except EncodeError:
        encoder.depth = depth
        try:
            text: Any = field.value_to_string(instance)
            same = isinstance(text, str) and bool(field.to_python(text) == value)
        except Exception:  # noqa: BLE001 - a field that cannot do this cannot travel
            same = False
        if not same:
            raise
        return encoder.encode(FieldText(text))


def _decode_snapshot(decoder: Decoder, data: Any) -> models.Model:
    label, alias, adding, fields = data
    model = model_of(label)
    by_name = {field.attname: field for field in model._meta.concrete_fields}
    if type(adding) is not bool or type(fields) is not dict or not set(fields) <= set(by_name):
        raise UnknownName(f"A snapshot of {model._meta.label} has fields that the model here does not have.")
    values = {name: decoder.decode(made) for name, made in fields.items()}
    for name, text in values.items():
        if type(text) is FieldText:
            values[name] = by_name[name].to_python(str.__str__(text))
    ordered = [name for name in by_name if name in values]
    made = model.from_db(None if alias is None else known_alias(alias), ordered, [values[name] for name in ordered])
    made._state.adding = adding
    return made


def _model(encoder: Encoder, value: type[models.Model]) -> Any:
    return {"$model": _label(value)}


def _queryset(encoder: Encoder, value: models.QuerySet[Any]) -> Any:
    # Three private attributes: nothing public tells a values() queryset from one of instances, one that has been read
    # from one that has not, or the alias that using() chose from the one that a router chooses for this read.
    private: Any = value
    if private._fields is not None:
        raise EncodeError("it is a values() queryset. Send a list of it.", type_name(value))
    alias = private._db or router.db_for_write(value.model)  # noqa: SLF001
    read = private._result_cache is not None  # noqa: SLF001
    depth = encoder.depth
    try:
        pks = items(encoder, [row.pk for row in value] if read else list(value.values_list("pk", flat=True)))
    except EncodeError:
        # Of a type of their field's own, which only says the key of an instance.
        encoder.depth = depth
        pks = [_primary_key(encoder, row, row.pk) for row in value.all()]
    return {"$queryset": [_label(value.model), alias, pks]}


def _decode_queryset(decoder: Decoder, data: Any) -> models.QuerySet[Any]:
    label, alias, pks = data
    model = model_of(label)
    keys = [key_of(model, pk) for pk in decoded_items(decoder, pks)]
    return model._base_manager.using(known_alias(alias)).filter(pk__in=keys)


add(models.Model, _instance, tag="$ref", decode=_decode_reference, subclasses=True)
add(models.Model, _instance, tag="$snapshot", decode=_decode_snapshot, subclasses=True)
add(ModelBase, _model, tag="$model", decode=lambda decoder, data: model_of(data), subclasses=True)
text_codec(FieldText, "$field", str.__str__, FieldText)
add(models.QuerySet, _queryset, tag="$queryset", decode=_decode_queryset, subclasses=True)
