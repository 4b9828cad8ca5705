"""django-q-signals: a receiver becomes a task of Django Q2, called while the sender sends; to Redis here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis
from django.db.models.signals import post_save
from django_q.brokers import get_broker
from django_q.conf import Conf
from django_q_signals import async_receiver

from ..dispatch import USUAL
from ..models import QRow, Row
from ..stage import Broker
from ..stamps import stamp


# weak=False: otherwise the function that listens is collected at once, since nobody else holds it.
@async_receiver(post_save, sender=QRow, weak=False)
def handle(sender: Any, instance: Row, **kwargs: Any) -> None:
    """The receiver."""
    stamp(instance.pk)


def connect_on_worker() -> None:
    """Celery's workers have nothing to do with it."""


class Sender:
    """Its sender's side."""

    name = "django-q-signals (before the commit)"
    by_celery = False
    rows = QRow

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.client: redis.Redis | None = None

    def prepare(self) -> None:
        """Tell it where Redis is: it has read its settings when Django started, before there was one."""
        Conf.REDIS = self.broker.url
        if self.client is None:
            self.client = redis.Redis.from_url(self.broker.url)
            self.broker.stage.at_the_end(self.client.close)

    def send(self, row: Row) -> object:
        """Send Django's signal."""
        return post_save.send(sender=QRow, instance=row, **USUAL)

    def expect(self, count: int) -> None:
        """Remove its messages."""
        key = get_broker().list_key
        found = self.client.llen(key)
        self.client.delete(key)
        if found != count:
            raise RuntimeError(f"{found} tasks were queued where {count} should have been.")

    def publish(self, rows: Sequence[Row]) -> None:
        """Have the receiver called for all of them."""
        for row in rows:
            self.send(row)
