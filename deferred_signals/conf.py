"""The settings: one dict, ``DEFERRED_SIGNALS``, read late, every key typed and with a default."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

from django.conf import settings as django_settings

from .exceptions import ConfigurationError
from .setting_checks import CHECKS


class Problem(NamedTuple):
    """A mistake in the settings: the key, what is wrong, what to do."""

    key: str
    message: str
    hint: str


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
    #: Into how many messages at least the batches of one commit to one receiver are divided.
    parallelism: int = 4
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
    #: Whether deliveries are written to the outbox, where the connection does not say.
    durable: bool = False
    #: What becomes of a durable delivery that is sent outside a transaction: "warn", "raise" or "ignore".
    outside_transaction: str = "warn"
    #: How long a worker holds a row of the outbox without a sign of life.
    lease: float = 30.0
    #: After how long the relay rings again for a row that nobody has taken; twice as long each further time.
    ring_again: float = 30.0
    #: How long the rows of finished deliveries stay. None: until they are pruned by hand.
    retention: float | None = 86400.0
    #: Whether Celery's workers run the relay.
    relay: bool = True
    #: Whether PostgreSQL wakes the relay, which rings instead of the sender.
    notify: bool = False


def read(raw: Any) -> tuple[dict[str, Any], list[Problem]]:
    """Check the dict ``raw``; return the values that are right and the problems of the others."""
    if not isinstance(raw, Mapping):
        return {}, [Problem("", "DEFERRED_SIGNALS must be a dict.", "Write DEFERRED_SIGNALS = {...} in your settings.")]
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for key, value in raw.items():
        check = CHECKS.get(key.lower()) if isinstance(key, str) and key.isupper() else None
        if check is None:
            known = ", ".join(name.upper() for name in CHECKS)
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


_last: tuple[Any, Any, Settings] | None = None

#: What is behind Django's lazy settings, which is not documented: to ask that takes an eighth of the time where the
#: project has no DEFERRED_SIGNALS, and a send asks several times. Were it gone or not replaced, test_conf would fail.
_behind = functools.partial(object.__getattribute__, django_settings, "_wrapped")


def current() -> Settings:
    """The settings in force now.

    They are read again when ``settings.DEFERRED_SIGNALS`` is another object than last time, which is what
    ``override_settings`` makes of it. Raises ConfigurationError for a mistake.
    """
    global _last  # noqa: PLW0603 - a cache of one
    last, behind = _last, _behind()
    if last is not None and last[0] is behind and last[1] is getattr(behind, "DEFERRED_SIGNALS", None):
        return last[2]
    raw = getattr(django_settings, "DEFERRED_SIGNALS", None)
    values, problems = read(raw or {})
    if problems:
        raise ConfigurationError(" ".join(f"{p.message} {p.hint}" for p in problems))
    made = Settings(**values)
    _last = (_behind(), raw, made)
    return made
