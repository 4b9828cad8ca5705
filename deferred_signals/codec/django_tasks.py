"""The codec of Django's own background tasks, which come with their signals; ``TaskResult`` is a plain dataclass."""

from __future__ import annotations

import types
from typing import Any

from ..exceptions import EncodeError, UnknownName
from ..references import look_up, path_of
from .base import Decoder, Encoder, add, type_name
from .named import found, importable
from .records import encoded_fields, with_fields

#: Of Django 6, and of the package that brings them to Django 5.
_TASKS = ("django.tasks.base.Task", "django_tasks.base.Task")


def _task(encoder: Encoder, value: Any) -> Any:
    path = path_of(value.func)
    if path is None or _function(path) is not value.func:
        raise EncodeError(
            "its function cannot be found again by its dotted path, neither itself nor as a task. Tasks travel by the "
            "name of their function, which must stand at module level in a module that the worker imports too.",
            type_name(value),
        )
    return {"$task": [importable(type(value)), path, encoded_fields(encoder, value, without="func")]}


def _decode_task(decoder: Decoder, data: Any) -> Any:
    kind_path, path, values = data
    kind = found(kind_path, type)
    if not issubclass(kind, _classes()) or "func" in values:
        raise ValueError("not a task")
    function = _function(path) if type(path) is str else None
    if type(function) is not types.FunctionType:
        raise UnknownName("A task that the payload names is not in the imported modules of this process.")
    # No __post_init__ and so no validation: this process may lack the backend, and the task was valid at its sender.
    return with_fields(decoder, kind, values, {"func": function})


def _function(path: str) -> Any:
    """What stands under a path; of a task, which takes the place of the function that it decorates, the function."""
    thing = look_up(path)
    # By object's own method: nothing of the thing itself runs.
    return object.__getattribute__(thing, "func") if issubclass(type(thing), _classes()) else thing


def _classes() -> tuple[type, ...]:
    return tuple(kind for kind in map(look_up, _TASKS) if type(kind) is type)


for _kind in _TASKS:
    add(_kind, _task, tag="$task", decode=_decode_task)
