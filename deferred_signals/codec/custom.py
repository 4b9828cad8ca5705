"""The codecs of types of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ..exceptions import ConnectError
from ..references import path_of
from .base import Decoder, Encoder, add, load, tags
from .walk import told

T = TypeVar("T")

#: Whose a registered tag is: the type's path, which stays the same when its module is reloaded.
_owners: dict[str, str | type] = {}


def register_codec(
    kind: type[T],
    *,
    encode: Callable[[T], Any],
    decode: Callable[[Any], T],
    tag: str | None = None,
    subclasses: bool = False,
) -> None:
    """Let values of a type of yours travel.

    ``encode(value)`` returns something that can travel already (a string, a dict, a list of Decimals); ``decode`` of
    that returns the value again, on the worker. ``tag`` is the type's name on the wire, by default its dotted path:
    keep it when you rename the class. With ``subclasses=True`` it serves them too. Sender and worker must both have
    registered it, so call it where both come by: your AppConfig's ``ready()``, or the module of the type.
    Raises ConnectError for a tag that is taken or a type without a path.
    """
    load()
    path = path_of(kind)
    name = tag or path
    if not isinstance(kind, type) or name is None:
        raise ConnectError(f"{kind!r} is not a class with a dotted path: give register_codec a class and a tag=.")
    key, owner = f"${name}", path or kind
    if key in tags and _owners.get(key) != owner:
        raise ConnectError(f"The tag {name!r} is taken. Choose another tag= for {path or kind!r}.")
    _owners[key] = owner

    def encode_value(encoder: Encoder, value: Any) -> Any:
        encoder.down(value)
        made = {
            key: encoder.encode(told(value, encode, "its codec raised {}. Correct what register_codec() was given."))
        }
        encoder.depth -= 1
        return made

    def decode_value(decoder: Decoder, data: Any) -> Any:
        return decode(decoder.decode(data))

    add(kind, encode_value, tag=key, decode=decode_value, subclasses=subclasses)


def is_registered(tag: str) -> bool:
    """Whether a tag is one of a project's own, whose ``decode`` is code of others."""
    return tag in _owners
