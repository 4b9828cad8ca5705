"""The settings: one dict, ``DEFERRED_SIGNALS``, read late, every key typed and with a default."""

from __future__ import annotations

import base64
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

#: Bytes of a Fernet key.
_FERNET_KEY = 32


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


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("True or False")
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


def _fernet_keys(value: Any) -> tuple[str | bytes, ...] | None:
    keys = _keys(value)
    for key in keys or ():
        # As cryptography judges it, which need not be installed where somebody only looks at the settings.
        try:
            length = len(base64.urlsafe_b64decode(key))
        except ValueError:
            length = 0
        if length != _FERNET_KEY:
            raise ValueError(
                "a non-empty list of Fernet keys (the first encrypts, all decrypt), each of them 32 bytes in URL-safe "
                "base64, as cryptography.fernet.Fernet.generate_key() makes them, or None"
            )
    return keys


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """The values in force. Field names are the dict's keys in lower case; durations are seconds."""

    #: Who runs deliveries: a short name or the dotted path of a ``Backend`` class.
    backend: str = "celery"
    #: Keys of the signature; the first signs, all verify. None: ``SECRET_KEY`` and its fallbacks.
    signing_keys: tuple[str | bytes, ...] | None = dataclasses.field(default=None, repr=False)
    #: A payload older than this is dead. None: any age.
    max_age: float | None = None
    #: Whether deliveries travel encrypted, where the connection does not say.
    encrypt: bool = False
    #: Fernet keys; the first encrypts, all decrypt.
    encryption_keys: tuple[str | bytes, ...] | None = dataclasses.field(default=None, repr=False)
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
    #: Workers that one delivery may lose in a row before it is dead.
    crash_limit: int = 10
    #: Deliveries that cause each other: longest chain.
    chain_limit: int = 8
    #: Runs in a row of one receiver that saves the instance that it listens to.
    self_limit: int = 1


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "backend": _backend,
    "signing_keys": _keys,
    "max_age": _optional_seconds,
    "encrypt": _flag,
    "encryption_keys": _fernet_keys,
    "max_size": _count,
    "max_depth": _depth,
    "publish_timeout": _seconds,
    "release_window": _seconds,
    "database_window": _seconds,
    "crash_limit": _count,
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
