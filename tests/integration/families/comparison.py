"""What differs between what should have arrived and what has: ``==`` and type at every depth."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from django.db.models import Model

from deferred_signals import NotCarried


def differences(expected: Any, arrived: Any, where: str) -> Iterator[str]:
    if type(arrived) is not type(expected):
        yield f"{where}: {type(expected)} has arrived as {type(arrived)}"
    elif isinstance(expected, NotCarried):
        # Comparing markers raises; what they show is where the value stood and its type.
        yield from _unless(repr(expected) == repr(arrived), expected, arrived, where)
    elif isinstance(expected, Model):
        # Without a primary key an instance equals only itself.
        yield from _unless(expected.pk is None or expected == arrived, expected, arrived, where)
        yield from differences(_fields(expected), _fields(arrived), where)
        yield from differences(expected._state.db, arrived._state.db, f"{where}._state.db")
        yield from differences(expected._state.adding, arrived._state.adding, f"{where}._state.adding")
    elif isinstance(expected, dict):
        yield from differences(set(expected), set(arrived), f"{where}'s keys")
        for key in expected.keys() & arrived.keys():
            yield from differences(expected[key], arrived[key], f"{where}[{key!r}]")
    elif isinstance(expected, list | tuple):
        yield from _unless(len(expected) == len(arrived), expected, arrived, where)
        for index, (one, other) in enumerate(zip(expected, arrived, strict=False)):
            yield from differences(one, other, f"{where}[{index}]")
    elif isinstance(expected, set | frozenset):
        yield from differences(sorted(expected, key=repr), sorted(arrived, key=repr), where)
    elif dataclasses.is_dataclass(expected) and not isinstance(expected, type):
        for field in dataclasses.fields(expected):
            yield from differences(getattr(expected, field.name), getattr(arrived, field.name), f"{where}.{field.name}")
    else:
        yield from _unless(expected == arrived, expected, arrived, where)


def _fields(instance: Model) -> dict[str, Any]:
    """The loaded concrete fields; deferred ones stay away on both sides."""
    loaded = instance.__dict__
    return {field.attname: loaded[field.attname] for field in instance._meta.concrete_fields if field.attname in loaded}


def _unless(same: bool, expected: Any, arrived: Any, where: str) -> Iterator[str]:
    if not same:
        yield f"{where}: {expected!r} has arrived as {arrived!r}"
