"""Notes of every signal of these applications what it was sent with, and what has arrived of it."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from django.db.models.signals import post_delete
from django.dispatch import Signal

from deferred_signals import Delivery, connect, current_delivery
from deferred_signals.outcome import Outcome
from deferred_signals.signals import delivery_finished, delivery_published, delivery_unpublished

from .descriptions import described, sender_to_be, to_be
from .journal import note
from .models import Article

MODULES = (
    "allauth.account.signals",
    "django.contrib.auth.signals",
    "django_fsm.signals",
    "easy_thumbnails.signals",
    "oauth2_provider.signals",
    "simple_history.signals",
    "knox.signals",
)


def signals() -> Iterator[tuple[str, Signal]]:
    for module in MODULES:
        for name, value in vars(import_module(module)).items():
            if isinstance(value, Signal):
                yield f"{module}.{name}", value


NAMES = {id(signal): name for name, signal in signals()} | {id(post_delete): "django.db.models.signals.post_delete"}


def sent(sender: Any, signal: Signal, **kwargs: Any) -> None:
    for receiver, fields in ((arrived, False), (arrived_as_it_was, True)):
        expected = {name: to_be(value, fields) for name, value in kwargs.items()}
        expected["sender"] = sender_to_be(sender, fields)
        note("sent", receiver=f"{__name__}.{receiver.__name__}", signal=NAMES[id(signal)], kwargs=expected)


def _arrived(fields: bool, kwargs: dict[str, Any]) -> None:
    # The sender is among the kwargs, as at the send.
    del kwargs["signal"]
    found = {name: described(value, fields) for name, value in kwargs.items()}
    delivery = current_delivery()
    assert delivery
    note("arrived", delivery=delivery.id, kwargs=found)


def arrived(**kwargs: Any) -> None:
    _arrived(False, kwargs)


def arrived_as_it_was(**kwargs: Any) -> None:
    _arrived(True, kwargs)


def connect_all() -> None:
    for _, signal in signals():
        signal.connect(sent)
        connect(signal, arrived, deferred=True)
        connect(signal, arrived_as_it_was, deferred=True, instance="snapshot")
    # Of the magazine's own, for what its fields hold.
    post_delete.connect(sent, sender=Article)
    connect(post_delete, arrived, sender=Article, deferred=True)
    connect(post_delete, arrived_as_it_was, sender=Article, deferred=True, instance="snapshot")
    delivery_published.connect(published)
    delivery_unpublished.connect(unpublished)
    delivery_finished.connect(finished)


def published(sender: Any, delivery: Delivery, **kwargs: Any) -> None:
    note("published", delivery=delivery.id, receiver=delivery.receiver, signal=delivery.signal)


def unpublished(sender: Any, delivery: Delivery, error: Exception, **kwargs: Any) -> None:
    note("unpublished", receiver=delivery.receiver, signal=delivery.signal, error=repr(error))


def finished(sender: Any, delivery: Delivery | None, outcome: Outcome, **kwargs: Any) -> None:
    note("finished", delivery=delivery and delivery.id, state=outcome.state, reason=outcome.reason)
