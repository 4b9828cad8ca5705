"""The guard at the worker's door: what a message for our task must be before Celery looks into it.

A worker's main process believes what it reads of a message before it gives it to the pool. A body that is a number, an
id that is missing, a time limit that is a word, arguments nested 900 deep: each ends the worker, and the broker gives
the message to the next one. So what is not as a sender of ours writes it is refused first: one line in the log, and the
message is rejected, which lets a dead-letter exchange keep it. What a message says for show, or for parts of Celery
that no delivery uses, is left out instead.

This must be a ``Task.Strategy``: Celery decodes the body before it makes a ``Task.Request``. Both are public attributes
of a task; that Celery asks ours is held by a test.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

from celery import signals
from celery.app.task import Context
from celery.worker.strategy import default

from .tasks import NOT_BEGUN, REPRS
from .worker_body import Refused, clean_body, flat
from .worker_pattern import Pattern, is_id, is_label

logger = logging.getLogger("deferred_signals")

#: Bytes that the headers, or the properties, may take in memory, and the levels of containers in them.
_ROOM = 64 * 1024
_DEEPEST = 8
#: Seconds of a time limit.
_FOR_EVER = 1e12
#: Not as unions in the code, which would be made anew for each message.
_CONTAINERS = (dict, list, tuple)


def guarded(task: Any, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Celery's own strategy, behind the guard."""
    handle = default(task, app, consumer, **options)
    compressed, pattern = bool(app.conf.task_compression), Pattern()

    def on_message(message: Any, body: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            if body is None and (headers := pattern.cleaned(message)) is not None:
                message.headers = headers
                clean_body(message)
            else:
                headers = message.headers
                clean(message, body, compressed=compressed)
                if body is None:
                    pattern.learn(message, headers)
        except Refused as error:
            refusal = error
        else:
            return handle(message, body, *args, **kwargs)
        logger.error("A message for %s is refused: %s", task.name, refusal)
        # As Celery does with a message that it cannot read.
        message.reject_log_error(logger, consumer.connection_errors)
        signals.task_rejected.send(sender=consumer, message=message, exc=refusal)
        return None

    return on_message


def clean(message: Any, body: Any, *, compressed: bool = False) -> None:
    """Leave of a message what a delivery needs. ``body`` is what Celery has decoded already: of protocol 1, a dict.

    Raises Refused.
    """
    headers = message.headers
    if "compression" in headers and not compressed:
        raise Refused("it is compressed.")
    if message.content_type != "application/json" or not isinstance(message.content_encoding, str | None):
        raise Refused("its content is not JSON.")
    for what, value in (("headers", headers), ("properties", message.properties), ("route", message.delivery_info)):
        if not isinstance(value, dict) or _room(value, _ROOM) < 0:
            raise Refused(f"its {what} are too large or nested too deep.")
    if not all(is_label(message.delivery_info.get(key) or "") for key in ("exchange", "routing_key")):
        raise Refused("its exchange or routing key is none.")
    said = headers if body is None else body
    for key, (is_right, what) in _NEEDED.items():
        if not is_right(said.get(key)):
            raise Refused(f"its {key!r} is not {what}.")
    message.headers = {key: value for key, value in headers.items() if _is_kept(key, value)} | REPRS
    if body is None:
        clean_body(message)
        return
    payload = flat([body.get("args"), body.get("kwargs"), {}])
    kept = {key: body.get(key) for key in ("task", *_NEEDED)}
    # In its place: this very dict is what Celery looks into again, and then at the headers.
    body.clear()
    body.update(kept, args=[payload], kwargs={})
    message.headers = {key: value for key, value in message.headers.items() if key not in kept}


def _room(value: Any, room: int, depth: int = 0) -> int:
    """What is left of ``room`` bytes beside what is in a container; less than none if that is nested too deep."""
    parts = [*value, *value.values()] if isinstance(value, dict) else [*value]
    room -= sum(map(sys.getsizeof, parts))
    for part in parts:
        if isinstance(part, _CONTAINERS):
            if room < 0 or depth + 1 == _DEEPEST:
                return -1
            room = _room(part, room, depth + 1)
    return room


def _is_moment(value: Any) -> bool:
    if value is None:
        return True
    try:
        # Not the first and the last year: in another time zone they are none.
        return is_label(value) and 1 < datetime.fromisoformat(value).year < 9999  # noqa: PLR2004
    except ValueError:
        return False


def _is_limit(value: Any) -> bool:
    return value is None or (type(value) in {int, float} and 0 <= value < _FOR_EVER)


def _are_limits(value: Any) -> bool:
    return value is None or (isinstance(value, list | tuple) and [*map(_is_limit, value)] == [True, True])


def _is_count(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value < 2**31)


#: What Celery reads in the main process, and what it must be there.
_NEEDED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "id": (is_id, "an id"),
    "eta": (_is_moment, "a time"),
    "expires": (_is_moment, "a time"),
    "timelimit": (_are_limits, "two numbers of seconds"),
    "retries": (_is_count, "a number"),
}
#: What is left out where it is not this.
_WELCOME: dict[str, Callable[[Any], bool]] = {
    "shadow": is_label,
    "root_id": is_id,
    "parent_id": is_id,
    "origin": is_label,
    "ignore_result": lambda value: isinstance(value, bool),
    # Of instrumentation, which has its own in it.
    "headers": lambda value: isinstance(value, dict),
}
#: Every other attribute of Celery's request, and ours: a header of that name would take its place.
_TAKEN = frozenset([*vars(Context), NOT_BEGUN]) - _NEEDED.keys()


def _is_kept(key: str, value: Any) -> bool:
    welcome = _WELCOME.get(key)
    return key not in _TAKEN if welcome is None else welcome(value)
