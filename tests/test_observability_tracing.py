"""Spans of OpenTelemetry: the worker's belong to the sender's trace, also beside Celery's own instrumentation."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from deferred_signals import Retry, Signal, keeping, tracing
from deferred_signals.attempt import run
from deferred_signals.backends.memory import MemoryBackend
from deferred_signals.exceptions import ConnectError
from deferred_signals.outbox.backend import DatabaseOutbox
from deferred_signals.signals import delivery_finished
from tests import receivers, test_works_with_celery
from tests.receivers import asynchronous, curious, discards, first, on_item, second, troubled

start = test_works_with_celery.start

rung: Any = Signal()

SECRET = "hunter2"


class Spans:
    """What was exported, by name; and a tracer of the application's."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("the application")

    def named(self, beginning: str) -> list[Any]:
        return [span for span in self.exporter.get_finished_spans() if span.name.startswith(beginning)]

    def one(self, beginning: str) -> Any:
        [span] = self.named(beginning)
        return span


@pytest.fixture
def spans() -> Iterator[Spans]:
    made = Spans()
    tracing.instrument(made.provider)
    yield made
    tracing.uninstrument()


def is_child(span: Any, of: Any) -> bool:
    return bool(
        span.parent and span.parent.span_id == of.context.span_id and of.context.trace_id == span.parent.trace_id
    )


class TestSpans:
    def test_of_publishing_and_running_belong_to_the_senders(self, spans, link, memory):
        link(rung, first, queue="mails")
        with spans.tracer.start_as_current_span("request"):
            [(_, delivery)] = rung.send(sender=None, password=SECRET)
        memory.deliver()
        request, published, delivered = spans.one("request"), spans.one("publish"), spans.one("deliver")
        assert is_child(published, request)
        assert is_child(delivered, request)
        assert (published.kind, delivered.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
        assert dict(published.attributes) == {
            "messaging.system": "celery",
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            "messaging.destination.name": "tests.receivers.first",
            "messaging.message.id": delivery.id,
            "messaging.message.body.size": len(delivery.text),
            "deferred_signals.signal": "tests.test_observability_tracing.rung",
            "deferred_signals.queue": "mails",
            "deferred_signals.durable": False,
        }
        assert dict(delivered.attributes) == {
            "messaging.system": "celery",
            "messaging.operation.name": "deliver",
            "messaging.operation.type": "process",
            "messaging.destination.name": "tests.receivers.first",
            "messaging.message.id": delivery.id,
            "deferred_signals.signal": "tests.test_observability_tracing.rung",
            "deferred_signals.attempt": 1,
            "deferred_signals.outcome": "succeeded",
        }
        assert delivered.status.status_code is StatusCode.UNSET
        assert published.start_time <= published.end_time <= delivered.start_time <= delivered.end_time
        assert SECRET not in "".join(span.to_json() for span in spans.exporter.get_finished_spans())

    def test_that_a_receiver_makes_stand_in_that_of_its_delivery(self, spans, link, memory):
        link(rung, curious)
        receivers.inquiries.append(lambda **kwargs: spans.tracer.start_span("look around").end())
        rung.send(sender=None)
        memory.deliver()
        assert is_child(spans.one("look around"), spans.one("deliver"))

    def test_of_an_async_receiver_too(self, spans, link, memory):
        link(rung, asynchronous)
        rung.send(sender=None)
        memory.deliver()
        assert spans.one("deliver").attributes["deferred_signals.outcome"] == "succeeded"

    def test_without_a_trace_of_the_senders_begin_one(self, spans, link, memory):
        link(rung, first)
        rung.send(sender=None)
        memory.deliver()
        assert spans.one("deliver").parent is None
        assert trace.get_current_span() is trace.INVALID_SPAN, "the span was left behind in the context"

    def test_of_deliveries_to_a_signal_without_a_name_have_none(self, spans, link, memory):
        link(Nameless.signal, second)
        Nameless.signal.send(sender=None)
        memory.deliver()
        assert "deferred_signals.signal" not in spans.one("deliver").attributes

    @pytest.mark.django_db(transaction=True)
    def test_of_publishing_last_from_the_send_to_the_commit_and_there_is_none_after_a_rollback(
        self, spans, link, memory
    ):
        link(rung, first)
        with transaction.atomic():
            rung.send(sender=None)
            assert spans.named("publish") == []
        assert len(spans.named("publish")) == 1
        with transaction.atomic():
            rung.send(sender=None)
            transaction.set_rollback(True)
        assert len(spans.named("publish")) == 1

    def test_carry_baggage_along(self, spans, link, memory):
        found: list[Any] = []
        link(rung, curious)
        receivers.inquiries.append(lambda **kwargs: found.append(baggage.get_baggage("tenant")))
        token = otel_context.attach(baggage.set_baggage("tenant", "acme"))
        try:
            rung.send(sender=None)
        finally:
            otel_context.detach(token)
        memory.deliver()
        assert found == ["acme"]


class Nameless:
    signal: Any = Signal()


class TestOutcomes:
    @pytest.mark.parametrize(
        ("trouble", "outcome", "error"),
        [
            (ValueError(SECRET), "retry", "builtins.ValueError"),
            (Retry(SECRET, countdown=1), "retry", None),
        ],
        ids=["raised", "asked for"],
    )
    def test_a_retry_is_an_error_unless_the_receiver_asked_for_it(self, spans, link, memory, trouble, outcome, error):
        link(rung, troubled)
        receivers.troubles.append(trouble)
        with spans.tracer.start_as_current_span("request"):
            rung.send(sender=None)
        memory.deliver()
        memory.deliver()
        again, then = spans.named("deliver")
        assert again.attributes["deferred_signals.outcome"] == outcome
        assert again.attributes.get("error.type") == error
        assert again.status.is_ok is (error is None)
        assert SECRET not in again.to_json()
        assert then.attributes["deferred_signals.attempt"] == 2
        assert is_child(then, spans.one("request")), "a retry belongs to the same trace"

    def test_dead_is_an_error_and_discarded_is_none(self, spans, link, memory):
        link(rung, troubled, max_retries=0)
        link(rung, discards)
        receivers.troubles.append(ValueError(SECRET))
        rung.send(sender=None)
        memory.deliver()
        dead, discarded = spans.named("deliver")
        assert (dead.status.status_code, dead.attributes["error.type"]) == (StatusCode.ERROR, "builtins.ValueError")
        assert (discarded.status.status_code, discarded.attributes["deferred_signals.outcome"]) == (
            StatusCode.UNSET,
            "discarded",
        )

    def test_what_cannot_be_published_is_an_error(self, spans, link, memory, monkeypatch):
        link(rung, first)
        monkeypatch.setattr(memory, "publish", lambda given: [(one, OSError(SECRET)) for one in given])
        rung.send(sender=None)
        published = spans.one("publish")
        assert published.status.status_code is StatusCode.ERROR
        assert published.attributes["error.type"] == "builtins.OSError"
        assert SECRET not in published.to_json()

    def test_what_was_too_large_to_be_made_has_no_span(self, spans, link, settings):
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "MAX_SIZE": 300}
        link(rung, first, oversize="log")
        rung.send(sender=None, text="x" * 1000)
        assert spans.exporter.get_finished_spans() == ()

    def test_what_is_broken_off_from_outside_has_ended_all_the_same(self, spans, link, memory):
        link(rung, curious)
        receivers.inquiries.append(_interrupt)
        rung.send(sender=None)
        [(_, payload)] = memory.payloads
        with pytest.raises(KeyboardInterrupt):
            run(payload)
        broken = spans.one("deliver")
        assert (broken.status.status_code, broken.status.description) == (StatusCode.ERROR, "broken off")
        assert tracing._runs == {}

    def test_while_the_sender_handles_an_exception_nothing_is_broken_off(self, spans, link, memory):
        link(rung, first)
        rung.send(sender=None)
        try:
            raise LookupError
        except LookupError:
            memory.deliver()
        assert spans.one("deliver").status.status_code is StatusCode.UNSET

    def test_runs_of_which_no_end_is_told_are_not_kept_for_ever(self, spans, link, memory, monkeypatch):
        link(rung, first)
        monkeypatch.setattr(tracing, "MOST", 2)
        delivery_finished.disconnect(dispatch_uid="deferred_signals.tracing")
        for _ in range(5):
            rung.send(sender=None)
        memory.deliver()
        assert len(tracing._runs) == 2
        assert len(spans.named("deliver")) == 3


def _interrupt(**kwargs: Any) -> None:
    raise KeyboardInterrupt


class TestBatches:
    @pytest.mark.django_db(transaction=True)
    def test_each_member_has_a_span_in_the_trace_of_its_own_sender(self, spans, link, memory, settings):
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "PARALLELISM": 1}
        link(rung, on_item, batch_size=10)
        with transaction.atomic():
            for number in range(2):
                with spans.tracer.start_as_current_span(f"request {number}"):
                    rung.send(sender=None, item=number)
        assert len(memory.payloads) == 1
        # As Celery's instrumentation does it: the message has a trace of its own.
        with spans.tracer.start_as_current_span("run", kind=SpanKind.CONSUMER):
            memory.deliver()
        message = spans.one("run")
        for number, delivered in enumerate(spans.named("deliver")):
            assert is_child(delivered, spans.one(f"request {number}"))
            assert delivered.kind is SpanKind.CONSUMER
            assert [one.context.span_id for one in delivered.links] == [message.context.span_id]


class TestDurable:
    @pytest.mark.django_db(transaction=True)
    def test_deliveries_have_their_spans_also_where_one_doorbell_rings_for_many(self, spans, link, memory, monkeypatch):
        monkeypatch.setattr(keeping, "_outbox", DatabaseOutbox())
        link(rung, first, durable=True)
        with spans.tracer.start_as_current_span("request"), transaction.atomic():
            sent = [rung.send(sender=None)[0][1].id for _ in range(3)]
        assert len(memory.payloads) == 1
        while memory.payloads:  # on a busy machine, who answers passes some of them on
            memory.deliver()
        request = spans.one("request")
        for published in spans.named("publish"):
            assert published.attributes["deferred_signals.durable"] is True
            assert "messaging.message.body.size" not in published.attributes, "the database has the payload by then"
        delivered = spans.named("deliver")
        assert [one.attributes["messaging.message.id"] for one in delivered] == sent
        assert all(is_child(one, request) for one in delivered)
        assert all(one.attributes["deferred_signals.outcome"] == "succeeded" for one in delivered)
        ends = [one.end_time for one in delivered]
        assert all(one.start_time >= end for one, end in zip(delivered[1:], ends, strict=False)), "each its own time"


class TestBesideCelerys:
    """opentelemetry-instrumentation-celery has spans of its own for every message."""

    @pytest.fixture
    def celerys(self, spans: Spans) -> Iterator[None]:
        CeleryInstrumentor().instrument(tracer_provider=spans.provider)
        yield
        CeleryInstrumentor().uninstrument()

    @pytest.mark.parametrize("is_troubled", [False, True], ids=["succeeds", "dies"])
    def test_there_is_one_trace_and_the_receivers_span_stands_in_that_of_its_message(
        self, spans, celerys, start, link, is_troubled
    ):
        link(rung, troubled, max_retries=0)
        receivers.troubles.extend([ValueError("of the receiver's own")] if is_troubled else [])
        project = start()
        with spans.tracer.start_as_current_span("request"):
            assert project.ring(rung, password=SECRET) == ["dead" if is_troubled else "succeeded"]
        test_works_with_celery.eventually(lambda: spans.named("run/") and spans.named("apply_async/"))
        request, applied, ran = spans.one("request"), spans.one("apply_async/"), spans.one("run/")
        published, delivered = spans.one("publish"), spans.one("deliver ")
        assert len(spans.exporter.get_finished_spans()) == 5, "nothing is there twice"
        assert len({span.context.trace_id for span in spans.exporter.get_finished_spans()}) == 1
        assert is_child(applied, request)
        assert is_child(published, request)
        assert is_child(ran, applied)
        assert is_child(delivered, ran)
        assert delivered.kind is SpanKind.INTERNAL, "the consumer of the message is Celery's"
        assert [one.context.span_id for one in delivered.links] == [request.context.span_id]
        assert ran.status.is_ok is delivered.status.is_ok is not is_troubled
        assert SECRET not in "".join(span.to_json() for span in spans.exporter.get_finished_spans())

    def test_a_retry_continues_the_trace(self, spans, celerys, start, link):
        link(rung, troubled, max_retries=1, retry_backoff=1, retry_jitter=False)
        receivers.troubles.append(Retry(countdown=0))
        project = start()
        with spans.tracer.start_as_current_span("request"):
            assert project.ring(rung) == ["succeeded"]
        test_works_with_celery.eventually(lambda: len(spans.named("run/")) == 2)
        assert len({span.context.trace_id for span in spans.exporter.get_finished_spans()}) == 1
        assert [
            span.attributes and span.attributes["deferred_signals.attempt"] for span in spans.named("deliver ")
        ] == [1, 2]


class TestSwitchingOn:
    def test_twice_is_once(self, spans, link, memory):
        tracing.instrument(spans.provider)
        link(rung, first)
        rung.send(sender=None)
        memory.deliver()
        assert [span.name for span in spans.exporter.get_finished_spans()] == [
            "publish tests.receivers.first",
            "deliver tests.receivers.first",
        ]

    def test_beside_a_carrier_of_that_name_is_refused(self, spans):
        from deferred_signals import context

        before = context._carriers.pop("opentelemetry")
        context.register_carrier("opentelemetry", capture=dict, restore=lambda value: threading.Lock())
        with pytest.raises(ConnectError, match="opentelemetry"):
            tracing.instrument()
        context._carriers["opentelemetry"] = before

    def test_a_worker_that_has_not_runs_what_is_traced(self, link, memory: MemoryBackend, calls):
        made = Spans()
        link(rung, first)
        tracing.instrument(made.provider)
        with made.tracer.start_as_current_span("request"):
            rung.send(sender=None)
        tracing.uninstrument()
        [(_, outcome)] = memory.deliver()
        assert (outcome.state, len(calls)) == ("succeeded", 1)

    def test_a_worker_that_has_runs_what_is_not_traced(self, link, memory, calls):
        link(rung, first)
        rung.send(sender=None)
        made = Spans()
        tracing.instrument(made.provider)
        memory.deliver()
        tracing.uninstrument()
        assert len(calls) == 1
        assert made.exporter.get_finished_spans() == ()

    def test_outside_of_a_delivery_a_context_is_restored_without_a_span(self, spans):
        with tracing._restore({"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"}):
            assert not trace.get_current_span().get_span_context().is_valid
        assert spans.exporter.get_finished_spans() == ()
