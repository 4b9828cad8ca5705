"""What people write without us: a task called after the commit, for each row or for many."""

from __future__ import annotations

import threading
from typing import Any

from celery import shared_task
from django.db import transaction
from django.db.models.signals import post_save

from deferred_signals import receiver

from .models import BatchTaskRow, ByHandRow, DelayOnCommitRow, Row

#: Names in the table.
LAMBDA, ON_COMMIT, BATCH = "on_commit(lambda: task.delay(pk))", "task.delay_on_commit(pk)", "batch task by hand"

#: How many keys the batch task takes.
CHUNK = 500


@shared_task
def handle(pk: int) -> None:
    """The task for one row; nobody runs it here."""


@shared_task
def handle_many(pks: list[int]) -> None:
    """The task for many; nobody runs it here."""


@receiver(post_save, sender=ByHandRow)
def by_hand(sender: Any, instance: Row, using: str, **kwargs: Any) -> None:
    """What Celery's documentation recommended before ``delay_on_commit``, and which commit is meant."""
    transaction.on_commit(lambda: handle.delay(instance.pk), using=using)


@receiver(post_save, sender=DelayOnCommitRow)
def delay_on_commit(sender: Any, instance: Row, **kwargs: Any) -> None:
    """What Celery's documentation recommends."""
    handle.delay_on_commit(instance.pk)  # type: ignore[attr-defined]  # celery-types does not know Celery's DjangoTask


_collected = threading.local()


@receiver(post_save, sender=BatchTaskRow)
def collect(sender: Any, instance: Row, using: str, **kwargs: Any) -> None:
    """One hook for each transaction. After a rollback the list is left over, as in most code of this kind."""
    pks = getattr(_collected, "pks", None)
    if pks is None:
        pks = _collected.pks = []
        transaction.on_commit(_call_for_many, using=using)
    pks.append(instance.pk)


def _call_for_many() -> None:
    pks, _collected.pks = _collected.pks, None
    for start in range(0, len(pks), CHUNK):
        handle_many.delay(pks[start : start + CHUNK])
