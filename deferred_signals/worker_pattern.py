"""What messages for our task have in common: all but a few labels, so that most need not be looked through again.

The guard keeps of the last message that it has let in how it was written. Another that says the same, but for its ids
and the like, is as harmless, and dicts are compared in a tenth of the time that it takes to look through them.
"""

from __future__ import annotations

import marshal
from typing import Any

#: Characters of an id, label, exchange or routing key.
_LONGEST = 255

#: What is of each message its own, by where it stands; each a text, or none.
_HEADERS = dict.fromkeys(["id", "root_id", "parent_id", "shadow", "origin"])
_PROPERTIES = dict.fromkeys(["correlation_id", "reply_to", "delivery_tag"])
_ROUTE = dict.fromkeys(["delivery_tag"])
#: Where RabbitMQ's client shows the headers once more: the same object.
_AGAIN = "application_headers"

_Seen = tuple[dict[str, Any], dict[str, Any], dict[str, Any], Any, Any]


def is_label(value: Any) -> bool:
    """Whether it is a short text of one line."""
    # Printable: it stands in lines of Celery's log, and shall not begin one.
    return isinstance(value, str) and len(value) <= _LONGEST and value.isprintable()


def is_id(value: Any) -> bool:
    """Whether it is a label, and not empty."""
    return is_label(value) and value != ""


class Pattern:
    """How the last message that was looked through was written, and what its headers have become."""

    def __init__(self) -> None:
        self._seen: _Seen | None = None
        #: The headers once more, as bytes: in these 1 is neither True nor 1.0, and nobody can change them later.
        self._written: bytes | None = None
        #: Those that are left as they are, and what stands in the place of others.
        self._kept: list[str] = []
        self._placed: dict[str, Any] = {}

    def learn(self, message: Any, headers: dict[str, Any]) -> None:
        """Remember a message that was found harmless, and its ``headers`` as they were before they were cleaned."""
        self._seen = _without_labels(message, headers)
        self._written = None if self._seen is None else _written(self._seen[0])
        self._kept, self._placed = [], {}
        for key, value in message.headers.items():
            if key in _HEADERS:
                continue
            if key in headers and headers[key] is value:
                self._kept.append(key)
            else:
                self._placed[key] = value

    def cleaned(self, message: Any) -> dict[str, Any] | None:
        """The headers that are left of a message that is written in the same way; None of any other one."""
        headers, written = message.headers, self._written
        if written is None:
            return None
        seen = _without_labels(message, headers)
        # First what ends at once with what is other, however large.
        if seen is None or seen != self._seen or _written(seen[0]) != written:
            return None
        made = {key: headers[key] for key in self._kept} | self._placed
        made["id"] = headers.get("id")
        if not is_id(made["id"]):
            return None
        for key in _HEADERS:
            value = headers.get(key)
            if value is not None:
                if not is_id(value):
                    return None
                made[key] = value
        for key in _PROPERTIES:
            value = message.properties.get(key)
            if value is not None and not is_label(value):
                return None
        tag = message.delivery_info.get("delivery_tag")
        return made if tag is None or type(tag) is int or is_label(tag) else None


def _without_labels(message: Any, headers: Any) -> _Seen | None:
    properties, route = message.properties, message.delivery_info
    if type(headers) is not dict or type(properties) is not dict or type(route) is not dict:
        return None
    if (again := properties.get(_AGAIN)) is not None:
        if again is not headers:
            return None
        properties = {**properties, _AGAIN: None}
    return (
        headers | _HEADERS,
        properties | _PROPERTIES,
        route | _ROUTE,
        message.content_type,
        message.content_encoding,
    )


def _written(headers: dict[str, Any]) -> bytes | None:
    """The bytes of headers, of the same ones the same; None where there is something that only some brokers have."""
    try:
        # They are never read. Version 2 is the last that writes nothing of how often an object is referred to.
        return marshal.dumps(headers, 2)
    except ValueError:
        return None
