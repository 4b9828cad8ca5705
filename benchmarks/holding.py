"""A process that sends in a transaction, and what that takes: ``python -m benchmarks.holding WAY COUNT WHAT [commit]``.

WHAT is ``traced``, what Python has allocated; ``grown``, by how much the process has grown; or ``peak``, by how much at
most. Without ``commit`` the transaction is rolled back.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import tracemalloc
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"

import django

django.setup()

from django.db import transaction
from django.db.models.signals import post_save

from deferred_signals.outbox import together

from . import by_hand, deferred  # noqa: F401 - their receivers
from .dispatch import USUAL
from .durable import ALIAS
from .models import BatchRow, BatchTaskRow, ByHandRow, DeferredRow, DelayOnCommitRow, DurableRow, Row
from .stage import celery_app

WAYS: dict[str, type[Row]] = {
    "by_hand": ByHandRow,
    "on_commit": DelayOnCommitRow,
    "deferred": DeferredRow,
    "batch": BatchRow,
    "collect": BatchTaskRow,
    "durable": DurableRow,
}


def _grown() -> int:
    """Bytes of memory that the process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _peak() -> int:
    """Bytes that it had at most since ``_forget_peak``; what getrusage tells begins with the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _traced() -> int:
    return tracemalloc.get_traced_memory()[0]


def held(way: str, count: int, what: str, *, commit: bool) -> int:
    """Send so many; return the bytes that were taken in the end, or at most."""
    model, alias = WAYS[way], ALIAS if way == "durable" else "default"
    usual = {**USUAL, "using": alias}

    def row(pk: int) -> Row:
        return model.from_db(alias, ["id", "text"], [pk, "text"])

    def send(row: Row) -> None:
        post_save.send(sender=model, instance=row, **usual)

    with transaction.atomic(using=alias):  # whatever is made at the first send
        send(row(1))
        transaction.set_rollback(not commit, using=alias)
    rows: Iterable[Row] = map(row, range(1, count + 1))
    if what == "traced":
        tracemalloc.start()
    if what != "peak":
        rows = list(rows)  # they are the application's, which holds them anyway
    gc.collect()
    gc.freeze()
    measure = {"traced": _traced, "grown": _grown, "peak": _peak}[what]
    block: AbstractContextManager[object] = together(alias) if way == "durable" else transaction.atomic(using=alias)
    _forget_peak()
    before = measure()
    with block:
        for one in rows:
            send(one)
        after = measure()
        transaction.set_rollback(not commit, using=alias)
    return (measure() if commit else after) - before


def main() -> None:
    """Run what the command line says."""
    way, count, what, *more = sys.argv[1:]
    celery_app(os.environ.get("BENCH_BROKER", "memory://")).set_default()
    print(json.dumps(held(way, int(count), what, commit="commit" in more)))
    sys.stdout.flush()
    os._exit(0)  # what is freed one by one takes longer than all of this


if __name__ == "__main__":
    main()
