"""Sends that differ in nothing but the key of their row: the rest of their text is remembered."""

from __future__ import annotations

from operator import is_
from typing import Any, NamedTuple

from ..references import is_model, write_alias
from . import base
from .plain import text_of, text_of_arguments

#: Characters of the longest word that is taken to be the same in many sends, as the alias in ``using``.
_LONGEST = 20
#: Shapes that are remembered over one connection of a receiver, and how often they may be too many.
_MOST, _OFTEN = 64, 10

#: What of a text stands before a key and after it.
Shape = tuple[str, str]


class _Last(NamedTuple):
    """What was the last send with a shape; most that follow are as it, which takes half the time to see."""

    edition: int
    sender: Any
    context: str
    names: list[str]
    #: With None in the place of the row.
    values: list[Any]
    place: int
    kind: Any
    alias: str
    shape: Shape


class Shapes:
    """What ends the text of an envelope, for the sends over one connection of a receiver."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Shape] = {}
        self._edition = base.edition()
        self._forgotten = 0
        self._last: _Last | None = None

    def text(self, sender: Any, named: dict[str, Any], context: str) -> str | None:
        """The JSON text of sender, arguments and context, which is text already; None where they are not plain."""
        if (text := self._as_last(sender, named, context)) is not None:
            return text
        if self._forgotten > _OFTEN or not (sender is None or isinstance(sender, type)):
            return _whole(sender, named, context)
        row: Any = None
        alias = ""
        values: list[Any] = []
        for value in named.values():
            kind = type(value)
            if kind is bool or value is None or (kind is str and len(value) <= _LONGEST):
                values.append(value)
            elif row is None and is_model(kind):
                row, alias = value, write_alias(value)
                values.append((kind, alias))
            else:
                return _whole(sender, named, context)
        if row is None or (pk := _key(row)) is None:
            return _whole(sender, named, context)
        if self._edition != base.edition():
            # A codec was added, perhaps for one of these types.
            self._known, self._edition = {}, base.edition()
        shape = self._known.get(key := (sender, context, *named, *values))
        if shape is None:
            if (whole := _whole(sender, named, context)) is None:
                return None
            reference = text_of(row) or ""
            before, _, after = whole.partition(reference)
            # The first comma in it stands before its key, and the key is a number.
            label, rest = reference.split(f",{pk},", 1)
            self._remember(key, shape := (f"{before}{label},", f",{rest}{after}"))
        place = next(place for place, value in enumerate(values) if type(value) is tuple)
        values[place] = None
        self._last = _Last(self._edition, sender, context, list(named), values, place, type(row), alias, shape)
        return f"{shape[0]}{pk}{shape[1]}"

    def _as_last(self, sender: Any, named: dict[str, Any], context: str) -> str | None:
        """The text of a send that differs from the last one in its key at most; None for any other."""
        last = self._last
        if (
            last is None
            or sender is not last.sender
            or context is not last.context
            or last.edition != base.edition()
            or [*named] != last.names
        ):
            return None
        values = [*named.values()]
        row: Any = values[last.place]
        values[last.place] = None
        if type(row) is not last.kind:
            return None
        # The same objects, and not equal ones: 1 is True, and a text of its own.
        if not all(map(is_, values, last.values)) or write_alias(row) != last.alias:
            return None
        before, after = last.shape
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


def _whole(sender: Any, named: dict[str, Any], context: str) -> str | None:
    of_arguments, of_sender = text_of_arguments(named), text_of(sender)
    if of_arguments is None or of_sender is None:
        return None
    return f'"sender":{of_sender},"kwargs":{of_arguments},"context":{context}}}'
