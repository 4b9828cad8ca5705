"""Spans of OpenTelemetry for deliveries: one where it is published, one around its receiver; extra ``opentelemetry``.

The sender's trace travels as a part of the context, so the worker's spans belong to it whatever transport, retries,
batches and relays lie between. No value of an argument and no text of an exception becomes an attribute.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer, TracerProvider

from .context import register_carrier, unregister_carrier
from .delivery import Delivery, current_delivery
from .exceptions import Retry
from .outcome import Outcome
from .signals import delivery_finished, delivery_published, delivery_unpublished

#: The carrier's name, one of ``context.DISPENSABLE``: a worker without tracing runs what is traced, too.
CARRIER = "opentelemetry"
#: Runs of which it is not known yet how they have ended, of which one thread has a window's at most.
MOST = 10_000


class _Run(NamedTuple):
    """A span whose receiver is through; how that has ended is said later."""

    #: Held, for it is known by its identity.
    delivery: Delivery
    span: Span
    #: Unix nanoseconds.
    ended: int


_tracer: Tracer = trace.NoOpTracer()
_runs: dict[int, _Run] = {}


def instrument(tracer_provider: TracerProvider | None = None) -> None:
    """Make spans from now on, with this provider or the global one; in your AppConfig's ``ready()``, on both sides.

    May be called again. Raises ConnectError if a carrier of yours is called ``opentelemetry``: take that out, this one
    does its work.
    """
    global _tracer  # noqa: PLW0603 - one per process
    register_carrier(CARRIER, capture=_capture, restore=_restore)
    _tracer = trace.get_tracer("deferred_signals", tracer_provider=tracer_provider)
    delivery_published.connect(_published, weak=False, dispatch_uid=__name__)
    delivery_unpublished.connect(_unpublished, weak=False, dispatch_uid=__name__)
    delivery_finished.connect(_finished, weak=False, dispatch_uid=__name__)


def uninstrument() -> None:
    """Undo ``instrument``: for tests."""
    unregister_carrier(CARRIER)
    for signal in (delivery_published, delivery_unpublished, delivery_finished):
        signal.disconnect(dispatch_uid=__name__)
    _runs.clear()


def _capture() -> dict[str, str] | None:
    carried: dict[str, str] = {}
    propagate.inject(carried)
    return carried or None


@contextmanager
def _restore(carried: dict[str, str] | None) -> Iterator[None]:
    """The span around the receiver. It has ended with the block, and is told to be when its outcome is known."""
    delivery = current_delivery()
    if delivery is None:  # somebody else restores a context
        yield
        return
    handled = sys.exception()
    arriving = trace.get_current_span()
    base = propagate.extract(carried or {})
    span = _span_of(delivery, base, arriving)
    token = otel_context.attach(trace.set_span_in_context(span, base))
    try:
        yield
    finally:
        otel_context.detach(token)
        ended = time.time_ns()
        if sys.exception() is not handled:
            # Broken off from outside, and nobody is told of an outcome; the receiver's own exceptions do not get here.
            span.set_status(Status(StatusCode.ERROR, "broken off"))
            span.end(ended)
        else:
            _runs[id(delivery)] = _Run(delivery, span, ended)
            if len(_runs) > MOST:
                _runs.pop(next(iter(_runs))).span.end()


def _span_of(delivery: Delivery, base: otel_context.Context, arriving: Span) -> Span:
    """In the sender's trace: in the worker's span of the message, if there is one and it belongs to that.

    What it does not stand in is linked: the sender's span, or the message's, which several deliveries of a batch share
    and which the relay may have sent.
    """
    here = arriving.get_span_context()
    sent = trace.get_current_span(base).get_span_context()
    is_inside = here.is_valid and here.trace_id == sent.trace_id
    parent = trace.set_span_in_context(arriving, base) if is_inside else base
    other = sent if is_inside else here
    # Of one message, one span is that of its consumer.
    is_consumed = is_inside and getattr(arriving, "kind", None) is SpanKind.CONSUMER
    return _tracer.start_span(
        f"deliver {delivery.receiver}",
        parent,
        SpanKind.INTERNAL if is_consumed else SpanKind.CONSUMER,
        _attributes(delivery, "deliver", "process") | {"deferred_signals.attempt": delivery.attempt},
        [Link(other)] if other.is_valid and other.span_id != (here if is_inside else sent).span_id else None,
    )


def _finished(delivery: Delivery | None, outcome: Outcome, **kwargs: Any) -> None:
    run = _runs.pop(id(delivery), None)
    if run is None:
        return
    run.span.set_attribute("deferred_signals.outcome", outcome.state)
    if outcome.state == "dead" or (outcome.state == "retry" and not isinstance(outcome.error, Retry)):
        _fail(run.span, outcome.error)
    run.span.end(run.ended)


def _published(delivery: Delivery, **kwargs: Any) -> None:
    _publish_span(delivery).end()


def _unpublished(delivery: Delivery | None, error: Exception, **kwargs: Any) -> None:
    if delivery is not None:  # else it was never made
        span = _publish_span(delivery)
        _fail(span, error)
        span.end()


def _publish_span(delivery: Delivery) -> Span:
    """From the send until now: it has waited for the commit, and for the broker."""
    found = _attributes(delivery, "publish", "send") | {"deferred_signals.durable": delivery.kept is not None}
    if delivery.text:
        found["messaging.message.body.size"] = len(delivery.text.encode())
    if delivery.options.queue is not None:
        found["deferred_signals.queue"] = delivery.options.queue
    since = min(int(delivery.at * 1_000_000_000), time.time_ns())
    return _tracer.start_span(f"publish {delivery.receiver}", None, SpanKind.PRODUCER, found, start_time=since)


def _attributes(delivery: Delivery, name: str, kind: str) -> dict[str, Any]:
    found = {
        "messaging.system": "celery",
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
        "messaging.destination.name": delivery.receiver,
        "messaging.message.id": delivery.id,
    }
    return found if delivery.signal is None else {**found, "deferred_signals.signal": delivery.signal}


def _fail(span: Span, error: Exception | None) -> None:
    kind = type(error)
    span.set_attribute("error.type", f"{kind.__module__}.{kind.__qualname__}")
    span.set_status(Status(StatusCode.ERROR))
