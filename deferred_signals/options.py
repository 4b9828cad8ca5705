"""The options of one connection: a frozen value, checked when the receiver is connected."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cached_property
from typing import Any

from django.utils.inspect import func_accepts_kwargs

from .exceptions import ConnectError

#: Options that a later release brings; until then they are refused, never accepted and ignored.
NOT_YET = frozenset({"coalesce", "batch_size", "durable", "atomic"})

_NAME = re.compile(r"[\w.:<>-]{1,200}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What ``connect(..., deferred=True, **options)`` takes; the reference is docs/options.md."""

    queue: str | None = None
    routing_key: str | None = None
    exchange: str | None = None
    priority: int | None = None
    countdown: float | None = None
    expires: float | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    ignore_result: bool = True
    headers: Mapping[str, Any] | None = None
    autoretry_for: tuple[type[BaseException], ...] = (Exception,)
    dont_autoretry_for: tuple[type[BaseException], ...] = ()
    max_retries: int | None = 3
    retry_backoff: bool | float = True
    retry_backoff_max: float = 600
    retry_jitter: bool = True
    name: str | None = None
    aliases: tuple[str, ...] = ()
    when: Callable[..., Any] | None = None
    on_commit: bool = True
    using: str | None = None
    instance: str | None = None
    missing: str = "discard"
    deliver_raw: bool = False

    @cached_property
    def message(self) -> dict[str, Any]:
        """The options that go to the Celery message as they are; only those that were given."""
        found = {name: getattr(self, name) for name in _MESSAGE if getattr(self, name) is not None}
        return {**found, "ignore_result": self.ignore_result}

    @cached_property
    def route(self) -> tuple[str | None, ...]:
        """The options that say where a message goes."""
        return (self.queue, self.exchange, self.routing_key)

    @cached_property
    def on_worker(self) -> tuple[Any, ...]:
        """The options that a worker looks up by the receiver's name: one name can have only one set of them."""
        return tuple(getattr(self, name) for name in _WORKER)


_MESSAGE = (
    "queue", "routing_key", "exchange", "priority", "countdown", "expires", "time_limit", "soft_time_limit", "headers"
)  # fmt: skip
_WORKER = (
    "autoretry_for", "dont_autoretry_for", "max_retries", "retry_backoff", "retry_backoff_max", "retry_jitter",
    "missing", "aliases",
)  # fmt: skip
_FIELDS = {field.name: field for field in dataclasses.fields(Options)}


def _text(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        raise ValueError("a non-empty string")
    return value


def _name(value: Any) -> Any:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("a string of letters, digits, dots, dashes and colons, at most 200 characters")
    return value


def _flag(value: Any) -> Any:
    if not isinstance(value, bool):
        raise ValueError("True or False")
    return value


def _seconds(value: Any) -> Any:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError("a number of seconds (0 or more) or a timedelta")
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
    return tuple(_name(name) for name in value)


def _mapping(value: Any) -> Any:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError("a dict with string keys")
    return dict(value)


def _callable(value: Any) -> Any:
    if not callable(value) or not func_accepts_kwargs(value):
        raise ValueError("a callable that takes any keyword arguments: when(sender=..., **kwargs) -> bool")
    return value


def _one_of(*words: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value not in words:
            raise ValueError(" or ".join(f'"{word}"' for word in words))
        return value

    return check


_CHECKS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("queue", "routing_key", "exchange", "using"), _text),
    **dict.fromkeys(("countdown", "expires", "time_limit", "soft_time_limit", "retry_backoff_max"), _seconds),
    **dict.fromkeys(("priority", "max_retries"), _count),
    **dict.fromkeys(("ignore_result", "retry_jitter", "on_commit", "deliver_raw"), _flag),
    **dict.fromkeys(("autoretry_for", "dont_autoretry_for"), _exceptions),
    "headers": _mapping,
    "retry_backoff": _backoff,
    "name": _name,
    "aliases": _names,
    "when": _callable,
    "instance": _one_of("reference", "snapshot"),
    "missing": _one_of("discard", "retry", "dead"),
}


def is_option(name: str) -> bool:
    """Whether ``name`` only means something for a deferred receiver."""
    return name in _FIELDS or name in NOT_YET


def parse(given: Mapping[str, Any]) -> Options:
    """Check the options of one connection. Raises ConnectError, a TypeError, that names the option and the remedy."""
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name in NOT_YET:
            raise ConnectError(f"The option {name!r} is not available yet in this release. Leave it out for now.")
        if name not in _FIELDS:
            near = difflib.get_close_matches(name, _FIELDS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"The options are {', '.join(_FIELDS)}."
            raise ConnectError(f"A deferred receiver has no option {name!r}. {hint}")
        # None says "as if not given" wherever None is the default, and "for ever" for max_retries, as in Celery.
        if value is None and (_FIELDS[name].default is None or name == "max_retries"):
            values[name] = None
            continue
        try:
            values[name] = _CHECKS[name](value)
        except ValueError as error:
            raise ConnectError(f"The option {name!r} must be {error}, not {type(value).__name__}.") from None
    made = Options(**values)
    if made.time_limit and made.soft_time_limit and made.soft_time_limit > made.time_limit:
        raise ConnectError("The option 'soft_time_limit' must not be greater than 'time_limit'.")
    return made
