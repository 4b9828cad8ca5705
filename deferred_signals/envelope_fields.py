"""The keys of an envelope on the wire, and what their values must be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .exceptions import OpenError

#: The last moment of datetime, in Unix seconds.
LATEST = 253402300799


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_text_or_none(value: Any) -> bool:
    return type(value) is str or value is None


# Printable: both stand in lines of the log, and shall not begin one.


def _is_id(value: Any) -> bool:
    return type(value) is str and len(value) <= 255 and value.isprintable()  # noqa: PLR2004


def _is_name(value: Any) -> bool:
    return type(value) is str and len(value) <= 1000 and value.isprintable()  # noqa: PLR2004


def _is_object(value: Any) -> bool:
    return type(value) is dict


def _is_time(value: Any) -> bool:
    return (type(value) is float or type(value) is int) and 0 <= value <= LATEST


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


#: The keys, the fields they become, and what their values must be, None if anything. Every delivery comes by here, and
#: those of a batch one after the other.
FIELDS: dict[str, tuple[str, Callable[[Any], bool] | None]] = {
    "id": ("id", _is_id),
    "at": ("created", _is_time),
    "to": ("receiver", _is_name),
    "signal": ("signal", _is_text_or_none),
    "sender": ("sender", None),
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
IN_CLEAR = (*HEAD, *CONTENTS)


def checked(data: dict[str, Any], required: tuple[str, ...]) -> dict[str, Any]:
    """The fields of an envelope that a JSON object has. Raises OpenError for a wrong value or a key that lacks."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        if (field := FIELDS.get(key)) is not None:
            name, is_right = field
            if is_right is not None and not is_right(value):
                raise OpenError(f"The payload is authentic but its {key!r} is not what it must be.")
            found[name] = value
    for key in required:
        if key not in data:
            raise OpenError(f"The payload is authentic but has no {key!r}.")
    return found
