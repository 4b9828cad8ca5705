"""One table, and a sender of its own for each way of doing the work, so that all receivers stay connected."""

from typing import ClassVar

from django.db import models


class Row(models.Model):
    """What is saved. It has no receivers: its transactions are what they cost by themselves."""

    text = models.CharField(max_length=100)

    objects: ClassVar[models.Manager["Row"]] = models.Manager()

    def __str__(self) -> str:
        return self.text


class InlineRow(Row):
    """Its receiver is inline and does nothing."""

    class Meta:
        proxy = True


class ByHandRow(Row):
    """Its receiver calls ``on_commit(lambda: task.delay(pk))``."""

    class Meta:
        proxy = True


class DelayOnCommitRow(Row):
    """Its receiver calls ``task.delay_on_commit(pk)``."""

    class Meta:
        proxy = True


class DeferredRow(Row):
    """Its receiver is deferred."""

    class Meta:
        proxy = True


class DurableRow(Row):
    """Its receiver is deferred and durable."""

    class Meta:
        proxy = True


class BatchTaskRow(Row):
    """Its receiver collects keys for a task that takes many."""

    class Meta:
        proxy = True


class BatchRow(Row):
    """Its receiver is deferred with ``batch_size``."""

    class Meta:
        proxy = True


class QRow(Row):
    """Its receiver is one of django-q-signals."""

    class Meta:
        proxy = True
