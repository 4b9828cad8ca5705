"""The codecs of the dicts that are more than a dict: of ``collections``, and Django's ``request.GET``."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from typing import Any

from django.http import QueryDict
from django.utils.datastructures import MultiValueDict

from ..exceptions import EncodeError
from .base import Decoder, Encoder, add, type_name
from .containers import decoded_pairs, pairs
from .named import found, importable
from .records import TYPING_NOTE


def _ordered(encoder: Encoder, value: OrderedDict[Any, Any]) -> Any:
    _without_attributes(value)
    return {"$ordereddict": pairs(encoder, value, value.items())}


def _counter(encoder: Encoder, value: Counter[Any]) -> Any:
    _without_attributes(value)
    return {"$counter": pairs(encoder, value, value.items())}


def _without_attributes(value: Any, *known: str) -> None:
    if vars(value).keys() - {TYPING_NOTE, *known}:
        raise EncodeError(
            "it has attributes of its own beside its items, which would be lost. Send them as arguments of their own, "
            "or use register_codec().",
            type_name(value),
        )


def _default(encoder: Encoder, value: defaultdict[Any, Any]) -> Any:
    factory: Any = value.default_factory
    if not (factory is None or isinstance(factory, type)):
        # A function that the wire names would run as soon as the receiver asks for a key that is not there.
        raise EncodeError(
            "its default_factory is not a class. Send dict(value), or give it one (list, int, a class of yours).",
            type_name(value),
        )
    path = None if factory is None else importable(factory)
    return {"$defaultdict": [path, pairs(encoder, value, value.items())]}


def _decode_default(decoder: Decoder, data: Any) -> defaultdict[Any, Any]:
    path, values = data
    return defaultdict(None if path is None else found(path, type), decoded_pairs(decoder, values))


def _many(encoder: Encoder, value: MultiValueDict[Any, Any]) -> Any:
    _without_attributes(value)
    # dict's own items: theirs are the last value of each key.
    return {"$multivaluedict": pairs(encoder, value, dict.items(value))}


def _decode_many(decoder: Decoder, data: Any) -> MultiValueDict[Any, Any]:
    return MultiValueDict(decoded_pairs(decoder, data))


def _query(encoder: Encoder, value: QueryDict) -> Any:
    _without_attributes(value, "_mutable", "_encoding")
    mutable = value._mutable  # noqa: SLF001 - nothing public tells
    return {"$querydict": [pairs(encoder, value, dict.items(value)), mutable, encoder.encode(value.encoding)]}


def _decode_query(decoder: Decoder, data: Any) -> Any:
    values, mutable, encoding = data
    if type(mutable) is not bool or type(encoding) is not str:
        raise ValueError("not the state of a QueryDict")
    made: Any = QueryDict("", mutable=mutable, encoding=encoding)  # type: ignore[call-overload]  # of two Literals
    # dict's own way: made immutable, it takes no other, and the values are what they are to be already.
    dict.update(made, decoded_pairs(decoder, values))
    return made


add(OrderedDict, _ordered, tag="$ordereddict", decode=lambda decoder, data: OrderedDict(decoded_pairs(decoder, data)))
add(Counter, _counter, tag="$counter", decode=lambda decoder, data: Counter(decoded_pairs(decoder, data)))
add(defaultdict, _default, tag="$defaultdict", decode=_decode_default)
add(MultiValueDict, _many, tag="$multivaluedict", decode=_decode_many)
add(QueryDict, _query, tag="$querydict", decode=_decode_query)
