"""What Celery makes of a delivery's message, kept to make the next ones of the same connection in a tenth of the time.

Route, headers and options are the same for all deliveries over one connection of a receiver. So the first one goes all
the way through ``apply_async``; what comes out at its end, the call of ``Producer.publish``, is kept, and only the id,
the ancestry and the payload are filled in anew. Nothing of Celery's is rebuilt here.
"""

from __future__ import annotations

import json
from types import FunctionType, MethodType
from typing import Any

from celery import Celery, signals
from kombu.serialization import dumps

from ..delivery import Delivery
from ..options import Options


class Template:
    """One call of ``Producer.publish``, less what is each message's own."""

    __slots__ = ("head", "headers", "how", "options", "tail")

    def __init__(self, options: Options, how: dict[str, Any], text: tuple[str, str], content: tuple[str, str]) -> None:
        #: Those of the connection; kept, so that their identity is theirs.
        self.options = options
        self.headers: dict[str, Any] = {**how["headers"], "parent_id": None}
        # What is to be declared is declared, or this would not be remembered.
        self.how = {**how, "declare": None, "content_type": content[0], "content_encoding": content[1]}
        self.head, self.tail = text

    @classmethod
    def of(cls, delivery: Delivery, body: Any, given: dict[str, Any]) -> Template | None:
        """Of what Celery has had published for a delivery; None where there is more in it than can be filled in."""
        how = {name: value for name, value in given.items() if name != "serializer"}
        headers = how.get("headers") or {}
        own = delivery.id
        if (
            headers.get("id") != own
            or how.get("correlation_id") != own
            # A time is another one in each message, and what is compressed has no text.
            or headers.get("eta") is not None
            or headers.get("expires") is not None
            or how.get("compression")
            or how.get("retry")
        ):
            return None
        content_type, content_encoding, data = dumps(body, serializer=given.get("serializer"))
        (payload,), *_ = body
        head, found, tail = str(data).partition(json.dumps(payload))
        if not found or content_type != "application/json":
            return None
        return cls(delivery.options, how, (head, tail), (content_type, content_encoding))

    def message(self, delivery: Delivery, ancestry: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Body and keyword arguments for ``Producer.publish``."""
        headers, how, own = self.headers.copy(), self.how.copy(), delivery.id
        headers["id"] = headers["root_id"] = how["correlation_id"] = own
        headers["shadow"] = delivery.receiver
        if ancestry:
            headers.update(ancestry)
        how["headers"] = headers
        return f"{self.head}{json.dumps(delivery.payload)}{self.tail}", how


def is_celerys_own(app: Celery, task: Any) -> bool:
    """Whether messages go through Celery's own code only, and nobody wants to see each of them on its way.

    Instrumentation replaces methods (Sentry's ``apply_async``) or listens (OpenTelemetry's ``before_task_publish``).
    """
    listening = (signals.before_task_publish, signals.after_task_publish, getattr(signals, "task_sent", None))
    if any(signal is not None and signal.receivers for signal in listening):
        return False
    return (
        _is_of(task.apply_async, "celery.app.task")
        and _is_of(app.send_task, "celery.app.base")
        and _is_of(app.amqp.create_task_message, "celery.app.amqp")
        and _is_of(app.amqp.send_task_message, "celery.app.amqp")
    )


def _is_of(method: Any, module: str) -> bool:
    # Not isinstance nor __module__: a wrapper says of itself what it wraps says.
    function = method.__func__ if type(method) is MethodType else method
    return type(function) is FunctionType and function.__globals__.get("__name__") == module
