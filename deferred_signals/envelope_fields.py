"""The keys of an envelope on the wire, and what their values must be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .exceptions import OpenError

#: The last moment of datetime, in Unix seconds.
LATEST = 253402300799


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_line(value: Any, longest: int) -> bool:
    # Printable: it stands in lines of the log, and shall not begin one.
    return type(value) is str and len(value) <= longest and value.isprintable()


def _is_object(value: Any) -> bool:
    return type(value) is dict


def _is_time(value: Any) -> bool:
    return type(value) in {int, float} and 0 <= value <= LATEST


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


#: The keys, the fields they become, and what their values must be.
FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "id": ("id", lambda value: _is_line(value, 255)),
    "at": ("created", _is_time),
    "to": ("receiver", lambda value: _is_line(value, 1000)),
    "signal": ("signal", lambda value: value is None or _is_text(value)),
    "sender": ("sender", lambda value: True),
    "kwargs": ("kwargs", _is_object),
    "context": ("context", _is_object),
    "attempt": ("attempt", lambda value: _is_count(value) and value > 0),
    "crashes": ("crashes", _is_count),
    "depth": ("depth", _is_count),
    "repeats": ("repeats", _is_count),
    "waiting": ("waiting_since", _is_time),
    "expires": ("expires", _is_time),
    "encrypted": ("encrypted", _is_text),
}
HEAD = ("id", "at", "to", "signal")
CONTENTS = ("sender", "kwargs", "context")


def checked(data: dict[str, Any], required: tuple[str, ...]) -> dict[str, Any]:
    """The fields of an envelope that a JSON object has. Raises OpenError for a wrong value or a key that lacks."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        if (field := FIELDS.get(key)) is not None:
            name, is_right = field
            if not is_right(value):
                raise OpenError(f"The payload is authentic but its {key!r} is not what it must be.")
            found[name] = value
    for key in required:
        if key not in data:
            raise OpenError(f"The payload is authentic but has no {key!r}.")
    return found
