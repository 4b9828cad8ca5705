"""The search box: an id, a part of a receiver's name, or a model instance, as in ``auth.User:42``.

What a delivery is about stands only in its payload, a signed string that no index can look into. A table of who is
about what would be written by every send, and most of it never read; so it is looked for when somebody asks. The
database picks those rows whose payload has the model's label and the key's text anywhere in it, of the newest
``NEWEST`` of what the list shows, for each of them must be read. The payloads of these, ``OPENED`` at most, are opened
here, and a delivery is found if its sender, an argument or a part of one is that instance: by reference, as a
snapshot, or in a queryset. What is encrypted, or cannot be verified, is about nobody. The page says all that.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db.models import Model, Q, QuerySet

from deferred_signals.envelope import unseal
from deferred_signals.exceptions import NewerWire, OpenError
from deferred_signals.outbox.models import OutboxDelivery
from deferred_signals.strict_json import dump

#: Rows in whose payloads the database looks.
NEWEST = 20_000
#: Payloads that are opened.
OPENED = 2_000
#: Payloads that are in memory at once.
_CHUNK = 100

HELP = (
    "The id of a delivery, a part of a receiver's name, or a model instance that it is about, as in auth.User:42 "
    f"(among the newest {NEWEST:,})."
)

Rows = QuerySet[OutboxDelivery]


class Instance(NamedTuple):
    """A row of the project's: the labels of the model and of its proxies, and the key as text, each of its parts."""

    name: str
    labels: frozenset[str]
    keys: tuple[str, ...]
    fields: tuple[str, ...]


def search(rows: Rows, term: str) -> tuple[Rows, str]:
    """The rows that a term finds, and what is to be said of how it was looked for."""
    term = term.strip()
    if not term:
        return rows, ""
    if (key := _uuid(term)) is not None:
        return rows.filter(delivery_id=key), ""
    if ":" in term:
        instance = instance_of(term)
        if instance is None:
            return rows.none(), f"There is no model instance {term!r}. Say app.Model:key, as in auth.User:42."
        numbers, is_all = _about(rows, instance)
        return rows.filter(number__in=numbers), _said(instance, is_all=is_all)
    return rows.filter(receiver__icontains=term), ""


def _said(instance: Instance, *, is_all: bool) -> str:
    where = "all deliveries of this list" if is_all else f"the newest {NEWEST:,} deliveries of this list, not in all"
    return f"Looked for {instance.name} in {where}; not in payloads that are encrypted or cannot be verified."


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def instance_of(term: str) -> Instance | None:
    """What ``app.Model:key`` names; a composite key has commas between its parts."""
    label, _, text = term.partition(":")
    try:
        model: type[Model] = apps.get_model(label.strip())
        fields = model._meta.pk_fields
        parts = text.strip().split(",") if len(fields) > 1 else [text.strip()]
        keys = tuple(str(one.to_python(part.strip())) for one, part in zip(fields, parts, strict=True))
    except (LookupError, ValueError, ValidationError, ArithmeticError):
        return None
    concrete = model._meta.concrete_model
    labels = {one._meta.label_lower for one in apps.get_models() if one._meta.concrete_model is concrete}
    name = f"{model._meta.label} {','.join(keys)}"
    return Instance(name, frozenset(labels), keys, tuple(one.attname for one in fields))


def _about(rows: Rows, instance: Instance) -> tuple[list[int], bool]:
    """The numbers of rows about an instance, and whether all were looked at."""
    by_number = rows.order_by("-number")
    oldest = next(iter(by_number.values_list("number", flat=True)[NEWEST - 1 : NEWEST]), None)
    looked_at = by_number if oldest is None else by_number.filter(number__gte=oldest)
    likely = Q()
    for label in instance.labels:
        likely |= Q(payload__contains=dump(label))
    for key in instance.keys:
        likely &= Q(payload__contains=dump(key)[1:-1])
    numbers, opened = [], 0
    # A payload may have a hundred thousand characters: not all are in memory, where the driver fetches them in parts.
    for number, payload in looked_at.filter(likely).values_list("number", "payload")[: OPENED + 1].iterator(_CHUNK):
        opened += 1
        if opened <= OPENED and is_about(payload, instance):
            numbers.append(number)
    return numbers, oldest is None and opened <= OPENED


def is_about(payload: str, instance: Instance) -> bool:
    """Whether a delivery carries an instance. Not if its payload cannot be verified, or is encrypted."""
    try:
        envelope = unseal(payload, of_any_age=True)
    except (OpenError, NewerWire):
        return False
    return any(_is(tag, data, instance) for tag, data in _tags([envelope.sender, envelope.kwargs, envelope.context]))


def _tags(value: Any) -> Iterator[tuple[str, Any]]:
    """All that stands behind a tag, anywhere in a value."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield from ((tag, data) for tag, data in one.items() if tag in {"$ref", "$snapshot", "$queryset"})
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def _is(tag: str, data: Any, instance: Instance) -> bool:
    match tag, data:
        case "$ref", [label, key, _] if label in instance.labels:
            return _key(key) == instance.keys
        case "$snapshot", [label, _, _, dict(fields)] if label in instance.labels:
            return tuple(_text(fields.get(name)) for name in instance.fields) == instance.keys
        case "$queryset", [label, _, list(keys)] if label in instance.labels:
            return instance.keys in map(_key, keys)
    return False


def _key(data: Any) -> tuple[str, ...]:
    match data:
        case {"$tuple": list(parts)}:
            return tuple(map(_text, parts))
    return (_text(data),)


def _text(data: Any) -> str:
    """A part of a key, without its tag."""
    if isinstance(data, dict) and len(data) == 1:
        return _text(next(iter(data.values())))
    return str(data)
