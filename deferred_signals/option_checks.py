"""What the value of each option must be."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.utils.inspect import func_accepts_kwargs

from .value_checks import flag, one_of, whole

_PATH = re.compile(r"[^\W\d]\w*(\.\w+)*")
_NAME = re.compile(r"[\w.:<>-]{1,200}")

#: The longest duration, in seconds: a thousand years. Of years with five digits no database, nor Python, can tell the
#: times.
LONGEST_DURATION = 1000 * 365 * 86400


def _text(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        raise ValueError("a non-empty string")
    return value


def check_name(value: Any) -> Any:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("a string of letters, digits, dots, dashes and colons, at most 200 characters")
    return value


def _seconds(value: Any) -> Any:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LONGEST_DURATION:
        raise ValueError("a number of seconds (0 or more, at most a thousand years) or a timedelta")
    return value


def _count(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("a whole number, 0 or more")
    return value


def _backoff(value: Any) -> Any:
    return value if isinstance(value, bool) else _seconds(value)


def _exceptions(value: Any) -> Any:
    value = (value,) if isinstance(value, type) else value
    if not isinstance(value, tuple | list) or not all(
        isinstance(kind, type) and issubclass(kind, BaseException) for kind in value
    ):
        raise ValueError("a tuple of exception classes")
    return tuple(value)


def _names(value: Any) -> Any:
    if not isinstance(value, tuple | list):
        raise ValueError("a tuple of names")
    return tuple(check_name(name) for name in value)


def _field_names(value: Any) -> Any:
    if not isinstance(value, tuple | list | set | frozenset) or not all(
        isinstance(name, str) and name for name in value
    ):
        raise ValueError("a tuple of the names of model fields")
    return frozenset(value)


def _mapping(value: Any) -> Any:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError("a dict with string keys")
    if taken := sorted(_PROTOCOL.intersection(value)):
        raise ValueError(f"headers of your own; Celery's protocol uses {', '.join(taken)}")
    return dict(value)


#: https://docs.celeryq.dev/en/stable/internals/protocol.html, version 2
_PROTOCOL = frozenset(
    [
        "lang",
        "task",
        "id",
        "root_id",
        "parent_id",
        "group",
        "group_index",
        "shadow",
        "eta",
        "expires",
        "retries",
        "timelimit",
        "argsrepr",
        "kwargsrepr",
        "origin",
        "ignore_result",
        "replaced_task_nesting",
        "stamped_headers",
        "stamps",
        "meth",
        "compression",
    ]
)


#: Deliveries of one batch.
_LARGEST_BATCH = 10_000


def _is_asked_at_send(value: Any) -> bool:
    return callable(value) and not iscoroutinefunction(value) and func_accepts_kwargs(value)


def _condition(value: Any) -> Any:
    if not _is_asked_at_send(value):
        raise ValueError("a function, not async, that takes any keyword arguments: when(sender=..., **kwargs) -> bool")
    return value


def _key(value: Any) -> Any:
    if isinstance(value, str) and not _PATH.fullmatch(value):
        raise ValueError('a dotted path that begins with an argument, as "instance.customer_id"')
    if not isinstance(value, str) and not _is_asked_at_send(value):
        raise ValueError(
            'a dotted path, as "instance.customer_id", or a function, not async, that takes any keyword arguments: '
            "key(sender=..., **kwargs)"
        )
    return value


#: By the option's name; each returns the value as it is kept, or raises ValueError with what it must be.
CHECKS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("queue", "routing_key", "exchange", "using"), _text),
    **dict.fromkeys(("countdown", "expires", "time_limit", "soft_time_limit", "retry_backoff_max"), _seconds),
    **dict.fromkeys(("priority", "max_retries"), _count),
    **dict.fromkeys(("ignore_result", "retry_jitter", "on_commit", "deliver_raw"), flag),
    **dict.fromkeys(("coalesce", "changes", "encrypt", "durable", "atomic"), flag),
    **dict.fromkeys(("autoretry_for", "dont_autoretry_for"), _exceptions),
    "headers": _mapping,
    "retry_backoff": _backoff,
    "name": check_name,
    "aliases": _names,
    **dict.fromkeys(("fields", "exclude"), _field_names),
    "oversize": one_of("raise", "log"),
    "when": _condition,
    "instance": one_of("reference", "snapshot"),
    "missing": one_of("discard", "retry", "dead"),
    **dict.fromkeys(("order_by", "unique"), _key),
    "on_dead": one_of("park", "pass"),
    "debounce": _seconds,
    "batch_size": whole(1, _LARGEST_BATCH),
}
