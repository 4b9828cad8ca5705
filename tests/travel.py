"""What a value goes through on its way to a worker, without a worker."""

from __future__ import annotations

import dataclasses
import enum
import math
from datetime import datetime, time
from decimal import Decimal
from typing import Any

from deferred_signals.codec import Decoder, Encoder
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
    """A picture of a value in which equal means: no test could tell them apart, NaN and -0.0 included."""
    kind = type(value)
    if isinstance(value, enum.Enum):
        return kind, value.name, value.value
    if isinstance(value, float):
        return kind, "nan" if math.isnan(value) else value.hex()
    if isinstance(value, Decimal):
        return kind, value.as_tuple()
    if isinstance(value, datetime | time):
        return kind, value.replace(tzinfo=None).isoformat(), value.fold, repr(value.tzinfo)
    if isinstance(value, list | tuple):
        return kind, [canonical(item) for item in value]
    if isinstance(value, set | frozenset):
        return kind, sorted(repr(canonical(item)) for item in value)
    if isinstance(value, dict):
        return kind, [(canonical(key), canonical(item)) for key, item in value.items()]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return kind, [(field.name, canonical(getattr(value, field.name))) for field in dataclasses.fields(value)]
    return kind, value
