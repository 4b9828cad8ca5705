"""How the sender's cost grows: with deliveries per transaction, receivers per signal, and bytes per delivery."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from celery import shared_task
from django.db import transaction

from deferred_signals import Signal

from . import by_hand, deferred
from .limits import Limit
from .measure import Comparison, Way
from .models import Row
from .sides import Sides, staged
from .stage import Broker, Stage

#: Deliveries in one transaction, beyond those of which every way is measured.
COUNTS = (10_000, 100_000)
RECEIVERS = (1, 5, 10, 20, 50)
#: Bytes of the one argument that the receiver takes.
PAYLOADS = (100, 1_000, 10_000, 100_000)
#: What five receivers of one send may cost of what one costs, and what would be better.
FIVE, FIVE_STRETCH = 3.5, 3.0


@shared_task
def handle_text(text: str) -> None:
    """The task for a payload; nobody runs it here."""


def _numbered(number: int) -> Callable[..., None]:
    """A deferred receiver of its own, which a worker would find in this module."""

    def receive(sender: Any, instance: Row, **kwargs: Any) -> None:
        pass

    receive.__name__ = receive.__qualname__ = f"receive_{number}"
    globals()[receive.__name__] = receive
    return receive


NUMBERED = [_numbered(number) for number in range(max(RECEIVERS))]


def take_text(sender: Any, text: str, **kwargs: Any) -> None:
    """A deferred receiver of a payload."""


def _call_by_hand() -> Callable[..., None]:
    def receive(sender: Any, instance: Row, **kwargs: Any) -> None:
        transaction.on_commit(lambda: by_hand.handle.delay(instance.pk))

    return receive


#: By the number of its receivers: a signal with so many that call a task by hand, and one with deferred ones.
BY_HAND = {count: Signal() for count in RECEIVERS}
OURS = {count: Signal(name=f"benchmarks.sent_to_{count}") for count in RECEIVERS}
for count in RECEIVERS:
    for receive in NUMBERED[:count]:
        BY_HAND[count].connect(_call_by_hand(), weak=False)
        OURS[count].connect(receive, deferred=True)

text_sent = Signal()
text_sent.connect(take_text, deferred=True)


def per_transaction(broker: Broker, count: int) -> Comparison:
    """So many deliveries that a round takes a minute: one of them, of the ways that are left."""
    sides = Sides(broker, count)
    return Comparison(
        f"delivery_{count}",
        f"{count:,} deliveries per transaction, Redis",
        [sides.by_hand(), sides.ours({}), *sides.ours_in_batches(), sides.batch_task()],
        rounds=1,
        level=1,
        twice=False,
        stage=partial(staged, broker),
        missing=deferred.missing,
    )


def _sends(signal: Signal, **kwargs: Any) -> Callable[[int], None]:
    def work(times: int) -> None:
        for _ in range(times):
            with transaction.atomic():
                signal.send(Row, **kwargs)

    return work


def _to_receivers(signal: Signal) -> Callable[[int], None]:
    return _sends(signal, instance=Row.from_db("default", ["id", "text"], [1, "text"]))


def per_signal(broker: Broker, count: int) -> Comparison:
    """So many receivers of one send."""

    def expect(times: int) -> None:
        broker.expect(times * count)

    return Comparison(
        f"receivers_{count}",
        f"1 send per transaction to {count} receiver{'s' * (count != 1)}, Redis",
        [
            Way(by_hand.LAMBDA, _to_receivers(BY_HAND[count]), after=expect),
            Way(deferred.DEFERRED, _to_receivers(OURS[count]), after=expect, kind="ours"),
        ],
        stage=partial(staged, broker),
    )


def five_receivers(broker: Broker) -> Comparison:
    """What the second to fifth receiver of a send add."""

    def expect(count: int, times: int) -> None:
        broker.expect(times * count)

    def way(name: str, signals: dict[int, Signal], count: int, **more: Any) -> Way:
        return Way(name, _to_receivers(signals[count]), after=partial(expect, count), **more)

    return Comparison(
        "five_receivers",
        "1 send per transaction to five receivers beside one, Redis",
        [
            way("one deferred receiver", OURS, 1),
            way("five deferred receivers", OURS, 5, kind="ours", bar=FIVE, stretch=FIVE_STRETCH),
            way("five by hand", BY_HAND, 5, kind="rival"),
        ],
        stage=partial(staged, broker),
    )


def per_payload(broker: Broker, size: int) -> Comparison:
    """So many bytes in one delivery."""
    text = "x" * size

    def call(times: int) -> None:
        for _ in range(times):
            with transaction.atomic():
                transaction.on_commit(lambda: handle_text.delay(text))

    ours = _sends(text_sent, text=text)
    limit = Limit(broker, partial(ours, 1), 1)
    return Comparison(
        f"payload_{size}",
        f"1 delivery of {size:,} bytes, Redis",
        [
            Way("on_commit(lambda: task.delay(text))", call, after=broker.expect),
            Way(deferred.DEFERRED, ours, after=broker.expect, kind="ours"),
            limit.way(),
        ],
        stage=partial(staged, broker, (), limit),
    )


def comparisons(stage: Stage) -> list[Comparison]:
    """The curves beyond what ``delivery`` has of them."""
    broker = Broker(stage, "redis")
    return [
        *(per_transaction(broker, count) for count in COUNTS),
        *(per_signal(broker, count) for count in RECEIVERS),
        five_receivers(broker),
        *(per_payload(broker, size) for size in PAYLOADS),
    ]
