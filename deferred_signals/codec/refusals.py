"""What is refused with a remedy of its own: the usual things of Python and Django that cannot travel."""

from __future__ import annotations

import itertools
import types
from typing import Any

from ..exceptions import EncodeError
from .base import Encoder, add, type_name

_ITERATOR = "it is an iterator, which can be read only once. Send list(value)."
_VIEW = "it is a view of a dict, which changes with it. Send list(value)."
_FILE = "an open file is of one process. Send its name, or what is in it."
_COROUTINE = "it is a coroutine of this process. Await it, and send its result."


_EMPTY: tuple[Any, ...] = ([], (), {}, set(), "", b"", range(0), {}.values(), {}.items())

_REMEDIES: dict[type | str, str] = {
    types.GeneratorType: _ITERATOR,
    types.AsyncGeneratorType: "it is an async iterator, which can be read only once. Send a list of its values.",
    types.CoroutineType: _COROUTINE,
    **{type(iter(value)): _ITERATOR for value in _EMPTY},
    **dict.fromkeys((map, filter, zip, enumerate, reversed), _ITERATOR),
    **dict.fromkeys((kind for kind in vars(itertools).values() if type(kind) is type), _ITERATOR),
    **{type(view): _VIEW for view in ({}.keys(), *_EMPTY[-2:])},
    types.MappingProxyType: "it is a read-only view of a dict. Send dict(value).",
    memoryview: "it is a view of somebody's memory. Send bytes(value).",
    types.MethodType: "it is a method bound to an object. Send the object, or what identifies it.",
    types.ModuleType: "it is a module. Send its name.",
    # The base of all that open() and io make.
    "_io._IOBase": _FILE,
    "django.core.files.base.File": _FILE,
    "django.db.models.manager.BaseManager": "it is a manager. Send manager.all(), or the instance that it is of.",
}


def _refusal(reason: str) -> Any:
    def refuse(encoder: Encoder, value: Any) -> Any:
        raise EncodeError(reason, type_name(value))

    return refuse


for _kind, _reason in _REMEDIES.items():
    add(_kind, _refusal(_reason))
