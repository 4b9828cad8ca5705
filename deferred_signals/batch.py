"""The batch: one message with several deliveries of one commit to one receiver.

It is signed as a whole and enters through the same Celery task as a single delivery; its members are envelopes::

    {"batch":1,"of":[{"v":1,"id":"5b0e…",…},{"v":1,"id":"77a1…",…}]}:q7Zm…

Each member is a delivery for itself: it has its own id, run and outcome, and is retried alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from . import conf
from .exceptions import NewerWire, OpenError
from .signature import verified
from .strict_json import parse

#: The version of batches that this release writes and reads.
VERSION = 1

_START = '{"batch":'
#: Members that a payload may have: more than any sender puts into one.
MOST = 100_000
#: Characters that a payload may have beyond twice MAX_SIZE: encryption takes a third of it, and each member a little
#: that does not count at its sender, as one that was retried notes this and that.
_SLACK = 1024 * 1024


def text_of(texts: Iterable[str]) -> str:
    """The text of a batch, not yet signed, of the texts of its members."""
    return f'{_START}{VERSION},"of":[{",".join(texts)}]}}'


def is_batch(payload: Any) -> bool:
    """Whether a payload claims to be a batch."""
    return isinstance(payload, str) and payload.startswith(_START)


def read(payload: str) -> list[Any]:
    """Verify a batch and return the JSON of its members, which are still to be read.

    Raises OpenError when it is not authentic or unreadable, NewerWire when it is of a later version.
    """
    if len(payload) > 2 * conf.current().max_size + _SLACK:
        raise OpenError("The batch is much larger than MAX_SIZE. Is that larger at the sender than here?")
    text = verified(payload)
    try:
        data = parse(text)
        version = data["batch"]
        if type(version) is not int:
            raise ValueError
        if version > VERSION:
            raise NewerWire(f"The batch is of version {version}; this release reads up to {VERSION}.", data)
        members = data["of"]
        if version != VERSION or type(members) is not list or not 0 < len(members) <= MOST:
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise OpenError("The batch is authentic but not as this library writes it.") from None
    return members
