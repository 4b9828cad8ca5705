"""Deliveries of one transaction to one receiver about one instance become one: the option ``coalesce``."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from . import conf
from .delivery import Delivery
from .envelope import Envelope
from .localisation import NAMES
from .references import has_key, is_instance, write_alias
from .strict_json import dump, size_of


class Subject(NamedTuple):
    """What a delivery is about; of those about one thing, neighbours of one kind become one."""

    about: Hashable
    kind: str


def subject_of(envelope: Envelope, named: dict[str, Any], connection: object) -> Subject | None:
    """The subject of a delivery over one connection of a receiver; None where there is no instance with a key.

    What was added and what was removed, a save and a fixture are different kinds: to unite two that have another one
    between them would tell another story. What the users' carriers captured keeps sends apart, a tenant from the next.
    """
    instance: Any = named.get("instance")
    if not is_instance(instance) or not has_key(instance.pk) or not _can_be_a_key(instance.pk):
        return None
    phase, _, action = str(named.get("action", "")).partition("_")
    carried = {name: value for name, value in envelope.context.items() if name not in NAMES}
    kwargs = envelope.kwargs
    return Subject(
        (
            id(connection),
            phase,
            dump([envelope.signal, envelope.sender, carried]),
            instance._meta.concrete_model,
            instance.pk,
            write_alias(instance),
        ),
        dump([action, kwargs.get("reverse"), kwargs.get("model"), kwargs.get("raw")]),
    )


def _can_be_a_key(pk: Any) -> bool:
    try:
        hash(pk)
    except TypeError:
        return False
    return True


def coalesced(entries: Iterable[tuple[int, Delivery]]) -> list[tuple[int, Delivery]]:
    """The deliveries of one commit, numbered in send order; those that became one stand in the place of the last."""
    made: dict[int, Delivery] = {}
    last: dict[Hashable, int] = {}
    for number, delivery in entries:
        one = delivery
        if delivery.subject is not None and delivery.kept is None:
            earlier = last.get(delivery.subject.about)
            if earlier is not None and (both := merged(made[earlier], delivery)) is not None:
                del made[earlier]
                one = both
            last[delivery.subject.about] = number
        made[number] = one
    return list(made.items())


def merged(earlier: Delivery, later: Delivery) -> Delivery | None:
    """One delivery for two: as the later one, under the id of the earlier. None for two kinds, or if it is too large.

    ``created`` is or-ed. ``update_fields`` and ``pk_set`` are united, where None (all fields, no keys) stays None.
    ``changes`` leads from the old values of the earlier to the new ones of the later.
    """
    if earlier.subject != later.subject:
        return None
    data, before = json.loads(later.own), json.loads(earlier.own)
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
        kwargs["changes"] = _led_on(past["changes"], kwargs["changes"])
    both = replace(later, id=earlier.id, depth=data.get("depth", 0), repeats=data.get("repeats", 0), own=dump(data))
    return None if size_of(both.text) > conf.current().max_size else both


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
    """Old values of the first and new values of the last ``{"$changes": [label, {name: [old, new]}]}``.

    Where one is empty the other one stands, and what could not travel keeps both from telling half of it.
    """
    if "$changes" not in past or "$changes" not in present:
        return past if "$notcarried" in past or not present else present
    label, later = present["$changes"]
    both = dict(past["$changes"][1])
    for name, (old, new) in later.items():
        both[name] = [both[name][0] if name in both else old, new]
    return {"$changes": [label, {name: change for name, change in both.items() if change[0] != change[1]}]}
