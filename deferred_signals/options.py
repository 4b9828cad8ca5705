"""The options of one connection: a frozen value, checked when the receiver is connected."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from .exceptions import ConnectError
from .option_checks import CHECKS

#: Options that a later release brings; until then they are refused, never accepted and ignored.
NOT_YET = frozenset({"batch_size", "durable", "atomic"})


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
    fields: frozenset[str] | None = None
    exclude: frozenset[str] = frozenset()
    oversize: str = "raise"
    deliver_raw: bool = False
    coalesce: bool = False
    changes: bool = False
    encrypt: bool | None = None

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
    "queue", "routing_key", "exchange", "priority", "countdown", "time_limit", "soft_time_limit", "headers"
)  # fmt: skip
_WORKER = (
    "autoretry_for", "dont_autoretry_for", "max_retries", "retry_backoff", "retry_backoff_max", "retry_jitter",
    "missing", "aliases",
)  # fmt: skip
_FIELDS = {field.name: field for field in dataclasses.fields(Options)}


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
            values[name] = CHECKS[name](value)
        except ValueError as error:
            raise ConnectError(f"The option {name!r} must be {error}, not {type(value).__name__}.") from None
    made = Options(**values)
    if made.time_limit and made.soft_time_limit and made.soft_time_limit > made.time_limit:
        raise ConnectError("The option 'soft_time_limit' must not be greater than 'time_limit'.")
    if made.coalesce and not made.on_commit:
        raise ConnectError("The option 'coalesce' waits for the commit, so it cannot go with on_commit=False.")
    if made.fields is not None and made.exclude:
        raise ConnectError("Give either the option 'fields' or the option 'exclude', not both.")
    if (made.fields is not None or made.exclude) and made.instance == "reference" and not made.changes:
        raise ConnectError("The options 'fields' and 'exclude' are for snapshots; a reference carries no fields.")
    return made
