"""Run deliveries in a worker under Sentry, and print as JSON what would have been sent to it."""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

import django
import sentry_sdk
from celery import Celery
from celery.signals import setup_logging
from django.dispatch import Signal
from kombu.transport.memory import Transport
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.transport import Transport as SentryTransport

SECRET = "hunter2"

rung = Signal()


class Kept(SentryTransport):
    """In the place of HTTP: what is in the envelopes."""

    items: list[dict[str, Any]] = []  # noqa: RUF012 - one for all of them

    def capture_envelope(self, envelope: Any) -> None:
        self.items += [json.loads(item.get_bytes()) for item in envelope.items if item.type in {"event", "transaction"}]


def main(*given: str) -> None:
    # As in a project's settings: before Django's apps, and before Celery's worker is imported.
    sentry_sdk.init(
        dsn="https://key@sentry.invalid/1",
        transport=Kept,
        integrations=[CeleryIntegration()],
        auto_enabling_integrations=False,
        traces_sample_rate=1.0,
        include_local_variables="locals" in given,
    )
    django.setup()
    from celery.contrib.testing.worker import start_worker

    from deferred_signals import connect, sentry
    from deferred_signals.signals import delivery_finished
    from tests import receivers

    if "named" in given:
        sentry.instrument()
    setup_logging.connect(lambda **kwargs: None, weak=False)
    drain = Transport.drain_events
    Transport.drain_events = lambda self, connection, timeout=None: drain(self, connection, 0.02)  # type: ignore[method-assign]
    app = Celery("project", broker="memory://")
    app.conf.broker_transport_options = {"polling_interval": 0.01}
    ended: list[str] = []
    is_over = threading.Event()

    def note(delivery: Any, outcome: Any, **kwargs: Any) -> None:
        ended.append(outcome.state)
        if outcome.state == "dead":
            is_over.set()

    delivery_finished.connect(note)
    connect(rung, receivers.troubled, deferred=True, max_retries=1, retry_backoff=1, retry_jitter=False)
    receivers.troubles.extend(ValueError("the receiver's own") for _ in range(2))
    with start_worker(app, pool="solo", perform_ping_check=False):
        with sentry_sdk.start_transaction(name="request"):
            rung.send(sender=None, password=SECRET, number=271828)
        assert is_over.wait(60), ended
    sentry_sdk.flush()
    print(json.dumps({"ended": ended, "items": Kept.items}))


if __name__ == "__main__":
    main(*sys.argv[1:])
