"""Sends that differ in nothing but the key of their row: the rest of their text is remembered."""

from __future__ import annotations

from operator import is_
from typing import Any, NamedTuple

from ..references import is_model, write_alias
from ..strict_json import dump
from . import base
from .plain import text_of_arguments

#: Characters of the longest word that is taken to be the same in many sends, as the alias in ``using``.
_LONGEST = 20
#: Shapes that are remembered over one connection of a receiver, and how often they may be too many.
_MOST, _OFTEN = 64, 10

#: What of a text stands before a key and after it.
Shape = tuple[str, str]


class _Last(NamedTuple):
    """What was the last send with a shape; most that follow are as it, which takes half the time to see."""

    edition: int
    names: list[str]
    values: list[Any]
    #: The name of the row, and which values must be the same objects: all others.
    name: str
    same: list[bool]
    kind: Any
    alias: str
    shape: Shape


class Shapes:
    """The text of arguments, for the sends over one connection of a receiver."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Shape] = {}
        self._edition = base.edition()
        self._forgotten = 0
        self._last: _Last | None = None

    def text(self, named: dict[str, Any]) -> str | None:
        """The JSON text of arguments; None where they are not plain."""
        if (text := self._as_last(named)) is not None:
            return text
        if self._forgotten > _OFTEN:
            return text_of_arguments(named)
        row: Any = None
        rows = alias = ""
        values: list[Any] = []
        for name, value in named.items():
            kind = type(value)
            if kind is bool or value is None or (kind is str and len(value) <= _LONGEST):
                values.append(value)
            elif row is None and is_model(kind):
                row, rows, alias = value, name, write_alias(value)
                values.append((kind, alias))
            else:
                return text_of_arguments(named)
        if row is None or (pk := _key(row)) is None:
            return text_of_arguments(named)
        if self._edition != base.edition():
            # A codec was added, perhaps for one of these types.
            self._known, self._edition = {}, base.edition()
        shape = self._known.get(key := (*named, *values))
        if shape is None:
            if (whole := text_of_arguments(named)) is None:
                return None
            # In words the quotes are escaped, so this stands in the reference only.
            rest = f",{dump(alias)}]"
            before, found, after = whole.partition(f",{pk}{rest}")
            if not found:
                return whole  # a router has chosen another database when it was asked again
            self._remember(key, shape := (f"{before},", f"{rest}{after}"))
        names = list(named)
        self._last = _Last(
            self._edition, names, values, rows, [name != rows for name in names], type(row), alias, shape
        )
        return f"{shape[0]}{pk}{shape[1]}"

    def _as_last(self, named: dict[str, Any]) -> str | None:
        """The text of a send that differs from the last one in its key at most; None for any other."""
        if self._last is None:
            return None
        edition, names, values, name, same, kind, alias, (before, after) = self._last
        if [*named] != names or edition != base.edition():
            return None
        row: Any = named[name]
        # The same objects, and not equal ones: 1 is True, and a text of its own.
        if type(row) is not kind or [*map(is_, named.values(), values)] != same or write_alias(row) != alias:
            return None
        return None if (pk := _key(row)) is None else f"{before}{pk}{after}"

    def _remember(self, key: tuple[Any, ...], shape: Shape) -> None:
        if len(self._known) >= _MOST:
            # Their words are others each time.
            self._known = {}
            self._forgotten += 1
        self._known[key] = shape


def _key(row: Any) -> int | None:
    """The key of a saved row, if it is a number as most are."""
    pk = row.pk
    return pk if type(pk) is int and not row._state.adding and 0 <= pk < 2**63 else None
