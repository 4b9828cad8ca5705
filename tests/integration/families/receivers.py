"""The receivers on every signal: an inline one that keeps, deferred ones that write down what arrives."""

from functools import partial
from typing import Any

from django.dispatch import receiver

from deferred_signals import connect
from deferred_signals.signals import delivery_finished, delivery_published, delivery_unpublished

from . import arrivals, recording, table
from .installed_signals import installed_signals, name_of


def connect_all() -> None:
    for name in {row.signal for row in table.rows()}:
        signal = installed_signals()[name]
        options: dict[str, Any] = {"deferred": True, "deliver_raw": True, "when": partial(recording.is_recorded, name)}
        for receiver_name in recording.receivers_of(name):
            connect(signal, globals()[receiver_name], **options)
        signal.connect(keep)


def keep(sender, signal, **kwargs):
    """Inline."""
    recording.sent(name_of(signal), {"sender": sender, **kwargs})


def arrive(sender, signal, **kwargs):
    arrivals.write({"signal": signal, "sender": sender, **kwargs})


def arrive_naming_request(sender, signal, request, **kwargs):
    arrivals.write({"signal": signal, "sender": sender, "request": request, **kwargs})


def arrive_naming_origin(sender, signal, origin, **kwargs):
    arrivals.write({"signal": signal, "sender": sender, "origin": origin, **kwargs})


@receiver(delivery_published)
def published(delivery, **kwargs):
    recording.published(delivery)


@receiver(delivery_unpublished)
def unpublished(delivery, error, **kwargs):
    recording.failed(f"{delivery} was not published: {error!r}")


@receiver(delivery_finished)
def finished(delivery, outcome, **kwargs):
    """On the worker: what did not arrive says why, and nobody needs to wait for it."""
    if outcome.state != "succeeded" and delivery is not None:
        arrivals.write_end(delivery, f"{delivery} ended {outcome.state}: {outcome.reason} {outcome.error!r}")
