"""What the value of each setting must be."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from .value_checks import flag, one_of, whole

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


#: By the name of the field; each returns the value as it is kept, or raises ValueError with what it must be.
CHECKS: dict[str, Callable[[Any], Any]] = {
    "backend": _backend,
    "signing_keys": _keys,
    "max_age": _optional_seconds,
    "encrypt": flag,
    "encryption_keys": _fernet_keys,
    "max_size": _count,
    "max_depth": whole(1, _DEEPEST),
    "publish_timeout": _seconds,
    "parallelism": _count,
    "release_window": _seconds,
    "database_window": _seconds,
    "crash_limit": _count,
    "chain_limit": _count,
    "self_limit": _count,
    "durable": flag,
    "outside_transaction": one_of("warn", "raise", "ignore"),
    "lease": _seconds,
    "ring_again": _seconds,
    "retention": _optional_seconds,
    "relay": flag,
    "notify": flag,
}
