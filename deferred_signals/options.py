"""The options of one connection: a frozen value, checked when the receiver is connected."""

from __future__ import annotations

import dataclasses
import difflib
import reprlib
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from .exceptions import ConnectError
from .option_checks import CHECKS


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
    batch_size: int = 1
    durable: bool | None = None
    atomic: bool = False
    order_by: Callable[..., Any] | str | None = None
    on_dead: str = "park"
    unique: Callable[..., Any] | str | None = None
    debounce: float | None = None

    @cached_property
    def message(self) -> dict[str, Any]:
        """The options that go to the Celery message as they are; only those that were given."""
        found = {name: getattr(self, name) for name in _MESSAGE if getattr(self, name) is not None}
        return {**found, "ignore_result": self.ignore_result}

    @cached_property
    def doorbell(self) -> Options:
        """The options of the message that rings for durable deliveries: it carries nothing, and waits for nothing."""
        return dataclasses.replace(self, countdown=None, expires=None, encrypt=False, batch_size=1)

    @cached_property
    def batch(self) -> Options:
        """The options of a message that carries several: its members are encrypted, and have time limits, each."""
        limit = self.time_limit
        return dataclasses.replace(
            self,
            encrypt=False,
            # For a receiver that does not even hear of its own limit.
            time_limit=None if limit is None else (limit + 1) * self.batch_size,
            soft_time_limit=None,
        )

    @cached_property
    def has_keys(self) -> bool:
        """Whether deliveries wait for others of a key, or are one with them."""
        return self.order_by is not None or self.unique is not None

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
    "missing", "aliases", "atomic", "on_dead",
)  # fmt: skip
#: Options that only mean something for durable deliveries, and so make them durable.
_DURABLE = ("atomic", "order_by", "on_dead", "unique", "debounce")
_FIELDS = {field.name: field for field in dataclasses.fields(Options)}


def is_option(name: str) -> bool:
    """Whether ``name`` only means something for a deferred receiver."""
    return name in _FIELDS


def parse(given: Mapping[str, Any]) -> Options:
    """Check the options of one connection. Raises ConnectError, a TypeError, that names the option and the remedy."""
    values: dict[str, Any] = {}
    for name, value in given.items():
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
            shown = reprlib.repr(value) if isinstance(value, str | int | float) else type(value).__name__
            raise ConnectError(f"The option {name!r} must be {error}, not {shown}.") from None
    made = Options(**values)
    if needing := [name for name in _DURABLE if getattr(made, name) != _FIELDS[name].default]:
        if made.durable is False:
            raise ConnectError(f"The option {needing[0]!r} needs durable=True: it is about rows of the outbox.")
        if not made.on_commit:
            raise ConnectError(f"The option {needing[0]!r} is about the commit, so it cannot go with on_commit=False.")
        made = dataclasses.replace(made, durable=True)
    for is_wrong, text in _contradictions(made, values):
        if is_wrong:
            raise ConnectError(text)
    return made


def _contradictions(made: Options, given: Mapping[str, Any]) -> list[tuple[Any, str]]:
    """What options cannot be together: whether they are, and what to say of it."""
    return [
        (
            made.time_limit and made.soft_time_limit and made.soft_time_limit > made.time_limit,
            "The option 'soft_time_limit' must not be greater than 'time_limit'.",
        ),
        (
            made.coalesce and not made.on_commit,
            "The option 'coalesce' waits for the commit, so it cannot go with on_commit=False.",
        ),
        (
            made.batch_size > 1 and not made.on_commit,
            "The option 'batch_size' is about the deliveries of a commit, so it cannot go with on_commit=False.",
        ),
        (
            made.durable and not made.on_commit,
            "The option 'durable' is about the commit, so it cannot go with on_commit=False.",
        ),
        (
            "on_dead" in given and made.order_by is None,
            "The option 'on_dead' needs order_by=, which says of which deliveries the later ones wait.",
        ),
        (
            made.debounce is not None and made.unique is None,
            "The option 'debounce' needs unique=, which says of which deliveries the last one counts.",
        ),
        (
            made.debounce is not None and made.countdown is not None,
            "Give either the option 'debounce' or the option 'countdown', not both.",
        ),
        (
            made.fields is not None and made.exclude,
            "Give either the option 'fields' or the option 'exclude', not both.",
        ),
        (
            (made.fields is not None or made.exclude) and made.instance == "reference" and not made.changes,
            "The options 'fields' and 'exclude' are for snapshots; a reference carries no fields.",
        ),
    ]
