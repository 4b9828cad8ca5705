"""The arguments of a delivery, made again on the worker."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .codec import Decoder, NotCarried
from .exceptions import InstanceMissing, UnknownName
from .references import Reference
from .registry import Registration
from .suppression import quietly

#: What reads the row of a reference.
Fetch = Callable[[Reference], Any]


def argument(name: str, value: Any, decode: Callable[[Any], Any], registration: Registration) -> Any:
    """One argument. Raises InstanceMissing for a row that is gone and that the receiver asks for."""
    if type(value) is not dict and type(value) is not list:
        return value
    try:
        return decode(value)
    except InstanceMissing as error:
        # As at the send: what the receiver does not ask for does not keep it from running. That it is run about its
        # instance, it need not say.
        if name == "instance" or name in registration.takes.named:
            raise
        return NotCarried(f"kwargs[{name!r}]", "a model instance", str(error))


def sender_of(value: Any, decode: Callable[[Any], Any]) -> Any:
    """The sender, or a marker for a class or function that this process has not imported."""
    try:
        return decode(value)
    except UnknownName as error:
        # Of a class or function. A worker has no reason to have imported each view that sends a signal.
        if not isinstance(value, dict) or value.keys().isdisjoint(("$class", "$function")):
            raise
        return NotCarried("sender", "a class or function", str(error))


def decoding(fetch: Fetch | None = None) -> Callable[[Any], Any]:
    """What makes values again for one delivery; ``fetch`` reads rows in the place of ``rows.fetch``."""
    # Instances are made, and the signals of that are no news.
    return partial(quietly, Decoder(fetch).decode)
