"""What a release that changes the wire does, for the tests of rolling releases: it writes the next version, reads both.

Its change is one that an older worker cannot read: ``kwargs`` is called ``arguments``.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deferred_signals import envelope
from deferred_signals.arguments import Arguments
from deferred_signals.envelope import Envelope

BEFORE = envelope.VERSION
NEXT = BEFORE + 1
_texts, _read, _text = Envelope.texts, envelope._read, Arguments.text


def texts(self: Envelope) -> tuple[str, str]:
    shared, own = _texts(self)
    return shared, json.dumps(_renamed(json.loads(own), "kwargs", "arguments"))


def read(data: Any, max_age: float | None) -> Envelope:
    """The reader of the version before stays; a step makes of the new version what it reads."""
    if isinstance(data, dict) and data.get("v") == NEXT:
        data = _renamed(data, "arguments", "kwargs")
    return _read(data, max_age)


def _renamed(data: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new if key == old else key: value for key, value in data.items()}


def install() -> None:
    envelope.VERSION = NEXT
    envelope._read = read
    Envelope.texts = texts  # type: ignore[method-assign]
    # What is written as text at once has the words of this version.
    Arguments.text = lambda *args: None  # type: ignore[method-assign]


@contextmanager
def installed() -> Iterator[None]:
    """For a time only, in a process that is also the release before."""
    install()
    try:
        yield
    finally:
        envelope.VERSION = BEFORE
        envelope._read = _read
        Envelope.texts = _texts  # type: ignore[method-assign]
        Arguments.text = _text  # type: ignore[method-assign]
