"""A process of its own that sends and runs durable deliveries on command; it stops, or is killed, at named points.

``python -m tests.outbox.process``: what it does comes in lines, see ``tests.integration.commands``. The environment
names the database (``PROCESS_DATABASE``), options of the connection (``PROCESS_OPTIONS``, JSON) and the directory where
it says that it has stopped (``PROCESS_HOME``).
"""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command
from django.db import connection, transaction

from tests.integration.commands import serve

DEADLINE = 60.0


def prepare() -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    database = settings.DATABASES["default"]
    database |= json.loads(os.environ["PROCESS_DATABASE"])
    database["OPTIONS"] = json.loads(os.environ.get("PROCESS_OPTIONS", "{}"))
    settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "OUTSIDE_TRANSACTION": "ignore"}
    django.setup()
    from deferred_signals.outbox import answering, remainder

    from . import effects

    # Each step is taken by hand: nothing happens since a moment has passed.
    remainder.PATIENCE = answering.LONGEST = 3600.0
    effects.connect_all()


def migrate() -> None:
    call_command("migrate", run_syncdb=True, verbosity=0)


def clear() -> None:
    """Begin anew: no rows, no effects, no points."""
    from deferred_signals import failpoints
    from deferred_signals.outbox.models import OutboxDelivery
    from tests.shop.models import Article, Customer

    failpoints.actions.clear()
    OutboxDelivery.objects.all().delete()
    Customer.objects.all().delete()
    Article.objects.all().delete()
    Article.objects.create(title="tea")


def send(kind: str, count: int = 1) -> list[str]:
    from .effects import SIGNALS

    with transaction.atomic():
        return [response.id for _ in range(count) for _, response in SIGNALS[kind].send(sender=None)]


def answer(ids: Sequence[str] = ()) -> list[str]:
    """What a worker does that is rung for these, by default for all rows; how each run ended."""
    from .holding import ring, states

    return states(ring(*map(uuid.UUID, ids)))


def expire() -> None:
    from .holding import expire as expire_all

    expire_all()


def bump() -> None:
    """What another transaction does that the receiver's must not overlook."""
    from django.db.models import F

    from tests.shop.models import Article

    Article.objects.update(stock=F("stock") + 100)


def seen() -> dict[str, Any]:
    from deferred_signals.outbox.models import OutboxDelivery
    from tests.shop.models import Customer

    rows = OutboxDelivery.objects.order_by("number").values("state", "lease", "crashes", "attempt")
    return {"rows": list(rows), "effects": Customer.objects.count()}


def disturbs() -> bool:
    from deferred_signals.outbox import renewal

    return renewal._disturbs("default")


def backend() -> int:
    """The id of this process's session at the server."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()" if connection.vendor == "postgresql" else "SELECT CONNECTION_ID()")
        return int(cursor.fetchone()[0])


def unfence() -> None:
    """Have ends be written whoever holds the row: what the lease is there to prevent."""
    from deferred_signals.outbox.lease import Claim
    from deferred_signals.outbox.models import OutboxDelivery

    def anybodys(self: Claim) -> Any:
        return OutboxDelivery.objects.using(self.alias).filter(number=self.row.number)

    Claim.mine = property(anybodys)  # type: ignore[assignment]


def at(point: str, action: str) -> None:
    """At its next coming to this point: ``kill`` or ``stop``, which waits until the test says to go on."""
    from deferred_signals import failpoints

    def once() -> None:
        del failpoints.actions[point]
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        home = Path(os.environ["PROCESS_HOME"])
        (home / "stopped").touch()
        deadline = time.monotonic() + DEADLINE
        while not (home / "go on").exists():
            assert time.monotonic() < deadline, "nobody says to go on"
            time.sleep(0.005)
        for name in ("stopped", "go on"):
            (home / name).unlink()

    failpoints.actions[point] = once


def scenario(name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = globals()[name]
    return found


if __name__ == "__main__":
    prepare()
    serve(scenario)
