"""What a value goes through on its way to a worker, without a worker."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from datetime import datetime, time
from decimal import Decimal
from typing import Any

from django.db.models import Model
from django.http import HttpRequest
from django.utils.datastructures import MultiValueDict
from django.utils.functional import LazyObject, Promise

from deferred_signals.codec import CarriedError, Decoder, Encoder
from deferred_signals.codec.base import type_name
from deferred_signals.codec.requests import snapshot
from deferred_signals.envelope import Envelope, seal, unseal


def envelope(**changes: Any) -> Envelope:
    made = Envelope(
        id="5b0e7f5c-6a3e-4b52-9a8e-2f6e4f3c1d10",
        created=1790000000.125,
        receiver="shop.receivers.welcome",
        signal="django.db.models.signals.post_save",
        sender=None,
        kwargs={},
        context={},
    )
    return dataclasses.replace(made, **changes)


def payload(**values: Any) -> str:
    """The signed string for these arguments."""
    encoder = Encoder()
    return seal(envelope(kwargs={name: encoder.encode(value) for name, value in values.items()}).to_text())


def arrived(payload: str) -> dict[str, Any]:
    """The arguments of a signed string."""
    decoder = Decoder()
    return {name: decoder.decode(data) for name, data in unseal(payload).kwargs.items()}


def travel(value: Any) -> Any:
    """The value as it arrives: through JSON text and a signature."""
    return arrived(payload(value=value))["value"]


def canonical(value: Any) -> Any:
    """A picture of a value in which equal means: no test could tell them apart, NaN and -0.0 included.

    What the documentation calls a stand-in has the picture of what it stands for.
    """
    # Not isinstance: that also asks the object, and a lazy one would answer for what it wraps.
    for kind, picture in _PICTURES:
        if issubclass(type(value), kind):
            return picture(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value), [(field.name, canonical(getattr(value, field.name))) for field in dataclasses.fields(value)]
    return type(value), value


def _items(values: Iterable[Any]) -> list[Any]:
    return [canonical(item) for item in values]


def _instance(value: Model) -> Any:
    fields = {field.attname: canonical(vars(value).get(field.attname)) for field in value._meta.concrete_fields}
    return type(value), value._state.db, value._state.adding, value.get_deferred_fields(), fields


def _error(value: BaseException) -> Any:
    named = (value.type_name, value.text) if isinstance(value, CarriedError) else (type_name(value), str(value))
    return "error", *named


#: The nearest type first.
_PICTURES: tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...] = (
    (Promise, lambda it: canonical(str(it))),
    (LazyObject, lambda it: canonical(it.__reduce__()[1][0])),
    (HttpRequest, lambda it: canonical(snapshot(it))),
    (BaseException, _error),
    (Model, _instance),
    (enum.Enum, lambda it: (type(it), it.name, it.value)),
    (float, lambda it: (type(it), "nan" if math.isnan(it) else it.hex())),
    (complex, lambda it: (type(it), canonical(it.real), canonical(it.imag))),
    (Decimal, lambda it: (type(it), it.as_tuple())),
    ((datetime, time), lambda it: (type(it), it.replace(tzinfo=None).isoformat(), it.fold, repr(it.tzinfo))),
    (range, lambda it: (type(it), it.start, it.stop, it.step)),
    (deque, lambda it: (type(it), it.maxlen, _items(it))),
    ((list, tuple), lambda it: (type(it), _items(it))),
    ((set, frozenset), lambda it: (type(it), sorted(map(repr, _items(it))))),
    (MultiValueDict, lambda it: (type(it), _items(dict.items(it)), vars(it))),
    (defaultdict, lambda it: (type(it), it.default_factory, _items(it.items()))),
    (dict, lambda it: (type(it), _items(it.items()))),
)
