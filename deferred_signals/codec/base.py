"""The table of codecs, and the walk over a value that uses it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from importlib import import_module
from typing import Any

from django.db import Error as DatabaseDriverError

from ..exceptions import DecodeError, DeferredSignalsError, EncodeError, NewerWire
from ..references import type_name as type_name  # noqa: PLC0414 - so that codecs have it from here
from .walk import Walk

Encode = Callable[["Encoder", Any], Any]
Decode = Callable[["Decoder", Any], Any]
#: What writes the JSON text of a value at once, None for a value that needs more thought; see ``plain``.
Write = Callable[[Any], str | None]

#: Loaded at the first value, with what they import: importing the package must not import Django's models.
_BUILT_IN = (
    "numbers", "records", "mappings", "stand_ins", "fields", "querysets", "requests", "migrate", "django_tasks",
    "refusals", "senders",
)  # fmt: skip

_exact: dict[type, Encode] = {}
_families: dict[type | str, Encode] = {}
tags: dict[str, Decode] = {}
_found: dict[type, Encode] = {}
#: By the codec; one that a project has registered has none.
writers: dict[Encode, Write] = {}
#: The same by type, as far as they were looked for.
found_writers: dict[type, Write] = {}
_loaded = False
_edition = 0
#: Whether an error shows what has caused it: in tests, whose values are their own.
shows_causes = False


def edition() -> int:
    """Another number whenever a codec has been added."""
    return _edition


def add(
    kind: type | str,
    encode: Encode,
    *,
    tag: str = "",
    decode: Decode | None = None,
    subclasses: bool = False,
    write: Write | None = None,
) -> None:
    """Add a codec to the table; ``encode`` returns finished JSON.

    ``kind`` may be a dotted path, for a class that must not be imported here, or ``"dataclass"`` for all of those.
    ``write`` makes the text of that JSON at once.
    """
    global _edition  # noqa: PLW0603 - counts this
    _edition += 1
    if subclasses or isinstance(kind, str):
        _families[kind] = encode
    else:
        _exact[kind] = encode
    if decode is not None:
        tags[tag] = decode
    if write is not None:
        writers[encode] = write
    _found.clear()
    found_writers.clear()


def load() -> None:
    global _loaded  # noqa: PLW0603 - once per process
    if not _loaded:
        for module in _BUILT_IN:
            import_module(f"{__package__}.{module}")
        # Only now: a thread that comes while another one loads must wait for the modules, too.
        _loaded = True


def _find(kind: type) -> Encode:
    """The codec of a type that is not in the table itself: by its nearest base that is a family."""
    load()
    if kind in _exact:
        return _exact[kind]
    for base in kind.__mro__:
        encode = _families.get(base) or _families.get(f"{base.__module__}.{base.__qualname__}")
        if encode is not None:
            break
    else:
        encode = _families["dataclass"] if dataclasses.is_dataclass(kind) else _refuse
    _found[kind] = encode
    return encode


def codec_of(kind: type) -> Encode:
    """What makes JSON of a type's values."""
    return _exact.get(kind) or _find(kind)


def _refuse(encoder: Encoder, value: Any) -> Any:
    raise EncodeError(
        "this type is not known to the codec. Send what identifies it (a primary key, a string), or teach the codec "
        "with register_codec().",
        type_name(value),
    )


class TwoStates(Exception):
    """One send carries two objects of one row, so both must be snapshots; ``row`` says which row."""

    def __init__(self, row: Any) -> None:
        super().__init__(row)
        self.row = row


class Encoder(Walk):
    """One walk over the arguments of one send.

    ``snapshot`` says how model instances travel; ``apart`` holds the rows of which this send carries two objects, which
    travel as snapshots whatever the option says. ``fields`` and ``exclude`` name the fields that snapshots carry.
    ``using`` is the database in which rows are that came from there or were written there, whatever the routers say.
    """

    model: type | None = None
    label = ""

    def __init__(
        self,
        *,
        snapshot: bool = False,
        apart: frozenset[Any] = frozenset(),
        fields: frozenset[str] | None = None,
        exclude: frozenset[str] = frozenset(),
        using: str | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.using = using
        self.apart = apart
        self.fields = fields
        self.exclude = exclude
        #: The object of each row that travels by reference.
        self.rows: dict[Any, Any] = {}
        self.snapshots = {}

    def encode(self, value: Any) -> Any:
        """The JSON of one value. Raises EncodeError."""
        kind = type(value)
        encode = _exact.get(kind) or _found.get(kind) or _find(kind)
        return encode(self, value)


class Decoder:
    """One walk over the arguments of one delivery; a row that stands in it twice arrives as one object."""

    __slots__ = ("fetch", "rows", "same")

    def __init__(self, fetch: Callable[[Any], Any] | None = None) -> None:
        #: What reads the row of a reference, None for the reference itself.
        self.fetch = fetch
        self.rows: dict[Any, Any] = {}
        #: The snapshots that stand in it more than once, by their numbers.
        self.same: dict[int, Any] = {}

    def decode(self, data: Any) -> Any:
        """The value of its JSON.

        Raises DecodeError, NewerWire for a tag unknown here, InstanceMissing; what the database raises passes through.
        """
        try:
            if type(data) is list:
                return [self.decode(item) for item in data]
            if type(data) is not dict:
                return data
            if len(data) == 1:
                (tag,) = data
                if tag.startswith("$"):
                    return self._decode_tag(tag, data[tag])
            return {key: self.decode(item) for key, item in data.items()}
        except RecursionError:
            raise DecodeError("A value in the payload is nested too deep.") from None

    def _decode_tag(self, tag: str, data: Any) -> Any:
        load()
        decode = tags.get(tag)
        if decode is None:
            raise NewerWire(
                "A value in the payload has a type that this process does not know: is register_codec() called on the "
                "worker too, or does a newer release send it?"
            )
        try:
            return decode(self, data)
        except (DeferredSignalsError, DatabaseDriverError, RecursionError):
            raise
        except Exception as error:  # noqa: BLE001 - a user's codec or field may raise anything
            # Not as the cause: its text may be the value, and Celery stores tracebacks and sends them to whoever looks.
            shown = error if shows_causes else None
            raise DecodeError(f"A value tagged {tag!r} cannot be made again ({type(error).__name__}).") from shown
