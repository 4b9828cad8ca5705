"""``python -m benchmarks.anatomy``: where the time of a send, a message and a run goes, by who takes it.

Each is done many times without a profiler, which tells what one takes, and then with one, which tells the shares. A
profiler makes many small calls look dearer than they are, and what C code takes cheaper.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"

import django

django.setup()

from django.db import connection, transaction
from django.test.utils import override_settings

from benchmarks import receiving
from benchmarks.models import Row
from benchmarks.stage import Broker, Stage
from deferred_signals import backends
from deferred_signals.backends.broker import connect
from deferred_signals.backends.flush import Flush
from deferred_signals.backends.memory import MemoryBackend
from deferred_signals.backends.messenger import Messenger
from deferred_signals.batch_run import run_all
from deferred_signals.delivery import Delivery

COUNT, ROUNDS = 1000, 15
PACKAGE = Path(backends.__file__).resolve().parents[1]
#: Others by the folder that is theirs.
OTHERS = ("django", "kombu", "celery", "redis", "amqp", "json", "benchmarks")


def _owner(file: str) -> str:
    """Who a function belongs to: our module, another package, or Python itself."""
    path = Path(file)
    if path.is_relative_to(PACKAGE):
        return f"deferred_signals/{path.relative_to(PACKAGE)}"
    return next((name for name in OTHERS if name in path.parts), "Python")


def anatomy(title: str, work: Callable[[], Any]) -> list[str]:
    """Lines of Markdown: what one of the thousand takes, and whose that is."""
    best = min(_timed(work) for _ in range(ROUNDS))
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(3):
        work()
    profiler.disable()
    shares: Counter[str] = Counter()
    for (file, _, _), (_, _, own, _, callers) in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
        if file == "~":
            # Of C functions, it counts for who has called them.
            for (caller, _, _), (_, _, part, _) in callers.items():
                shares[_owner(caller)] += part
        else:
            shares[_owner(file)] += own
    total = sum(shares.values())
    lines = [f"**{title}: {best * 1e6 / COUNT:.1f} µs of CPU time**", "", "| share | of |", "|---:|---|"]
    lines += [f"| {share / total:.0%} | `{owner}` |" for owner, share in shares.most_common(10)]
    return [*lines, ""]


def _timed(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _rows() -> list[Row]:
    return [Row.from_db("default", ["id", "text"], [pk, "text"]) for pk in range(1, COUNT + 1)]


def _send(signal: Any, rows: list[Row]) -> list[Any]:
    memory = backends.current()
    assert isinstance(memory, MemoryBackend)
    memory.payloads.clear()
    with transaction.atomic():
        for row in rows:
            signal.send(Row, instance=row)
    return memory.payloads


def _publishing(messenger: Messenger, deliveries: list[Delivery]) -> Callable[[], None]:
    flush = Flush(deliveries, {}, is_plain=True)
    messenger.send(deliveries[0], flush)

    def publish() -> None:
        with messenger.producer.together():
            for delivery in deliveries:
                messenger.send(delivery, flush)

    return publish


def main() -> None:
    """Print it."""
    rows = _rows()
    with connection.schema_editor() as editor:
        editor.create_model(Row)
    Row.objects.bulk_create(_rows())
    many: Any = receiving.BATCHES[""]
    receiving.stamp = lambda pk: None
    lines: list[str] = []
    with override_settings(DEFERRED_SIGNALS={"BACKEND": "memory"}):
        title = "A send in a transaction, with batch_size=100, up to the end of the commit"
        lines += anatomy(title, lambda: _send(many, rows))
        batches = list(_send(many, rows))
        lines += anatomy("A run, in batches of a hundred", lambda: [run_all(payload) for _, payload in batches])
        alone = list(_send(receiving.one_sent, rows))
        lines += anatomy("A run, by itself", lambda: [run_all(payload) for _, payload in alone])
    with Stage(quick=True) as stage:
        broker = Broker(stage, "redis")
        with broker.current():
            messenger = Messenger(broker.app, connect(broker.app, 5.0))
            for title, sent in (("A message to Redis", alone), ("Its part of a message for a hundred", batches)):
                lines += anatomy(title, _publishing(messenger, [delivery for delivery, _ in sent]))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
