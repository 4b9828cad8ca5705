"""The envelope: what travels for one delivery, and its bytes on the wire.

The payload is one flat string, the single argument of the Celery task::

    {"v":1,"id":"5b0e…","at":1790000000.123,"to":"shop.receivers.send_welcome_email",
     "signal":"django.db.models.signals.post_save","sender":{"$model":"shop.user"},
     "kwargs":{"instance":{"$ref":["shop.user",42,"default"]},"created":true},
     "context":{"language":"en","timezone":"UTC"}}:q7Zm…

that is: a compact JSON object (here broken into lines), a colon, and Django's ``Signer`` signature of everything
before that colon (HMAC-SHA256, salt ``deferred_signals.delivery``, URL-safe base64). ``v`` is the wire version,
``at`` the time of the send in Unix seconds, ``to`` the receiver's registered name. Present only when they are not
the default: ``attempt`` (1-based run), ``crashes`` (workers lost), ``depth`` (deliveries that caused this one),
``repeats`` (those of them, just before this one, to the same receiver about the same instance),
``waiting`` (Unix seconds since when the infrastructure keeps it from running), ``expires`` (Unix seconds from which on
it must not be run). Everything, also the counts, is
inside the signature: who can write to the broker can change nothing. Values are written as ``codec`` describes.
An encrypted one has ``encrypted`` in place of ``sender``, ``kwargs`` and ``context``, see ``encryption``.
In every future version the payload stays a signed JSON object in which ``v`` and ``waiting`` mean what they mean here,
so that an older worker can keep a newer payload waiting without understanding it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from . import conf
from .exceptions import NewerWire, OpenError
from .signature import signed, verified
from .strict_json import dump, parse

#: The wire version that this release writes. It reads this and the previous one.
VERSION = 1

#: The last moment of datetime, in Unix seconds.
LATEST = 253402300799


@dataclass(frozen=True, slots=True)
class Envelope:
    """One delivery as it travels; ``sender``, ``kwargs`` and ``context`` are already encoded.

    Of an encrypted one these three are empty and ``encrypted`` is their token: ``encryption.opened`` tells them.
    """

    id: str
    created: float
    receiver: str
    signal: str | None
    # Not in the repr: these are values, and reprs end up in logs and error trackers.
    sender: Any = field(repr=False)
    kwargs: dict[str, Any] = field(repr=False)
    context: dict[str, Any] = field(repr=False)
    attempt: int = 1
    crashes: int = 0
    depth: int = 0
    repeats: int = 0
    waiting_since: float | None = None
    expires: float | None = None
    encrypted: str | None = field(default=None, repr=False)

    def to_text(self) -> str:
        """The compact JSON text, not yet signed."""
        data: dict[str, Any] = {
            "v": VERSION,
            "id": self.id,
            "at": self.created,
            "to": self.receiver,
            "signal": self.signal,
        }
        if self.encrypted is None:
            data |= {"sender": self.sender, "kwargs": self.kwargs, "context": self.context}
        if self.attempt != 1:
            data["attempt"] = self.attempt
        for key in ("crashes", "depth", "repeats"):
            if count := getattr(self, key):
                data[key] = count
        if self.waiting_since is not None:
            data["waiting"] = self.waiting_since
        if self.expires is not None:
            data["expires"] = self.expires
        if self.encrypted is not None:
            data["encrypted"] = self.encrypted
        return dump(data)

    def next_attempt(self) -> Envelope:
        """The envelope of the run after one in which the receiver raised; it has lost no worker, so none counts."""
        return replace(self, attempt=self.attempt + 1, crashes=0, waiting_since=None)

    def after_crash(self) -> Envelope:
        """The same attempt again, after a worker that had it did not finish it; what kept it from running is over."""
        return replace(self, crashes=self.crashes + 1, waiting_since=None)

    def waiting(self, since: float) -> Envelope:
        """The same attempt again, kept from running by the infrastructure since that time (Unix seconds)."""
        return replace(self, waiting_since=since)


#: Characters that a payload may have beyond twice MAX_SIZE: encryption takes a third, and retries note this and that.
_SLACK = 64 * 1024


def seal(text: str) -> str:
    """Sign an envelope's text; the result is the payload."""
    return signed(text)


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_line(value: Any, longest: int) -> bool:
    # Printable: it stands in lines of the log, and shall not begin one.
    return type(value) is str and len(value) <= longest and value.isprintable()


def _is_object(value: Any) -> bool:
    return type(value) is dict


def _is_time(value: Any) -> bool:
    return type(value) in {int, float} and 0 <= value <= LATEST


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


#: The keys, the fields they become, and what their values must be.
_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "id": ("id", lambda value: _is_line(value, 255)),
    "at": ("created", _is_time),
    "to": ("receiver", lambda value: _is_line(value, 1000)),
    "signal": ("signal", lambda value: value is None or _is_text(value)),
    "sender": ("sender", lambda value: True),
    "kwargs": ("kwargs", _is_object),
    "context": ("context", _is_object),
    "attempt": ("attempt", lambda value: _is_count(value) and value > 0),
    "crashes": ("crashes", _is_count),
    "depth": ("depth", _is_count),
    "repeats": ("repeats", _is_count),
    "waiting": ("waiting_since", _is_time),
    "expires": ("expires", _is_time),
    "encrypted": ("encrypted", _is_text),
}
_HEAD = ("id", "at", "to", "signal")
CONTENTS = ("sender", "kwargs", "context")


def unseal(payload: Any) -> Envelope:
    """Verify and read a payload.

    Raises OpenError when it is not authentic, unreadable or too old, NewerWire when it is authentic but of a
    later version. Nothing of the payload is looked at before its signature is found right.
    """
    if not isinstance(payload, str):
        raise OpenError("The payload is not a string.")
    if len(payload) > 2 * conf.current().max_size + _SLACK:
        raise OpenError("The payload is much larger than MAX_SIZE. Is that larger at the sender than here?")
    text = verified(payload)
    try:
        data = parse(text)
    except (ValueError, RecursionError):
        raise OpenError("The payload is authentic but not the JSON that this library writes.") from None
    return _read(data)


def _read(data: Any) -> Envelope:
    version = data.get("v") if isinstance(data, dict) else None
    if type(version) is not int or not 1 <= version < 2**31:
        raise OpenError("The payload is authentic but has no wire version.")
    if version > VERSION:
        raise NewerWire(f"The payload is of wire version {version}; this release reads up to {VERSION}.", data)
    if "encrypted" in data:
        # What stands beside it was not encrypted; to choose one of the two would be to guess.
        if both := [key for key in CONTENTS if key in data]:
            raise OpenError(f"The payload is authentic but has {both[0]!r} beside 'encrypted'.")
        envelope = Envelope(**{"sender": None, "kwargs": {}, "context": {}, **checked(data, _HEAD)})
    else:
        envelope = Envelope(**checked(data, (*_HEAD, *CONTENTS)))
    max_age = conf.current().max_age
    if max_age is not None and time.time() - envelope.created > max_age:
        raise OpenError("The payload is authentic but older than MAX_AGE.")
    return envelope


def checked(data: dict[str, Any], required: tuple[str, ...]) -> dict[str, Any]:
    """The fields of an envelope that a JSON object has. Raises OpenError for a wrong value or a key that lacks."""
    found: dict[str, Any] = {}
    for key, (name, is_right) in _FIELDS.items():
        if key in data:
            if not is_right(data[key]):
                raise OpenError(f"The payload is authentic but its {key!r} is not what it must be.")
            found[name] = data[key]
        elif key in required:
            raise OpenError(f"The payload is authentic but has no {key!r}.")
    return found
