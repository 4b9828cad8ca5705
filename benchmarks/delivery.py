"""What it costs the sender to have work done by a worker: deferred receivers beside what others write."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from . import by_hand, deferred, peers
from .measure import Comparison, Way
from .models import ByHandRow, DeferredRow, DelayOnCommitRow, Row
from .sides import Bars, Sides, staged, transactions
from .stage import Broker, Stage

#: What a delivery may cost of what on_commit(lambda: task.delay(pk)) costs, and what would be better.
REDIS: Bars = {1: (0.75, 0.55), 1000: (0.10, 0.07)}
RABBITMQ: Bars = {1: (0.75, 0.55), 1000: (0.45, 0.38)}
IN_BATCHES: Bars = {1000: (0.02, 0.01)}

#: Deliveries in one transaction that are measured on each broker.
COUNTS = (1, 10, 100, 1000)
#: What a quick run takes on Redis alone.
BETWEEN = (10, 100)
#: From so many on a round takes seconds.
SLOW = 1000


def per_transaction(
    broker: Broker, count: int, key: str, where: str, senders: Sequence[peers.Sender], bars: Bars
) -> Comparison:
    """So many deliveries in a transaction, by every way there is."""
    sides = Sides(broker, count)
    limit = sides.limit()
    batches = [*sides.ours_in_batches(), sides.batch_task()] if count > 1 else []
    return Comparison(
        key,
        f"{count:,} {'delivery' if count == 1 else 'deliveries'} per transaction, {where}",
        [sides.by_hand(), sides.on_commit(), sides.ours(bars), *batches, *sides.peers(senders), limit.way()],
        own=sides.nothing(),
        rounds=4 if count >= SLOW and not broker.stage.quick else 2,
        level=1 if broker.server == "rabbitmq" and count in BETWEEN else 0,
        stage=partial(staged, broker, senders, limit),
        missing=deferred.missing if count > 1 else {},
    )


def _with_save(broker: Broker) -> Comparison:
    sides = Sides(broker, 1)
    return Comparison(
        "delivery_1_save",
        "1 delivery per transaction, with a real save(), Redis",
        [
            sides.way(by_hand.LAMBDA, Row.save, ByHandRow),
            sides.way(by_hand.ON_COMMIT, Row.save, DelayOnCommitRow, kind="rival"),
            sides.way(deferred.DEFERRED, Row.save, DeferredRow, kind="ours"),
        ],
        own=Way("no receiver (the transaction's own cost)", transactions(Row.save, Row, 1)),
        stage=partial(staged, broker),
    )


def _in_batches(broker: Broker) -> Comparison:
    """Sends only, one message for up to 500 of them."""
    sides = Sides(broker, 1000)
    limit = sides.limit_of_batches() if deferred.HAS_BATCH else None
    return Comparison(
        "delivery_1000_batch500",
        "1,000 deliveries per transaction, batch_size=500, sends only, Redis",
        [
            sides.by_hand(),
            *sides.ours_in_batches(IN_BATCHES),
            sides.batch_task(),
            *([limit.way()] if limit else []),
        ],
        own=sides.nothing(),
        stage=partial(staged, broker, (), limit),
        missing=deferred.missing,
    )


#: What a project may say of RabbitMQ's confirms. By default it says nothing: then tasks do not wait for them.
CONFIRMS: dict[str, tuple[bool | None, str]] = {
    "_unconfirmed": (False, "RabbitMQ, neither waits for confirms"),
    "_confirmed": (True, "RabbitMQ, both wait for confirms"),
    "": (None, "RabbitMQ as it is by default: ours confirmed beside tasks unconfirmed"),
}


def comparisons(stage: Stage) -> list[Comparison]:
    """One delivery to a thousand in one transaction, on Redis."""
    broker = Broker(stage, "redis")
    senders = peers.senders(broker)
    made = [per_transaction(broker, count, f"delivery_{count}", "Redis", senders, REDIS) for count in COUNTS]
    return [*made, _with_save(broker), _in_batches(broker)]


def on_rabbitmq(stage: Stage) -> list[Comparison]:
    """The same on RabbitMQ."""
    made: list[Comparison] = []
    for suffix, (confirm, where) in CONFIRMS.items():
        broker = Broker(stage, "rabbitmq", confirm=confirm)
        senders = peers.senders(broker, *peers.ON_RABBITMQ)
        made += [
            per_transaction(
                broker, count, f"delivery_{count}_rabbitmq{suffix}", where, senders, {} if confirm is None else RABBITMQ
            )
            for count in COUNTS
        ]
    return made
