"""Receivers whose effect is a row in the database, for the processes of ``test_interleavings``."""

from __future__ import annotations

from typing import Any

from django.db import connection
from django.db.models import F

from deferred_signals import Signal
from deferred_signals.failpoints import reach
from tests.shop.models import Article, Customer

durable_sent = Signal()
atomic_sent = Signal()
batch_sent = Signal()
SIGNALS = {"durable": durable_sent, "atomic": atomic_sent, "batch": batch_sent}


def make_effect(sender: Any, **kwargs: Any) -> None:
    if connection.vendor != "sqlite":  # where who reads keeps others from writing
        Article.objects.first()  # from here on, a transaction that keeps to a snapshot does
    reach("receiver.before_effect")
    Article.objects.update(stock=F("stock") + 1)
    Customer.objects.create(name="effect")
    reach("receiver.after_effect")


def make_effect_at_once(sender: Any, **kwargs: Any) -> None:
    make_effect(sender, **kwargs)


def make_effect_in_a_batch(sender: Any, **kwargs: Any) -> None:
    make_effect(sender, **kwargs)


def connect_all() -> None:
    durable_sent.connect(make_effect, deferred=True, durable=True, max_retries=0)
    atomic_sent.connect(make_effect_at_once, deferred=True, durable=True, atomic=True, max_retries=0)
    batch_sent.connect(make_effect_in_a_batch, deferred=True, durable=True, batch_size=100, max_retries=0)
