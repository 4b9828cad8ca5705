"""The body of a message for our task: one text, the payload, and nothing beside it."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from kombu.exceptions import ContentDisallowed

from . import conf
from .exceptions import ConfigurationError

#: A payload grows up to threefold when Celery writes it as JSON, and a little with what is noted in it later.
_GROWTH, _SLACK = 4, 64 * 1024
#: How a body ends that has nothing embedded, as Celery writes it. Only names in the registry are ever called.
_EMPTY = '], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
_EMPTY_BYTES = _EMPTY.encode()
#: Quotation marks of a body that has this, and one text.
_QUOTES = _EMPTY.count('"') + 2
_TEXTS = (str, bytes, bytearray)


class Refused(Exception):
    """The message is none of ours; the text says why, in words of ours only."""


def clean_body(message: Any) -> None:
    """Look through a body, and empty it of what is embedded. Raises Refused."""
    text = message.body
    if not isinstance(text, _TEXTS):
        raise Refused("it has no body.")
    with suppress(ConfigurationError):  # the task tells of it, and has the delivery wait; here it would end the worker
        if len(text) > (largest := _GROWTH * conf.current().max_size + _SLACK):
            raise Refused(f"its body is larger than {largest} bytes. Is MAX_SIZE larger at the sender than here?")
    usual = _is_usual(text)
    try:
        # The message remembers what it has decoded, so Celery need not do it again; but not what is emptied here, nor
        # what kombu would make objects of.
        parts = message.decode() if usual else json.loads(text if isinstance(text, str) else text.decode())
    except ContentDisallowed:
        raise Refused("this worker's accept_content has no 'json'.") from None
    except Exception:  # noqa: BLE001 - kombu's own errors, and whatever a codec says of a name that is none
        parts = None
    payload = flat(parts)
    if not usual:
        # Whatever is in it: where a key stands twice, only the last one was seen here, and kombu makes objects of both.
        message.body = json.dumps([[payload], {}, {}]).encode()


def _is_usual(text: str | bytes | bytearray) -> bool:
    """Whether a body has nothing embedded, and one text at most.

    Each text has two quotation marks without a backslash before them, save those that end with a backslash of theirs:
    at least one. An object of kombu's has two keys that end otherwise, so it takes four.
    """
    if isinstance(text, str):
        return text.endswith(_EMPTY) and text.count('"') - text.count('\\"') <= _QUOTES
    return text.endswith(_EMPTY_BYTES) and text.count(b'"') - text.count(b'\\"') <= _QUOTES


def flat(parts: Any) -> str:
    """The payload; what is embedded beside it is not looked at."""
    match parts:
        case [[str(payload)], dict(kwargs), dict()] if not kwargs:
            return payload
    raise Refused("its arguments are not one string.")
