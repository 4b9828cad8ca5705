"""What durable deliveries cost the sender, on PostgreSQL and Redis, beside tasks called by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from django.core.management import call_command
from django.db import connections, transaction
from django.db.models.signals import post_save

from deferred_signals.outbox import together
from deferred_signals.outbox.models import OutboxDelivery
from deferred_signals.outbox.ringing import AT_ONCE

from . import by_hand, deferred, peers
from .dispatch import USUAL
from .measure import Comparison, Way
from .models import ByHandRow, DeferredRow, DurableRow, Row
from .stage import Broker, Stage

#: The database of everything durable.
ALIAS = "postgresql"

#: What a thousand durable deliveries of one transaction may cost of what on_commit(lambda: task.delay(pk)) costs: sent
#: one by one, and written together.
BAR, BAR_TOGETHER = 0.35, 0.10


def create_tables(stage: Stage, alias: str = ALIAS) -> None:
    """Have PostgreSQL with the outbox's tables. Raises NotMeasured."""
    _ = stage.postgresql
    stage.once(
        (__name__, alias), lambda: call_command("migrate", "deferred_signals_outbox", database=alias, verbosity=0)
    )


@contextmanager
def staged(broker: Broker, senders: Sequence[peers.Sender] = ()) -> Iterator[None]:
    """Have PostgreSQL with all tables, and the broker's app as the current one. Raises NotMeasured."""
    create_tables(broker.stage)
    with broker.current():
        for sender in senders:
            sender.prepare()
        yield


def truncate() -> int:
    """Empty the outbox; return how many rows there were."""
    count = OutboxDelivery.objects.using(ALIAS).count()
    with connections[ALIAS].cursor() as cursor:
        cursor.execute(f"TRUNCATE {OutboxDelivery._meta.db_table} RESTART IDENTITY")
    return count


def _sends(
    model: type[Row], count: int, block: Callable[..., object], send: Callable[[Row], object] | None = None
) -> Callable[[int], None]:
    rows = [model.from_db(ALIAS, ["id", "text"], [pk, "text"]) for pk in range(1, count + 1)]
    usual = {**USUAL, "using": ALIAS}
    each = send or (lambda row: post_save.send(sender=model, instance=row, **usual))

    def work(times: int) -> None:
        for _ in range(times):
            with block(using=ALIAS):  # type: ignore[attr-defined]
                for row in rows:
                    each(row)

    return work


def _compare(broker: Broker, senders: Sequence[peers.Sender], count: int) -> Comparison:
    def messages(times: int) -> None:
        broker.expect(times * count)

    def doorbells(times: int) -> None:
        broker.expect(times * -(-count // AT_ONCE))
        if (found := truncate()) != times * count:
            raise RuntimeError(f"{found} rows were written where {times * count} should have been.")

    def rows(sender: peers.Sender, times: int) -> None:
        sender.expect(times * count)

    atomic, at_scale = transaction.atomic, count >= 1000
    return Comparison(
        f"durable_{count}",
        f"{count:,} deliver{'y' if count == 1 else 'ies'} per transaction, on PostgreSQL",
        [
            Way(by_hand.LAMBDA, _sends(ByHandRow, count, atomic), after=messages),
            Way(deferred.DEFERRED, _sends(DeferredRow, count, atomic), after=messages),
            Way(
                "durable=True",
                _sends(DurableRow, count, atomic),
                after=doorbells,
                kind="ours",
                bar=BAR if at_scale else None,
            ),
            Way(
                "durable=True, in together()",
                _sends(DurableRow, count, together),
                after=doorbells,
                kind="ours",
                bar=BAR_TOGETHER if at_scale else None,
            ),
            *(
                Way(one.name, _sends(one.rows, count, atomic, one.send), after=partial(rows, one), kind="rival")
                for one in senders
            ),
        ],
        own=Way("no receiver (the transaction's own cost)", _sends(Row, count, atomic)),
        stage=partial(staged, broker, senders),
        rounds=2 if broker.stage.quick else 3,
    )


def comparisons(stage: Stage) -> list[Comparison]:
    """One, ten, a hundred and a thousand deliveries in one transaction, up to the end of the commit's hooks."""
    broker = Broker(stage, "redis")
    senders = peers.senders(broker, "django-domain-events", alias=ALIAS)
    return [_compare(broker, senders, count) for count in (1, 10, 100, 1000)]
