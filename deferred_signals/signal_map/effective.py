"""The options that are in force for one connection, and where each of them comes from."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.conf import settings

from .. import conf, django_signals
from .connection import Connection, default_of, shown

#: Of these, None means what the setting of the same name says.
_BY_SETTING = ("durable", "encrypt")


class Effective(NamedTuple):
    """One option: its value as JSON has it, and who says so."""

    name: str
    value: Any
    source: str


def effective(one: Connection) -> list[Effective]:
    """All options of a deferred connection, in the order of the reference."""
    options = one.stand_in.options
    return [_one(one, name, getattr(options, name)) for name in options.__dataclass_fields__]


def _one(one: Connection, name: str, value: Any) -> Effective:
    if value != default_of(name):
        return Effective(name, shown(value), "option")
    if name in _BY_SETTING:
        # What is wrong in the settings, a check says.
        given = conf.read(getattr(settings, "DEFERRED_SIGNALS", None) or {})[0]
        setting = f"setting {name.upper()}"
        if name == "durable" and not one.stand_in.options.on_commit:
            return Effective(name, False, "on_commit=False")
        return Effective(name, given.get(name, False), setting if name in given else "default")
    if name == "name":
        return Effective(name, one.receiver, "its dotted path")
    if name == "queue" and one.queue:
        return Effective(name, one.queue, "Celery's routing")
    if name == "instance":
        wants = django_signals.wants_snapshots(one.stand_in.signal)
        return Effective(name, "snapshot" if wants else "reference", "the signal" if wants else "default")
    if name == "using":
        return Effective(name, value, "by the send's instance or sender")
    return Effective(name, shown(value), "default")
