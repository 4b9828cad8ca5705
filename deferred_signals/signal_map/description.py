"""All that can be said of one receiver, for ``explain_receiver`` and whoever else shows it."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.core import checks

from .. import keeping, registry
from ..exceptions import NotYetKnown
from .connection import Connection
from .effective import Effective, effective
from .names import name_of_receiver

#: The columns of docs/guarantees.md and docs/outbox.md.
COLUMNS = ("default (no tables)", "outbox installed", "durable=True", "durable=True, atomic=True")


@dataclass(frozen=True, slots=True)
class Description:
    """One receiver. What is about deliveries is empty for an inline one."""

    name: str
    path: str
    #: File and line, empty where it has none.
    place: str
    is_async: bool
    aliases: tuple[str, ...]
    connections: tuple[Connection, ...]
    #: Beside each deferred connection its options and the column of the guarantees.
    options: tuple[list[Effective], ...]
    columns: tuple[str, ...]
    checks: tuple[checks.CheckMessage, ...]

    def as_json(self) -> dict[str, Any]:
        """For a machine."""
        return {
            "receiver": self.name,
            "path": self.path,
            "place": self.place or None,
            "async": self.is_async,
            "aliases": list(self.aliases),
            "connections": [
                {
                    **one.as_json(),
                    "guarantees": column or None,
                    "options": {option: {"value": value, "from": source} for option, value, source in options},
                }
                for one, options, column in zip(self.connections, self.options, self.columns, strict=True)
            ],
            "checks": [{"id": one.id, "text": str(one.msg), "cure": str(one.hint or "")} for one in self.checks],
        }


def resolve(name: str, connections: Sequence[Connection]) -> list[str]:
    """The receivers that somebody may mean: by their name, a former one, their path, or the end of one of these."""
    try:
        known = registry.get(name)
    except NotYetKnown:
        known = None
    if known is not None and known.connections():
        return [known.name]
    paths = {one.receiver: _path(one) for one in connections}
    exact = sorted(one for one, path in paths.items() if name in {one, path})
    end = f".{name}"
    ends = sorted(one for one, path in paths.items() if one.endswith(end) or path.endswith(end))
    # One that is not connected any more, only where nobody else is meant.
    return exact or ends or ([known.name] if known is not None else [])


def near(name: str, connections: Sequence[Connection]) -> list[str]:
    """Receivers whose names hold this one, or are like it."""
    names = sorted({one.receiver for one in connections})
    last: dict[str, list[str]] = {}
    for known in names:
        last.setdefault(known.rpartition(".")[2], []).append(known)
    found = [known for known in names if name and name.lower() in known.lower()]
    found += difflib.get_close_matches(name, names, n=3)
    for like in difflib.get_close_matches(name.rpartition(".")[2], last, n=3):
        found += last[like]
    return list(dict.fromkeys(found))[:5]


def describe(name: str, connections: Sequence[Connection]) -> Description:
    """All about a receiver of this name, which ``resolve`` has found; ``connections`` are all there are."""
    mine = tuple(one for one in connections if one.receiver == name)
    aliases: tuple[str, ...] = ()
    concerning: list[checks.CheckMessage] = []
    try:
        registration = registry.get(name)
    except NotYetKnown:
        function = mine[0].function
    else:
        function, aliases = registration.function, registration.options.aliases
        concerning = _checks({name, registry.name_of(function)})
    return Description(
        name,
        name_of_receiver(function),
        place_of(function),
        inspect.iscoroutinefunction(function),
        aliases,
        mine,
        tuple(effective(one) if one.deferred else [] for one in mine),
        tuple(column_of(one) if one.deferred else "" for one in mine),
        tuple(concerning),
    )


def _path(one: Connection) -> str:
    return name_of_receiver(one.function)


def column_of(one: Connection) -> str:
    """Which column of the guarantees its deliveries are in."""
    if one.durable:
        return COLUMNS[3] if one.stand_in.options.atomic else COLUMNS[2]
    return COLUMNS[0] if keeping.current() is None else COLUMNS[1]


def place_of(function: Any) -> str:
    """File and line of a function, below the current directory as seen from there; empty for what has none."""
    inner = inspect.unwrap(getattr(function, "func", function))
    code = getattr(inner, "__code__", None) or getattr(inner.__call__, "__code__", None)
    if code is None:
        return ""
    file = Path(code.co_filename)
    return f"{file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file}:{code.co_firstlineno}"


def _checks(names: set[str]) -> list[checks.CheckMessage]:
    """Our checks that name the receiver, those for production too."""
    said = re.compile(rf"(?<![\w.])(?:{'|'.join(map(re.escape, sorted(names)))})(?![\w.]*\w)")
    found = checks.run_checks(tags=["deferred_signals"], include_deployment_checks=True)
    return [one for one in found if not one.is_silenced() and (one.obj in names or said.search(str(one.msg)))]
