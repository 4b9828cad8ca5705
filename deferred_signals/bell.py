"""The doorbell: the message that says which rows of an outbox may be run.

It is signed like a delivery and enters through the same Celery task, but carries no data, only an alias and ids::

    {"bell":"default","v":1,"ids":["5b0e…","77a1…"]}:q7Zm…

Whoever could repeat one would repeat a question: the row itself knows whether it may be run. One that is lost is rung
again by the relay.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any, NamedTuple

from .exceptions import NewerWire, OpenError
from .signature import signed, verified
from .strict_json import dump, parse

#: The version of doorbells that this release writes and reads.
VERSION = 1
#: Rows that one doorbell can ring for. Senders of this release ring for fewer; a later one may ring for more of them.
MOST = 1000

_START = '{"bell":'


class Bell(NamedTuple):
    """The rows to run: the ids of deliveries, in order, and the alias of the database whose outbox has them."""

    alias: str
    ids: tuple[uuid.UUID, ...]

    def to_text(self) -> str:
        """The compact JSON text, not yet signed."""
        return text_of(self.alias, self.ids)

    @property
    def payload(self) -> str:
        """The signed string for the wire."""
        return signed(self.to_text())


def text_of(alias: str, ids: Iterable[uuid.UUID | str]) -> str:
    """The text of a doorbell, not yet signed; the ids may be as text already."""
    return dump({"bell": alias, "v": VERSION, "ids": [str(one) for one in ids]})


def is_bell(payload: Any) -> bool:
    """Whether a payload claims to be a doorbell."""
    return isinstance(payload, str) and payload.startswith(_START)


def read(payload: str) -> Bell:
    """Verify and read a doorbell. Raises OpenError when it is not authentic or unreadable, NewerWire."""
    text = verified(payload)
    try:
        data = parse(text)
        version, alias, ids = data["v"], data["bell"], data["ids"]
        if type(version) is not int:
            raise ValueError
        if version > VERSION:
            raise NewerWire(f"The doorbell is of version {version}; this release reads up to {VERSION}.")
        if version != VERSION or type(alias) is not str or type(ids) is not list or len(ids) > MOST:
            raise ValueError
        return Bell(alias, tuple(uuid.UUID(one) for one in ids))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        raise OpenError("The doorbell is authentic but not as this library writes it.") from None
