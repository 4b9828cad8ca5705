"""Deliveries of one transaction to one receiver about one instance become one: the option ``coalesce``."""

from __future__ import annotations

import json
import uuid
from collections.abc import Hashable, Iterable
from dataclasses import replace
from typing import Any

from . import conf
from .delivery import Delivery
from .envelope import Envelope, dump
from .references import is_instance, write_alias

#: Arguments that keep sends apart: to have added is not to have removed, a fixture is not a save.
_APART = ("action", "reverse", "model", "raw")


def subject_of(envelope: Envelope, named: dict[str, Any]) -> Hashable:
    """What a delivery is about, equal for those that become one; None where there is no instance with a key."""
    instance: Any = named.get("instance")
    if not is_instance(instance) or instance.pk is None or not _can_be_a_key(instance.pk):
        return None
    apart = dump([envelope.sender, *(envelope.kwargs.get(name) for name in _APART)])
    return (
        envelope.receiver,
        envelope.signal,
        apart,
        instance._meta.concrete_model,
        instance.pk,
        write_alias(instance),
    )


def _can_be_a_key(pk: Any) -> bool:
    try:
        hash(pk)
    except TypeError:
        return False
    return True


def coalesced(deliveries: Iterable[Delivery]) -> list[Delivery]:
    """The deliveries of one commit, in send order, with those about one subject in the place of its last."""
    made: dict[Any, Delivery] = {}
    for number, delivery in enumerate(deliveries):
        if delivery.subject is None:
            made[number] = delivery
            continue
        earlier = made.pop(delivery.subject, None)
        one = delivery if earlier is None else merged(earlier, delivery)
        if one is None:
            # Both of them, for together they are too large.
            made[number] = earlier  # type: ignore[assignment]  # there is an earlier one
            one = renamed(delivery, str(uuid.uuid4()))
        made[delivery.subject] = one
    return list(made.values())


def renamed(delivery: Delivery, id: str) -> Delivery:  # noqa: A002 - its name on the Delivery
    """The delivery under another id."""
    return (
        delivery if delivery.id == id else replace(delivery, id=id, text=dump({**json.loads(delivery.text), "id": id}))
    )


def merged(earlier: Delivery, later: Delivery) -> Delivery | None:
    """One delivery for two: as the later one, under the id of the earlier. None if it would be too large.

    ``created`` is or-ed. ``update_fields`` and ``pk_set`` are united, where None (all fields, no keys) stays None.
    ``changes`` leads from the old values of the earlier to the new ones of the later.
    """
    data, before = json.loads(later.text), json.loads(earlier.text)
    data["id"] = before["id"]
    for count in ("depth", "repeats"):
        if before.get(count, 0) > data.get(count, 0):
            data[count] = before[count]
    kwargs, past = data["kwargs"], before["kwargs"]
    if past.get("created") is True and "created" in kwargs:
        kwargs["created"] = True
    for name in ("update_fields", "pk_set"):
        if name in kwargs and name in past:
            kwargs[name] = _united(past[name], kwargs[name])
    if later.options.changes:
        label, present = kwargs["changes"]["$changes"]
        kwargs["changes"] = {"$changes": [label, _led_on(past["changes"]["$changes"][1], present)]}
    text = dump(data)
    if len(text.encode()) > conf.current().max_size:
        return None
    return replace(later, id=earlier.id, depth=data.get("depth", 0), repeats=data.get("repeats", 0), text=text)


def _united(past: Any, present: Any) -> Any:
    """The union of two encoded collections, of the kind of the later one; the later one where that has no sense."""
    if past is None or present is None:
        return None
    (tag, items), (_, others) = _items(present), _items(past)
    if items is None or others is None:
        return present
    union = [*others, *(item for item in items if item not in others)]
    return {tag: union} if tag else union


def _items(encoded: Any) -> tuple[str, list[Any] | None]:
    if isinstance(encoded, list):
        return "", encoded
    (tag, items), *_ = encoded.items() if isinstance(encoded, dict) and encoded else [("", None)]
    return tag, items if tag in {"$set", "$frozenset", "$tuple"} else None


def _led_on(past: dict[str, Any], present: dict[str, Any]) -> dict[str, Any]:
    """Old values of the first, new values of the last: ``{name: [old, new]}``."""
    both = dict(past)
    for name, (old, new) in present.items():
        both[name] = [both[name][0] if name in both else old, new]
    return {name: change for name, change in both.items() if change[0] != change[1]}
