"""What ``manage.py deferred_doctor`` says of the outbox: the tables, what waits, who rings, what is stuck."""

from __future__ import annotations

from django.db import Error as DatabaseDriverError
from django.db import connections, router

from deferred_signals import conf, keeping
from deferred_signals.doctor.findings import Mark, Section
from deferred_signals.exceptions import ConfigurationError

from .checks import senders, settings_are_right
from .clock import DatabaseNow, SecondsFromNow
from .keyed import blocked
from .leader import NAME
from .models import Lock, OutboxDelivery, State
from .parked import parked

#: So many times RING_AGAIN, a delivery that is due may wait without a word of ours.
_PATIENCE = 2
#: How many parked keys are named.
_NAMED = 3


def examine() -> Section:
    """Look at each database that has the tables, or needs them. Raises nothing for what it finds."""
    section = Section("Outbox")
    if not settings_are_right():
        section.add("note", "Not looked at. DEFERRED_SIGNALS is wrong.")
        return section
    needed = senders()
    for alias in connections:
        if not router.allow_migrate_model(alias, OutboxDelivery):
            continue  # a replica; if something durable is sent there, a system check says so
        try:
            keeping.required().check(alias)
        except ConfigurationError as error:
            if alias in needed:
                section.add("problem", f"{alias}: durable deliveries cannot be sent.", str(error))
        except DatabaseDriverError as error:
            _no_answer(section, alias, error)
        else:
            _look_into(section, alias)
    if not section.findings:
        section.add("problem", "No database has the tables.", "manage.py migrate deferred_signals_outbox")
    return section


def _look_into(section: Section, alias: str) -> None:
    try:
        open_ones = _unfinished(section, alias)
        _dead(section, alias)
        _relay(section, alias, open_ones)
    except DatabaseDriverError as error:
        _no_answer(section, alias, error)


def _no_answer(section: Section, alias: str, error: Exception) -> None:
    text = f"{alias}: the database does not answer: {type(error).__name__}: {error}"
    section.add("problem", text, "Durable deliveries cannot be sent nor run without it.")


def _unfinished(section: Section, alias: str) -> int:
    """What waits and what runs; return how many. By the index on ``ring_at``, which finished rows have not."""
    rows = OutboxDelivery.objects.using(alias).filter(ring_at__isnull=False)
    waiting, running = rows.filter(state=State.PENDING), rows.filter(state=State.RUNNING)
    patience = _PATIENCE * conf.current().ring_again
    runnable = waiting.filter(due__lte=DatabaseNow()).exclude(blocked(alias))
    since = runnable.order_by("due").values_list(SecondsFromNow("due"), flat=True).first()
    waited = -(since or 0.0)
    numbers = waiting.count(), running.count()
    wait, run = ("delivery waits" if numbers[0] == 1 else "deliveries wait"), ("runs" if numbers[1] == 1 else "run")
    text = f"{alias}: {numbers[0]:,} {wait} and {numbers[1]:,} {run}"
    mark: Mark = "ok" if waited <= patience else "warning"
    section.add(
        mark,
        text + (f"; the oldest that could run has been due for {waited:,.0f} s." if since is not None else "."),
        "" if mark == "ok" else "Are there workers for their queues (see Queues), enough of them, and a relay?",
    )
    if lost := running.filter(due__lt=DatabaseNow(-patience)).count():
        section.add(
            "warning",
            f"{alias}: {lost:,} of those that run have lost their worker, and no other one has taken them.",
            "As above.",
        )
    return sum(numbers)


def _dead(section: Section, alias: str) -> None:
    dead = OutboxDelivery.objects.using(alias).filter(state=State.DEAD).count()
    if dead:
        section.add(
            "warning",
            f"{alias}: {dead:,} dead {'delivery is' if dead == 1 else 'deliveries are'} kept.",
            "manage.py redeliver --all --dry-run shows of what they died; manage.py discard_deliveries ends them.",
        )
    stuck = [one for one in parked(alias) if one.waiting]
    for one in stuck[:_NAMED]:
        section.add(
            "warning",
            f"{alias}: the key {one.key!r} is parked by a dead delivery, and {one.waiting:,} wait behind it.",
            f"manage.py redeliver {one.dead.delivery_id}, or discard_deliveries",
        )
    if len(stuck) > _NAMED:
        section.add("warning", f"{alias}: {len(stuck) - _NAMED:,} more keys are parked.")


def _relay(section: Section, alias: str, open_ones: int) -> None:
    leader = Lock.objects.using(alias).filter(name=NAME, until__gt=DatabaseNow()).first()
    if leader is not None:
        section.add("ok", f"{alias}: the relay is {leader.holder.partition(' ')[0]}.")
        return
    by_workers = conf.current().relay
    cure = "Start a worker, which runs the relay by itself" if by_workers else "RELAY is False: keep one running"
    section.add(
        "problem" if open_ones else "warning",
        f"{alias}: no relay is at work: retries, and what a lost worker or broker has left, would wait for ever.",
        f"{cure}, or manage.py relay_outbox.",
    )
