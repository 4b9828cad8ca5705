"""Whether deliveries get on: for a load balancer, an uptime check, a container's probe.

A few cheap questions with thresholds, an answer for machines, and nothing in it that is worth protecting but numbers.
What to do about a problem is the doctor's to say (``manage.py deferred_doctor``).
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack
from importlib import import_module
from typing import Any, NamedTuple

from django.db import Error as DatabaseDriverError
from django.db import connections, transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from . import keeping
from .celery_project import current_app, unreadable
from .doctor.patience import NoAnswer, within
from .exceptions import ConfigurationError

#: Seconds for which the broker is asked where that is all there is to ask.
PATIENCE = 2.0


class Health(NamedTuple):
    """The answer: as an HTTP status, 200 or 503, and as what can be written as JSON."""

    status: int
    report: dict[str, Any]


def health(
    *, oldest: float | None = 300, dead: int | None = None, relay: bool = True, broker: float | None = None
) -> Health:
    """Ask each database that has the outbox, and the broker; never raises, and never waits for the broker for long.

    ``oldest``: for how many seconds a delivery that could run may have been due. ``dead``: how many dead ones may be
    kept. ``relay``: whether one must be at work. None, or False, does not ask. ``broker``: for how many seconds to wait
    for it; None does not ask, unless there is no outbox to ask instead.
    """
    problems: list[str] = []
    report: dict[str, Any] = {"healthy": True, "problems": problems}
    if keeping.current() is None:
        broker = PATIENCE if broker is None else broker
    else:
        report["databases"] = _databases(problems, oldest, dead, relay)
    if broker is not None:
        report["broker"] = said = _broker(broker)
        if said not in _FINE:
            problems.append(f"The broker {said}.")
    report["healthy"] = not problems
    return Health(503 if problems else 200, report)


@never_cache
@require_safe
def view(request: HttpRequest, **thresholds: Any) -> JsonResponse:
    """The same over HTTP. The thresholds are arguments of the route: ``path("...", view, {"oldest": 600})``.

    Anybody who reaches it can read it, so let only your own network do so, or wrap it.
    """
    found = health(**thresholds)
    return JsonResponse(found.report, status=found.status)


for _alias in connections:
    # With ATOMIC_REQUESTS one that is away would fail before we are asked. Who wraps the view takes this over.
    transaction.non_atomic_requests(using=_alias)(view)


def _databases(problems: list[str], oldest: float | None, dead: int | None, relay: bool) -> dict[str, Any]:
    # An app of its own, which need not be installed.
    figures = import_module("deferred_signals.outbox.figures")
    found: dict[str, Any] = {}
    for alias in figures.aliases():
        try:
            figures.check(alias)
            found[alias] = seen = {}
            if oldest is not None:
                seen["oldest_pending_seconds"] = waits = round(figures.oldest(alias), 3)
                if waits > oldest:
                    problems.append(f"{alias}: a delivery has been due for {waits:.0f} s (more than {oldest:g}).")
            if dead is not None:
                # Of more than too many, nobody needs the number.
                seen["dead"] = count = figures.dead(alias, dead + 1)
                if count > dead:
                    problems.append(f"{alias}: more than {dead} dead deliveries are kept.")
            if relay:
                seen["relay"] = figures.relay(alias).leads
                if not seen["relay"]:
                    problems.append(f"{alias}: no relay is at work.")
        except ConfigurationError:
            found.pop(alias, None)  # it has no tables
        except DatabaseDriverError:
            found[alias] = None
            problems.append(f"{alias}: the database does not answer.")
    if not found:
        problems.append("No database has the tables of the outbox.")
    return found


_ANSWERS, _NOT_USED = "answers", "is not used"
_FINE = {_ANSWERS, _NOT_USED}
#: Held while the broker is asked: each question to one that is frozen leaves a thread behind, so there is one of them.
#: By the process, for in a child that is forked meanwhile nobody would ever let go of its parent's.
_asked: dict[int, threading.Lock] = {}


def _broker(patience: float) -> str:
    app = current_app()
    if app is None:
        return _NOT_USED
    if unreadable(app) is not None:
        return "cannot be told, for Celery's settings cannot be read"
    if app.conf.task_always_eager:
        return _NOT_USED
    until = time.monotonic() + patience
    asked = _asked.setdefault(os.getpid(), threading.Lock())
    if not asked.acquire(timeout=max(0.0, patience)):  # less than nothing would be for ever
        return "does not answer"
    turn = ExitStack()
    turn.callback(asked.release)

    def ask() -> None:
        with turn, app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)

    try:
        within(max(0.0, until - time.monotonic()), ask)
    except NoAnswer:
        return "does not answer"
    except Exception:  # noqa: BLE001 - each client library has its own; their texts may name users and passwords
        turn.close()  # nothing is left to let go, unless the thread could not be started
        return "cannot be reached"
    return _ANSWERS
