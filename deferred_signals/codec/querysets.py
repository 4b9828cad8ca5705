"""The codec of QuerySets, which travel as the primary keys of their rows."""

from __future__ import annotations

from typing import Any

from django.db import models, router
from django.db.models.query import RawQuerySet

from ..exceptions import EncodeError
from ..references import key_of, known_alias, model_of
from .base import Decoder, Encoder, add, type_name
from .containers import decoded_items, items
from .models import label_in, primary_key


def _queryset(encoder: Encoder, value: models.QuerySet[Any]) -> Any:
    # Three private attributes: nothing public tells a values() queryset from one of instances, one that has been read
    # from one that has not, or the alias that using() chose from the one that a router chooses for this read.
    private: Any = value
    if private._fields is not None:
        raise EncodeError("it is a values() queryset. Send a list of it.", type_name(value))
    label = label_in(encoder, value.model)
    alias = private._db or router.db_for_write(value.model)  # noqa: SLF001
    read = private._result_cache is not None  # noqa: SLF001
    position = encoder.position()
    try:
        pks = items(encoder, [row.pk for row in value] if read else list(value.values_list("pk", flat=True)))
    except EncodeError:
        # Of a type of their field's own, which only says the key of an instance.
        encoder.back_to(position)
        pks = [primary_key(encoder, row, row.pk) for row in value.all()]
    return {"$queryset": [label, alias, pks]}


def _decode_queryset(decoder: Decoder, data: Any) -> models.QuerySet[Any]:
    label, alias, pks = data
    model = model_of(label)
    keys = [key_of(model, pk) for pk in decoded_items(decoder, pks)]
    return model._base_manager.using(known_alias(alias)).filter(pk__in=keys)


def _raw(encoder: Encoder, value: RawQuerySet[Any]) -> Any:
    raise EncodeError("it is a raw() queryset. Send a list of it.", type_name(value))


add(models.QuerySet, _queryset, tag="$queryset", decode=_decode_queryset, subclasses=True)
add(RawQuerySet, _raw, subclasses=True)
