"""The codecs of lists, dicts, tuples, sets and deques."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
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
    def decode(decoder: Decoder, data: Any) -> Any:
        values = decoded_items(decoder, data)
        made = kind(values)
        if len(made) != len(values):
            raise ValueError("two of its members are one here")
        return made

    add(
        kind,  # type: ignore[arg-type]  # a type, called like a function
        lambda encoder, values: {tag: items(encoder, values)},
        tag=tag,
        decode=decode,
    )


#: Characters of a key that an error message shows.
_SHOWN = 30


def _step(key: Any, number: int) -> str:
    """Where in a dict a value stands. Keys are data: only one that looks like a field name is shown."""
    shown = repr(key) if type(key) is str and key.isidentifier() and len(key) <= _SHOWN else f"item {number}"
    return f"[{shown}]"


def pairs(encoder: Encoder, value: dict[Any, Any], entries: Iterable[tuple[Any, Any]]) -> list[Any]:
    """The JSON of the keys and values of a dict; ``entries`` are they, for not every dict's ``items()`` says them."""
    encoder.down(value)
    encoder.count(len(value))
    made: list[Any] = []
    key: Any = None
    try:
        for key, item in entries:
            made.append([encoder.encode(key), encoder.encode(item)])
    except EncodeError as error:
        error.under(_step(key, len(made)))
        raise
    encoder.depth -= 1
    return made


def decoded_pairs(decoder: Decoder, data: Any) -> dict[Any, Any]:
    """The keys and values of what ``pairs`` wrote."""
    if type(data) is not list:
        raise ValueError("not a list")
    made = {decoder.decode(key): decoder.decode(value) for key, value in data}
    if len(made) != len(data):
        raise ValueError("two of its keys are one here")
    return made


def _dict(encoder: Encoder, value: dict[Any, Any]) -> Any:
    if not all(type(key) is str and key[:1] != "$" for key in value):
        return {"$dict": pairs(encoder, value, value.items())}
    encoder.down(value)
    encoder.count(len(value))
    made: dict[str, Any] = {}
    key: Any = None
    try:
        for key, item in value.items():
            made[encoder.encode(key)] = encoder.encode(item)
    except EncodeError as error:
        error.under(_step(key, len(made)))
        raise
    encoder.depth -= 1
    return made


def _deque(encoder: Encoder, value: deque[Any]) -> Any:
    return {"$deque": [items(encoder, value), value.maxlen]}


def _decode_deque(decoder: Decoder, data: Any) -> deque[Any]:
    listed, longest = data
    values = decoded_items(decoder, listed)
    if longest is not None and (type(longest) is not int or longest < len(values)):
        raise ValueError("not a length that it can have")
    return deque(values, longest)


add(list, items)
add(dict, _dict, tag="$dict", decode=decoded_pairs)
add(deque, _deque, tag="$deque", decode=_decode_deque)
for _kind, _tag in ((tuple, "$tuple"), (set, "$set"), (frozenset, "$frozenset")):
    _collection(_kind, _tag)
