"""``suppress()``: sends inside it make no deliveries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_suppressed: ContextVar[bool] = ContextVar("deferred_signals_suppressed", default=False)

#: True where sends make no deliveries; a plain call, for the hot path.
suppressed = _suppressed.get


@contextmanager
def suppress() -> Iterator[None]:
    """Make no deliveries in this block, in this thread or coroutine; inline receivers run as always.

    For imports, tests and repairs. Also usable as a decorator.
    """
    token = _suppressed.set(True)
    try:
        yield
    finally:
        _suppressed.reset(token)


def quietly(function: Callable[[Any], Any], value: Any) -> Any:
    """Call a function of one value inside ``suppress()``, in a tenth of the time."""
    token = _suppressed.set(True)
    try:
        return function(value)
    finally:
        _suppressed.reset(token)
