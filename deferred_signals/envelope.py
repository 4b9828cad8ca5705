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
``waiting`` (Unix seconds since when the infrastructure keeps it from running). Everything, also the counts, is
inside the signature: who can write to the broker can change nothing. Values are written as ``codec`` describes.
In every future version the payload stays a signed JSON object in which ``v`` and ``waiting`` mean what they mean here,
so that an older worker can keep a newer payload waiting without understanding it.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings as django_settings
from django.core.signing import BadSignature, Signer

from . import conf
from .exceptions import NewerWire, OpenError

#: The wire version that this release writes. It reads this and the previous one.
VERSION = 1

SALT = "deferred_signals.delivery"

# allow_nan=False: a bare NaN is not JSON. check_circular is the codec's depth limit.
dump = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Envelope:
    """One delivery as it travels; ``sender`` and ``kwargs`` are already encoded. Field order is wire order."""

    id: str
    created: float
    receiver: str
    signal: str | None
    sender: Any
    kwargs: dict[str, Any]
    context: dict[str, Any]
    attempt: int = 1
    crashes: int = 0
    depth: int = 0
    repeats: int = 0
    waiting_since: float | None = None

    def to_text(self) -> str:
        """The compact JSON text, not yet signed."""
        data: dict[str, Any] = {
            "v": VERSION,
            "id": self.id,
            "at": self.created,
            "to": self.receiver,
            "signal": self.signal,
            "sender": self.sender,
            "kwargs": self.kwargs,
            "context": self.context,
        }
        if self.attempt != 1:
            data["attempt"] = self.attempt
        if self.crashes:
            data["crashes"] = self.crashes
        if self.depth:
            data["depth"] = self.depth
        if self.repeats:
            data["repeats"] = self.repeats
        if self.waiting_since is not None:
            data["waiting"] = self.waiting_since
        return dump(data)

    def next_attempt(self) -> Envelope:
        """The envelope of the run after one in which the receiver raised."""
        return replace(self, attempt=self.attempt + 1, waiting_since=None)

    def waiting(self, since: float) -> Envelope:
        """The same attempt again, kept from running by the infrastructure since that time (Unix seconds)."""
        return replace(self, waiting_since=since)


def _signer() -> Signer:
    keys = conf.current().signing_keys
    if keys is None:
        keys = (django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS)
    return _signer_of(keys)


@functools.lru_cache(maxsize=1)
def _signer_of(keys: tuple[str | bytes, ...]) -> Signer:
    return Signer(key=keys[0], fallback_keys=list(keys[1:]), salt=SALT)


def seal(text: str) -> str:
    """Sign an envelope's text; the result is the payload."""
    return _signer().sign(text)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice")
    return made


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_object(value: Any) -> bool:
    return type(value) is dict


def _is_time(value: Any) -> bool:
    # Up to the year 9999, the last one of datetime.
    return type(value) in {int, float} and 0 <= value < 253402300800  # noqa: PLR2004


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


#: The keys, the fields they become, and what their values must be.
_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "id": ("id", _is_text),
    "at": ("created", _is_time),
    "to": ("receiver", _is_text),
    "signal": ("signal", lambda value: value is None or _is_text(value)),
    "sender": ("sender", lambda value: True),
    "kwargs": ("kwargs", _is_object),
    "context": ("context", _is_object),
    "attempt": ("attempt", lambda value: _is_count(value) and value > 0),
    "crashes": ("crashes", _is_count),
    "depth": ("depth", _is_count),
    "repeats": ("repeats", _is_count),
    "waiting": ("waiting_since", _is_time),
}
_REQUIRED = frozenset(list(_FIELDS)[:7])


def unseal(payload: Any) -> Envelope:
    """Verify and read a payload.

    Raises OpenError when it is not authentic, unreadable or too old, NewerWire when it is authentic but of a
    later version. Nothing of the payload is looked at before its signature is found right.
    """
    if not isinstance(payload, str):
        raise OpenError("The payload is not a string.")
    try:
        text = _signer().unsign(payload)
    except (BadSignature, UnicodeEncodeError):
        # UnicodeEncodeError: lone surrogates, which cannot be part of anything that we signed.
        raise OpenError(
            "The payload's signature is wrong: it was forged, damaged, or signed with a key that is not "
            "in this process's SIGNING_KEYS (or SECRET_KEY and SECRET_KEY_FALLBACKS)."
        ) from None
    try:
        data = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise OpenError("The payload is authentic but not the JSON that this library writes.") from None
    return _read(data)


def _read(data: Any) -> Envelope:
    version = data.get("v") if isinstance(data, dict) else None
    if type(version) is not int or version < 1:
        raise OpenError("The payload is authentic but has no wire version.")
    if version > VERSION:
        raise NewerWire(f"The payload is of wire version {version}; this release reads up to {VERSION}.", data)
    found: dict[str, Any] = {}
    for key, (field, is_right) in _FIELDS.items():
        if key in data:
            if not is_right(data[key]):
                raise OpenError(f"The payload is authentic but its {key!r} is not what it must be.")
            found[field] = data[key]
        elif key in _REQUIRED:
            raise OpenError(f"The payload is authentic but has no {key!r}.")
    envelope = Envelope(**found)
    max_age = conf.current().max_age
    if max_age is not None and time.time() - envelope.created > max_age:
        raise OpenError("The payload is authentic but older than MAX_AGE.")
    return envelope
