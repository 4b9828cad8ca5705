"""The value of one model field: by the codec if it knows the type, else in a text form that the field reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from types import NoneType
from typing import TYPE_CHECKING, Any

from django.core.files import File
from django.db import models
from django.db.models.expressions import DatabaseDefault

from ..exceptions import EncodeError, TooLarge
from .base import Encoder, add
from .scalars import text_codec

if TYPE_CHECKING:
    Field = models.Field[Any, Any]


class FieldText(str):
    """A value in the text form of its model field, which only the field can read."""

    __slots__ = ()


class FieldDefault:
    """Stands for what the database will fill in when an unsaved instance is saved: the field's ``db_default``."""


#: What the database will make of a value is not known here: the field is deferred, and read when it is used.
UNKNOWN = object()

#: Not files, expressions or values that only their field can say.
_PLAIN = frozenset({NoneType, bool, int, float, str})


def field_json(encoder: Encoder, field: Field, instance: models.Model, value: Any) -> Any:
    """The JSON of one field's value: by the codec if it knows the type, else in a text form that the field reads."""
    if type(value) in _PLAIN:
        return encoder.encode(value)
    if isinstance(value, File):
        # Of a file field. A file that is not in the storage yet gets its name there; where there is no row in which
        # that could be read later, the name as it is.
        return encoder.encode(value.name) if _is_stored(value) or instance._state.adding else UNKNOWN
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


def _is_stored(value: Any) -> bool:
    return bool(getattr(value, "_committed", False))


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


def field_value(field: Field, value: Any) -> Any:
    """A field's value, of what ``field_json`` wrote and the decoder made of it."""
    if type(value) is FieldText:
        return _from_text(field, str.__str__(value))
    return field.get_default() if type(value) is FieldDefault else value


text_codec(FieldText, "$field", str.__str__, FieldText)
add(
    FieldDefault, lambda encoder, value: {"$default": None}, tag="$default", decode=lambda decoder, data: FieldDefault()
)
