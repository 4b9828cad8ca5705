"""What the relay does in a second and in an idle minute, and what a million finished rows change."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from django.db import connections
from django.test.utils import CaptureQueriesContext

from deferred_signals.outbox.batch import drain, ring_batch
from deferred_signals.outbox.lease import Claim, claim
from deferred_signals.outbox.models import OutboxDelivery
from deferred_signals.outbox.pruning import prune
from deferred_signals.outbox.ringing import AT_ONCE
from tests.servers import RabbitMQ

from .durable import ALIAS, create_tables, staged, truncate
from .measure import Comparison, Way
from .stage import Broker, Stage
from .worker import Measured

#: The database with the finished rows, and how many they are.
FULL = "full"
FINISHED = 1_000_000
#: Rows that the relay rings for.
DUE = 10_000
#: Rows of one batch that is rung for or pruned beside the finished ones.
SOME = 100

_COLUMNS = """
    delivery_id, origin, state, receiver, signal, payload, created, due, ring_at, finished, rings, lease, worker, loss,
    attempt, crashes, error_type, error, traceback
"""


def fill(alias: str, count: int, state: str, due: str, finished: str) -> None:
    """Write rows; ``due`` and ``finished`` are SQL, in which ``n`` is the row's number."""
    with connections[alias].cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {OutboxDelivery._meta.db_table} ({_COLUMNS}) "
            "SELECT gen_random_uuid(), 'durable', %s, 'benchmarks.deferred.durable', "
            "'django.db.models.signals.post_save', repeat('payload ', 60), now() - interval '3 days', "
            f"{due}, {due}, {finished}, 0, 1, '', '', 1, 0, '', '', '' FROM generate_series(1, %s) AS n",
            [state, count],
        )


def _drain(broker: Broker) -> tuple[float, ...]:
    with broker.current():
        return _drained(broker)


def _drained(broker: Broker) -> tuple[float, ...]:
    fill(ALIAS, DUE, "pending", "now()", "NULL")
    ring_batch(ALIAS, 1)  # makes the connection
    cpu, start = time.process_time(), time.perf_counter()
    rung = drain([ALIAS])[ALIAS].rung
    taken = time.perf_counter() - start, time.process_time() - cpu
    if rung != DUE - 1:
        raise RuntimeError(f"{rung} of {DUE - 1} rows were rung for.")
    broker.expect(1 + -(-rung // AT_ONCE))
    truncate()
    return tuple(seconds / DUE for seconds in taken)


def _claim(alias: str) -> tuple[float, ...]:
    fill(alias, 1, "pending", "now()", "NULL")
    key = OutboxDelivery.objects.using(alias).filter(state="pending").values_list("delivery_id", flat=True)[0]
    start = time.perf_counter()
    held = claim(alias, key)
    taken = time.perf_counter() - start
    if not isinstance(held, Claim):
        raise TypeError("The row was not there to be claimed.")
    held.complete()
    return (taken,)


def _ring(alias: str) -> tuple[float, ...]:
    fill(alias, SOME, "pending", "now()", "NULL")
    start = time.perf_counter()
    rung = ring_batch(alias).rung
    taken = time.perf_counter() - start
    if rung != SOME:
        raise RuntimeError(f"{rung} rows were rung for.")
    OutboxDelivery.objects.using(alias).filter(state="pending").update(state="discarded", due=None, ring_at=None)
    return (taken,)


def _prune(alias: str) -> tuple[float, ...]:
    fill(alias, SOME, "succeeded", "NULL", "now() - interval '2 days'")
    start = time.perf_counter()
    pruned = prune(alias, 86400)
    taken = time.perf_counter() - start
    if pruned != SOME:
        raise RuntimeError(f"{pruned} rows were pruned.")
    return (taken,)


def relay_comparisons(stage: Stage) -> list[Comparison]:
    """How fast the relay rings."""
    redis, rabbitmq = Broker(stage, "redis"), Broker(stage, "rabbitmq")
    ways, missing = [Way("to Redis", sample=partial(_drain, redis))], {}
    if why := RabbitMQ.missing():
        missing["the relay to RabbitMQ"] = why
    else:
        ways.append(Way("to RabbitMQ", sample=partial(_drain, rabbitmq)))
    title = f"{DUE:,} rows that are due, rung for by the relay; for each"
    return [
        Comparison(
            "relay",
            title,
            ways,
            stage=partial(staged, redis),
            facts=lambda: [idle(stage.home, redis.url, 15 if stage.quick else 60)],
            missing=missing,
        )
    ]


def _fill_full(stage: Stage) -> None:
    for alias in (ALIAS, FULL):
        create_tables(stage, alias)
    fill(FULL, FINISHED, "succeeded", "NULL", "now() - n * interval '0.05 s'")
    for alias in (ALIAS, FULL):
        with connections[alias].cursor() as cursor:
            cursor.execute(f"VACUUM ANALYZE {OutboxDelivery._meta.db_table}")


@contextmanager
def _beside_finished(broker: Broker) -> Iterator[None]:
    with staged(broker):
        broker.stage.once(_fill_full, partial(_fill_full, broker.stage))
        yield


def table_comparisons(stage: Stage) -> list[Comparison]:
    """What is done all the time, in an empty table and in one with a million finished rows."""
    broker = Broker(stage, "redis")
    work: dict[str, tuple[str, Callable[[str], tuple[float, ...]]]] = {
        "claim": ("claim a row", _claim),
        "ring": (f"ring for {SOME} rows that are due, to Redis", _ring),
        "prune": (f"prune {SOME} rows", _prune),
    }
    return [
        Comparison(
            f"table_{key}",
            title,
            [
                Way("no finished rows", sample=partial(sample, ALIAS)),
                Way(f"{FINISHED:,} finished rows", sample=partial(sample, FULL)),
            ],
            stage=partial(_beside_finished, broker),
            level=1,
            facts=plans if key == "prune" else tuple,
        )
        for key, (title, sample) in work.items()
    ]


def plans() -> Sequence[str]:
    """How PostgreSQL finds the rows among the finished ones."""
    lines: list[str] = []
    fill(FULL, 1, "pending", "now()", "NULL")
    for name, work in (
        ("claim", lambda: claim(FULL, uuid.uuid4())),
        ("relay", lambda: ring_batch(FULL)),
        ("prune", lambda: prune(FULL, 86400)),
    ):
        with CaptureQueriesContext(connections[FULL]) as queries:
            work()
        sql = next(query["sql"] for query in queries if query["sql"].startswith("SELECT"))
        with connections[FULL].cursor() as cursor:
            cursor.execute(f"EXPLAIN {sql}")
            lines += [f"{name}: {sql[sql.index(' WHERE') + 1 :]}", *(f"    {row[0]}" for row in cursor.fetchall())]
    return lines


def idle(home: Path, broker: str, seconds: float) -> str:
    """What a relay takes that has nothing to do."""
    program = (
        "import benchmarks.worker, sys; from django.core.management import execute_from_command_line as run; "
        f"run(['manage', 'relay_outbox', '--database', {ALIAS!r}])"
    )
    env = {"BENCH_BROKER": broker, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    relay = Measured([sys.executable, "-u", "-c", program], home=home, env=env)
    relay.ready_line = "Relay of"  # type: ignore[misc]  # of this one
    relay.wait_ready()
    try:
        time.sleep(3)  # takes the lead, looks for what is to be pruned
        before = relay.cpu_seconds(), _transactions(), time.monotonic()
        time.sleep(seconds)
        cpu, transactions, now = relay.cpu_seconds(), _transactions(), time.monotonic()
    finally:
        relay.stop()
        relay.remove()
    taken = now - before[2]
    return (
        f"An idle relay: {(cpu - before[0]) / taken * 60:.2f} s of CPU time in a minute, "
        f"{(transactions - before[1]) / taken:.2f} queries in a second (measured for {taken:.0f} s)."
    )


def _transactions() -> int:
    time.sleep(1.5)  # sessions tell of theirs a second later at most
    with connections[ALIAS].cursor() as cursor:
        cursor.execute("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()")
        found: Any = cursor.fetchone()
    return int(found[0])
