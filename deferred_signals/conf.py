"""The settings: one dict, ``DEFERRED_SIGNALS``, read late, every key typed and with a default."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from django.conf import settings as django_settings

from .exceptions import ConfigurationError


class Problem(NamedTuple):
    """A mistake in the settings: the key, what is wrong, what to do."""

    key: str
    message: str
    hint: str


#: Seconds of the longest timedelta.
_LONGEST = timedelta.max.total_seconds()

#: Python, its JSON and Celery around it need several frames of a stack of 1,000 for one level.
_DEEPEST = 100


def _seconds(value: Any) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LONGEST:
        raise ValueError("a positive number of seconds or a timedelta")
    return float(value)


def _optional_seconds(value: Any) -> float | None:
    return None if value is None else _seconds(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("a positive whole number")
    return value


def _depth(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _DEEPEST:
        raise ValueError(f"a whole number from 1 to {_DEEPEST}")
    return value


def _backend(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError('"celery", "immediate", "memory" or the dotted path of a Backend class')
    return value


def _keys(value: Any) -> tuple[str | bytes, ...] | None:
    if value is None:
        return None
    # A list or tuple: in a set, another key would sign in every process.
    if (
        not isinstance(value, list | tuple)
        or not value
        or not all(isinstance(key, str | bytes) and key for key in value)
    ):
        raise ValueError("a non-empty list of keys (the first signs, all verify), or None for Django's SECRET_KEY")
    return tuple(value)


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """The values in force. Field names are the dict's keys in lower case; durations are seconds."""

    #: Who runs deliveries: a short name or the dotted path of a ``Backend`` class.
    backend: str = "celery"
    #: Keys of the signature; the first signs, all verify. None: ``SECRET_KEY`` and its fallbacks.
    signing_keys: tuple[str | bytes, ...] | None = None
    #: A payload older than this is dead. None: any age.
    max_age: float | None = None
    #: Bytes of one payload before it is signed.
    max_size: int = 256 * 1024
    #: Levels of containers in one keyword argument.
    max_depth: int = 32
    #: Longest wait without progress, when deliveries are handed over to the broker.
    publish_timeout: float = 1.0
    #: How long an unknown receiver or a newer wire version is retried.
    release_window: float = 3600.0
    #: How long a database that is away is waited for.
    database_window: float = 3600.0
    #: Deliveries that cause each other: longest chain.
    chain_limit: int = 8
    #: Runs in a row of one receiver that saves the instance that it listens to.
    self_limit: int = 1


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "backend": _backend,
    "signing_keys": _keys,
    "max_age": _optional_seconds,
    "max_size": _count,
    "max_depth": _depth,
    "publish_timeout": _seconds,
    "release_window": _seconds,
    "database_window": _seconds,
    "chain_limit": _count,
    "self_limit": _count,
}


def read(raw: Any) -> tuple[dict[str, Any], list[Problem]]:
    """Check the dict ``raw``; return the values that are right and the problems of the others."""
    if not isinstance(raw, Mapping):
        return {}, [Problem("", "DEFERRED_SIGNALS must be a dict.", "Write DEFERRED_SIGNALS = {...} in your settings.")]
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for key, value in raw.items():
        check = _CHECKS.get(key.lower()) if isinstance(key, str) and key.isupper() else None
        if check is None:
            known = ", ".join(name.upper() for name in _CHECKS)
            problems.append(Problem(str(key), f"DEFERRED_SIGNALS has no key {key!r}.", f"The keys are {known}."))
            continue
        try:
            values[key.lower()] = check(value)
        except ValueError as error:
            problems.append(
                Problem(
                    key,
                    f"DEFERRED_SIGNALS[{key!r}] must be {error}.",
                    "The defaults are in deferred_signals.conf.Settings.",
                )
            )
    return values, problems


_last: tuple[Any, Settings] | None = None


def current() -> Settings:
    """The settings in force now.

    They are read again when ``settings.DEFERRED_SIGNALS`` is another object than last time, which is what
    ``override_settings`` makes of it. Raises ConfigurationError for a mistake.
    """
    global _last  # noqa: PLW0603 - a cache of one
    raw = getattr(django_settings, "DEFERRED_SIGNALS", None)
    last = _last
    if last is not None and last[0] is raw:
        return last[1]
    values, problems = read(raw or {})
    if problems:
        raise ConfigurationError(" ".join(f"{p.message} {p.hint}" for p in problems))
    made = Settings(**values)
    _last = (raw, made)
    return made
