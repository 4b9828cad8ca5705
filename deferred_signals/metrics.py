"""Counters and a histogram for Prometheus, from the signals about deliveries; extra ``prometheus``.

Each process counts what it does itself: the sender what it publishes, the worker what it runs. The labels are the names
of receivers that this process knows, and the outcomes, so their number has a bound. What waits in the outbox is told by
``deferred_signals.outbox.gauges``.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from . import registry as receivers
from .delivery import Delivery
from .exceptions import NotYetKnown
from .outcome import Outcome
from .signals import delivery_finished, delivery_published, delivery_unpublished

#: Seconds; receivers may be slow, which is why they are deferred.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
#: The label of what comes from elsewhere, or cannot be opened: names of others could be any number.
UNKNOWN = "unknown"


class _Metrics:
    """What is counted, and where it is registered."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        of_receiver = ("receiver",)
        self.published = Counter(
            "deferred_signals_published", "Deliveries that the broker has taken.", of_receiver, registry=registry
        )
        self.unpublished = Counter(
            "deferred_signals_unpublished", "Deliveries that could not be published.", of_receiver, registry=registry
        )
        self.finished = Counter(
            "deferred_signals_finished", "Attempts by how they ended.", ("receiver", "outcome"), registry=registry
        )
        self.seconds = Histogram(
            "deferred_signals_attempt_seconds",
            "How long attempts took.",
            of_receiver,
            buckets=BUCKETS,
            registry=registry,
        )

    def on_published(self, delivery: Delivery, **kwargs: Any) -> None:
        self.published.labels(_name_of(delivery)).inc()

    def on_unpublished(self, delivery: Delivery | None, **kwargs: Any) -> None:
        self.unpublished.labels(_name_of(delivery)).inc()

    def on_finished(self, delivery: Delivery | None, outcome: Outcome, **kwargs: Any) -> None:
        name = _name_of(delivery)
        self.finished.labels(name, outcome.state).inc()
        if delivery is not None and delivery.seconds is not None:
            self.seconds.labels(name).observe(delivery.seconds)


_metrics: _Metrics | None = None


def instrument(registry: CollectorRegistry = REGISTRY) -> None:
    """Count from now on, into this registry; in your AppConfig's ``ready()``, on both sides. Once is enough."""
    global _metrics  # noqa: PLW0603 - one set per process
    if _metrics is None:
        _metrics = _Metrics(registry)
        delivery_published.connect(_metrics.on_published, weak=False, dispatch_uid=__name__)
        delivery_unpublished.connect(_metrics.on_unpublished, weak=False, dispatch_uid=__name__)
        delivery_finished.connect(_metrics.on_finished, weak=False, dispatch_uid=__name__)


def uninstrument() -> None:
    """Undo ``instrument``: for tests."""
    global _metrics  # noqa: PLW0603 - as above
    if _metrics is not None:
        for signal in (delivery_published, delivery_unpublished, delivery_finished):
            signal.disconnect(dispatch_uid=__name__)
        for one in (_metrics.published, _metrics.unpublished, _metrics.finished, _metrics.seconds):
            _metrics.registry.unregister(one)
        _metrics = None


def _name_of(delivery: Delivery | None) -> str:
    if delivery is None:
        return UNKNOWN
    try:
        return receivers.get(delivery.receiver).name
    except NotYetKnown:
        return UNKNOWN
