"""The JSON text of arguments that need no thought, written at once: the very text that ``Encoder`` and ``dump`` make.

Most sends carry a row, flags and short words. To make containers of them, and then a text of the containers, takes
several times as long. What has no ``write`` in the table of codecs takes that way, and the tests compare the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..strict_json import dump
from .base import Write, codec_of, found_writers, writers

#: Names of arguments as JSON, between a comma and a colon; they stand in the code of whoever sends.
_names: dict[str, str] = {}
_MOST_NAMES = 1000

_REFERENCE = '{"$ref"'


def _never(value: Any) -> None:
    return None


def _writer_of(kind: type) -> Write:
    found = found_writers[kind] = writers.get(codec_of(kind), _never)
    return found


def text_of(value: Any) -> str | None:
    """The text of one value by itself, None if it is not plain."""
    return (found_writers.get(type(value)) or _writer_of(type(value)))(value)


def text_of_arguments(named: Mapping[str, Any]) -> str | None:
    """The text of named arguments, None if one of them is not plain, or if two of them are rows, perhaps the same."""
    text = ""
    rows = 0
    for name, value in named.items():
        write = found_writers.get(type(value)) or _writer_of(type(value))
        one, head = write(value), _names.get(name) or _head(name)
        if one is None or head is None:
            return None
        rows += one.startswith(_REFERENCE)
        text += head + one
    return None if rows > 1 else f"{{{text[1:]}}}"


def _head(name: str) -> str | None:
    if not name.isascii():
        return None
    text = f",{dump(name)}:"
    if len(_names) < _MOST_NAMES:
        _names[name] = text
    return text
