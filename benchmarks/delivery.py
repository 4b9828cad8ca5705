"""What it costs the sender to have work done by a worker: deferred receivers beside tasks called by hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from celery import Celery, shared_task
from django.db import connection, transaction
from django.db.models.signals import post_save
from kombu import Connection

from deferred_signals import receiver

from .dispatch import USUAL
from .measure import Comparison, Way
from .models import ByHandRow, DeferredRow, DelayOnCommitRow, Row

#: One deferred delivery may cost so much of what on_commit(lambda: task.delay(pk)) costs.
BAR = 1.05


@shared_task
def handle(pk: int) -> None:
    """The task that the receivers by hand call; nobody runs it here."""


@receiver(post_save, sender=ByHandRow)
def by_hand(sender: Any, instance: Row, **kwargs: Any) -> None:
    """What Celery's documentation recommended before ``delay_on_commit``."""
    transaction.on_commit(lambda: handle.delay(instance.pk))


@receiver(post_save, sender=DelayOnCommitRow)
def delay_on_commit(sender: Any, instance: Row, **kwargs: Any) -> None:
    """What Celery's documentation recommends."""
    handle.delay_on_commit(instance.pk)  # type: ignore[attr-defined]  # celery-types does not know Celery's DjangoTask


@receiver(post_save, sender=DeferredRow, deferred=True)
def deferred(sender: Any, instance: Row, **kwargs: Any) -> None:
    """What this package recommends."""


class Broker:
    """The queue that everything is published to: emptied, and its messages counted, after each block."""

    def __init__(self, app: Celery) -> None:
        self.connection: Connection = app.connection_for_read()
        self.queue = app.amqp.default_queue.bind(self.connection.default_channel)
        self.queue.declare()
        self.empty()

    def empty(self) -> int:
        """Remove all messages; return how many there were."""
        return self.queue.purge() or 0

    def expect(self, count: int) -> None:
        """Remove so many messages; RuntimeError when others than those were published."""
        found, end = self.empty(), time.monotonic() + 2
        while found < count and time.monotonic() < end:  # publishing by hand does not wait until RabbitMQ has it
            found += self.empty()
        if found != count:
            raise RuntimeError(f"{found} messages were published where {count} should have been.")


def _sends(model: type[Row], count: int) -> Callable[[int], None]:
    rows = [model.from_db("default", ["id", "text"], [pk, "text"]) for pk in range(1, count + 1)]

    def work(times: int) -> None:
        for _ in range(times):
            with transaction.atomic():
                for row in rows:
                    post_save.send(sender=model, instance=row, **USUAL)

    return work


def _saves(model: type[Row], count: int) -> Callable[[int], None]:
    rows = [model.from_db("default", ["id", "text"], [pk, "text"]) for pk in range(1, count + 1)]

    def work(times: int) -> None:
        for _ in range(times):
            with transaction.atomic():
                for row in rows:
                    row.save()

    return work


def _compare(
    key: str,
    title: str,
    broker: Broker,
    count: int,
    make: Callable[[type[Row], int], Callable[[int], None]],
    bar: float | None = None,
) -> Comparison:
    def way(name: str, model: type[Row], bar: float | None = None) -> Way:
        return Way(name, make(model, count), after=lambda times: broker.expect(times * count), bar=bar)

    return Comparison(
        key,
        title,
        [
            way("on_commit(lambda: task.delay(pk))", ByHandRow),
            way("task.delay_on_commit(pk)", DelayOnCommitRow),
            way("deferred receiver", DeferredRow, bar),
        ],
        own=Way("no receiver (the transaction's own cost)", make(Row, count)),
    )


def create_table() -> None:
    """Make the table, with the rows that are saved, in the database of the settings."""
    with connection.schema_editor() as editor:
        editor.create_model(Row)
    Row.objects.bulk_create(Row(text="text") for _ in range(100))


def drop_table() -> None:
    """Leave the database as it was."""
    with connection.schema_editor() as editor:
        editor.delete_model(Row)


def comparisons(app: Celery) -> list[Comparison]:
    """One, ten and a hundred deliveries in one transaction, and one with a real ``save()``."""
    broker = Broker(app)
    return [
        _compare("delivery_1", "1 delivery per transaction", broker, 1, _sends, BAR),
        _compare("delivery_10", "10 deliveries per transaction", broker, 10, _sends),
        _compare("delivery_100", "100 deliveries per transaction", broker, 100, _sends),
        _compare("delivery_1_save", "1 delivery per transaction, with a real save()", broker, 1, _saves),
    ]
