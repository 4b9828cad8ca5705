"""The sender's side of a delivery in each way: by hand, with peers, ours, and the client library alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from django.db import connection, transaction
from django.db.models.signals import post_save

from . import by_hand, deferred, peers
from .dispatch import USUAL
from .limits import Limit
from .measure import Way
from .models import BatchRow, BatchTaskRow, ByHandRow, DeferredRow, DelayOnCommitRow, Row
from .stage import Broker

#: From so many on a block takes long: it is warmed up with one delivery.
MANY = 1000

Send = Callable[[Row], object]
#: Bar and stretch, by how many deliveries there are in the transaction.
Bars = Mapping[int, tuple[float, float]]


def signalled(model: type[Row]) -> Send:
    """The sender of most ways: ``post_save`` as ``Model.save()`` sends it, for rows that are loaded."""
    return lambda row: post_save.send(sender=model, instance=row, **USUAL)


def transactions(send: Send, model: type[Row], count: int) -> Callable[[int], None]:
    """Work that sends for ``count`` rows in a transaction, up to the end of the commit's hooks."""
    rows = [model.from_db("default", ["id", "text"], [pk, "text"]) for pk in range(1, count + 1)]

    def work(times: int) -> None:
        for _ in range(times):
            with transaction.atomic():
                for row in rows:
                    send(row)

    return work


class Sides:
    """The ways of sending for so many rows in a transaction to one broker."""

    def __init__(self, broker: Broker, count: int) -> None:
        self.broker, self.count = broker, count

    def way(
        self,
        name: str,
        send: Send,
        model: type[Row],
        *,
        expect: Callable[[int], object] | None = None,
        bars: Bars | None = None,
        **more: Any,
    ) -> Way:
        """A way that publishes a message for each, or what ``expect`` checks for a number of deliveries."""
        check, one = expect or self.broker.expect, transactions(send, model, 1)

        def warm() -> None:
            one(1)
            check(1)

        bar, stretch = (bars or {}).get(self.count, (None, None))
        return Way(
            name,
            transactions(send, model, self.count),
            after=lambda times: check(times * self.count),
            warm=warm if self.count >= MANY else None,
            bar=bar,
            stretch=stretch,
            **more,
        )

    def by_hand(self) -> Way:
        """The one that all are compared with."""
        return self.way(by_hand.LAMBDA, signalled(ByHandRow), ByHandRow)

    def on_commit(self) -> Way:
        """Celery's own."""
        return self.way(by_hand.ON_COMMIT, signalled(DelayOnCommitRow), DelayOnCommitRow, kind="rival")

    def batch_task(self) -> Way:
        """A task that takes the keys of many rows."""
        send = signalled(BatchTaskRow)
        return self.way(by_hand.BATCH, send, BatchTaskRow, expect=self.expect_chunks, kind="rival")

    def ours(self, bars: Bars) -> Way:
        """A message for each."""
        return self.way(deferred.DEFERRED, signalled(DeferredRow), DeferredRow, bars=bars, kind="ours")

    def ours_in_batches(self, bars: Bars | None = None) -> list[Way]:
        """One message for hundreds, if this version has it."""
        if not deferred.HAS_BATCH:
            return []
        send = signalled(BatchRow)
        return [self.way(deferred.BATCH, send, BatchRow, expect=self.expect_chunks, bars=bars, kind="ours")]

    def peers(self, senders: Sequence[peers.Sender]) -> list[Way]:
        """The libraries on PyPI."""
        return [self.way(one.name, one.send, one.rows, expect=one.expect, kind="rival") for one in senders]

    def expect_chunks(self, deliveries: int) -> None:
        """Expect batches: how many they are is for each to choose, for a small one lets every worker have one."""
        each = min(deliveries, self.count)
        times = deliveries // each
        self.broker.expect(times * -(-each // by_hand.CHUNK), times * self.most_chunks)

    @property
    def most_chunks(self) -> int:
        """Messages of a transaction in batches, at most."""
        return min(self.count, 16 + self.count // 100)

    def limit(self) -> Limit:
        """The client library alone, with our messages."""
        work = transactions(signalled(DeferredRow), DeferredRow, self.count)
        return Limit(self.broker, partial(work, 1), self.count)

    def limit_of_batches(self) -> Limit:
        """The same with our batches."""
        work = transactions(signalled(BatchRow), BatchRow, self.count)
        return Limit(self.broker, partial(work, 1), 1, self.most_chunks)

    def nothing(self) -> Way:
        """The transaction and the sends alone."""
        work = transactions(signalled(Row), Row, self.count)
        return Way("no receiver (the transaction's own cost)", work, warm=partial(work, 1))


@contextmanager
def staged(broker: Broker, senders: Sequence[peers.Sender] = (), limit: Limit | None = None) -> Iterator[None]:
    """Have tables, the broker's app as the current one, the peers connected, and messages for the limit."""
    broker.stage.once(create_table, create_table)
    with broker.current():
        for sender in senders:
            sender.prepare()
        if limit is not None:
            limit.prepare()
        yield


def create_table() -> None:
    """Make the table, with the rows that are saved, in the database of the settings."""
    with connection.schema_editor() as editor:
        editor.create_model(Row)
    Row.objects.bulk_create(Row(text="text") for _ in range(100))


def drop_table() -> None:
    """Leave the database as it was."""
    with connection.schema_editor() as editor:
        editor.delete_model(Row)
