"""The codecs of lists, dicts, tuples and sets."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from ..exceptions import EncodeError
from .base import Decoder, Encoder, add


def items(encoder: Encoder, values: Collection[Any]) -> list[Any]:
    """The JSON of each value of a container."""
    encoder.down(values)
    encoder.count(len(values))
    made: list[Any] = []
    try:
        for value in values:
            made.append(encoder.encode(value))  # noqa: PERF401 - the index of the bad one is needed below
    except EncodeError as error:
        error.under(f"[{len(made)}]")
        raise
    encoder.depth -= 1
    return made


def decoded_items(decoder: Decoder, data: Any) -> list[Any]:
    """The values of what ``items`` wrote."""
    if type(data) is not list:
        raise ValueError("not a list")
    return [decoder.decode(item) for item in data]


def _collection(kind: Callable[[list[Any]], Any], tag: str) -> None:
    add(
        kind,  # type: ignore[arg-type]  # a type, called like a function
        lambda encoder, values: {tag: items(encoder, values)},
        tag=tag,
        decode=lambda decoder, data: kind(decoded_items(decoder, data)),
    )


#: Characters of a key that an error message shows.
_SHOWN = 30


def _dict(encoder: Encoder, value: dict[Any, Any]) -> Any:
    encoder.down(value)
    encoder.count(len(value))
    number = 0
    try:
        if all(type(key) is str and key[:1] != "$" for key in value):
            made: Any = {}
            for key, item in value.items():
                made[encoder.encode(key)] = encoder.encode(item)
                number += 1
        else:
            made = {"$dict": (pairs := [])}
            for key, item in value.items():
                pairs.append([encoder.encode(key), encoder.encode(item)])
                number += 1
    except EncodeError as error:
        # Keys are data: only one that looks like a field name is shown.
        shown = repr(key) if type(key) is str and key.isidentifier() and len(key) <= _SHOWN else f"item {number}"
        error.under(f"[{shown}]")
        raise
    encoder.depth -= 1
    return made


def _decode_dict(decoder: Decoder, data: Any) -> dict[Any, Any]:
    return {decoder.decode(key): decoder.decode(value) for key, value in data}


add(list, items)
add(dict, _dict, tag="$dict", decode=_decode_dict)
for _kind, _tag in ((tuple, "$tuple"), (set, "$set"), (frozenset, "$frozenset")):
    _collection(_kind, _tag)
