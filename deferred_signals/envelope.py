"""The envelope: what travels for one delivery, and its bytes on the wire.

The payload is one flat string, the single argument of the Celery task::

    {"v":1,"to":"shop.receivers.send_welcome_email","signal":"django.db.models.signals.post_save",
     "sender":{"$model":"shop.user"},"context":{"language":"en","timezone":"UTC"},
     "id":"5b0e…","at":1790000000.123,"kwargs":{"instance":{"$ref":["shop.user",42,"default"]},"created":true}}:q7Zm…

that is: a compact JSON object (here broken into lines), a colon, and Django's ``Signer`` signature of everything
before that colon (HMAC-SHA256, salt ``deferred_signals.delivery``, URL-safe base64). ``v`` is the wire version,
``at`` the time of the send in Unix seconds, ``to`` the receiver's registered name. What most sends over a connection
have in common stands first, so that it can be written once. Present only when they are not
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
from dataclasses import dataclass, field, replace
from typing import Any

from . import conf
from .envelope_fields import CONTENTS, HEAD, IN_CLEAR, checked
from .exceptions import NewerWire, OpenError
from .signature import signed, verified
from .strict_json import dump, parse

#: The wire version that this release writes. It reads this and the previous one.
VERSION = 1


# Not frozen, though nothing is ever set: that takes three times as long to make, and each send makes one.
@dataclass(slots=True)
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
        return joined(*self.texts())

    def texts(self) -> tuple[str, str]:
        """The same in two parts: what most sends over a connection have in common, and what is each one's own."""
        shared: dict[str, Any] = {"v": VERSION, "to": self.receiver, "signal": self.signal}
        data: dict[str, Any] = {"id": self.id, "at": self.created}
        if self.encrypted is None:
            shared["sender"], shared["context"] = self.sender, self.context
            data["kwargs"] = self.kwargs
        if self.attempt != 1:
            data["attempt"] = self.attempt
        if self.crashes or self.depth or self.repeats:
            counts = {"crashes": self.crashes, "depth": self.depth, "repeats": self.repeats}
            data |= {key: count for key, count in counts.items() if count}
        if self.waiting_since is not None:
            data["waiting"] = self.waiting_since
        if self.expires is not None:
            data["expires"] = self.expires
        if self.encrypted is not None:
            data["encrypted"] = self.encrypted
        return dump(shared), dump(data)

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


def joined(shared: str, own: str) -> str:
    """The text of one JSON object that has the members of both."""
    return f"{shared[:-1]},{own[1:]}"


#: The last millisecond in which a send was made; that in Unix seconds, and as JSON.
_moment = 0, 0.0, "0.0"


def moment() -> tuple[float, str]:
    """The time of a send that is made now, and that as JSON, which takes longer to write than many sends are apart."""
    global _moment  # noqa: PLW0603 - a cache of one
    # To round to digits takes several times as long.
    millisecond = round(time.time() * 1000)
    last, at, text = _moment
    if millisecond != last:
        at = millisecond / 1000
        text = repr(at)
        _moment = millisecond, at, text
    return at, text


def seal(text: str) -> str:
    """Sign an envelope's text; the result is the payload."""
    return signed(text)


def unseal(payload: Any, *, of_any_age: bool = False) -> Envelope:
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
    return _read(data, None if of_any_age else conf.current().max_age)


def read(data: Any) -> Envelope:
    """Read an envelope that stands in a payload with others; raises as ``unseal``."""
    return _read(data, conf.current().max_age)


def _read(data: Any, max_age: float | None) -> Envelope:
    version = data.get("v") if isinstance(data, dict) else None
    if type(version) is not int or not 1 <= version < 2**31:
        raise OpenError("The payload is authentic but has no wire version.")
    if version > VERSION:
        raise NewerWire(f"The payload is of wire version {version}; this release reads up to {VERSION}.", data)
    if "encrypted" in data:
        # What stands beside it was not encrypted; to choose one of the two would be to guess.
        if both := [key for key in CONTENTS if key in data]:
            raise OpenError(f"The payload is authentic but has {both[0]!r} beside 'encrypted'.")
        envelope = Envelope(**{"sender": None, "kwargs": {}, "context": {}, **checked(data, HEAD)})
    else:
        envelope = Envelope(**checked(data, IN_CLEAR))
    if max_age is not None and time.time() - envelope.created > max_age:
        raise OpenError("The payload is authentic but older than MAX_AGE.")
    return envelope
