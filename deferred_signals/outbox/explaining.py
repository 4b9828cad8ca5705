"""Where one delivery of the outbox is, why it was not delivered yet, what happens next, and what can be done."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from deferred_signals import conf, registry
from deferred_signals.exceptions import NotYetKnown

from . import keyed
from .clock import DatabaseNow
from .explanation import Explanation
from .leader import NAME
from .models import Lock, OutboxDelivery, State
from .precedence import before, waiting_behind
from .resolving import problem_of
from .rows import id_of


def explain(alias: str, key: str) -> Explanation | None:
    """What is known of a delivery by its id; None where the database has no row of it. Raises the database's error."""
    rows = OutboxDelivery.objects.using(alias).annotate(now=DatabaseNow())
    row: Any = rows.filter(delivery_id=id_of(key)).first()
    if row is None:
        return None
    made = Explanation(alias, row, row.now)
    _TELL[State(row.state)](made)
    return made


def _tell_succeeded(made: Explanation) -> None:
    made.why.append("It has succeeded.")
    _tell_pruning(made)


def _tell_discarded(made: Explanation) -> None:
    made.why.append(f"It was discarded: {made.row.error or 'on purpose'}")
    _tell_pruning(made)


def _tell_pruning(made: Explanation) -> None:
    retention = conf.current().retention
    if retention is None or made.row.finished is None:
        made.next = "Nothing; the row stays until it is pruned by hand (RETENTION is None)."
        return
    made.next = "Nothing; the relay deletes the row."
    made.at = made.row.finished + timedelta(seconds=retention)


def _tell_dead(made: Explanation) -> None:
    row = made.row
    if not row.receiver:
        made.why.append(f"Its payload could not be opened: {row.error}")
        made.cures.append(
            "Was a key of SIGNING_KEYS or SECRET_KEY_FALLBACKS taken away? Put it back, and redeliver it."
        )
    else:
        made.why.append(f"It is dead since attempt {row.attempt}: {row.error_type}: {row.error}")
    if waiting := waiting_behind(made.database, row):
        made.why.append(f"It parks the key {row.order_key!r}: {waiting:,} {_wait(waiting)} behind it.")
    made.next = "Nothing, until somebody redelivers or discards it."
    _tell_problem(made)
    made.cures += [f"manage.py redeliver {row.delivery_id}", f"manage.py discard_deliveries {row.delivery_id}"]


def _wait(number: int) -> str:
    return "delivery waits" if number == 1 else "deliveries wait"


def _tell_problem(made: Explanation) -> None:
    """Say what keeps it from being run in this release."""
    if (problem := problem_of(made.row.payload)) is not None:
        made.why.append(f"This release could not run it: {problem.reason}")
        made.cures.append("manage.py check_deliveries shows which others are concerned.")


def _tell_running(made: Explanation) -> None:
    row = made.row
    if row.due is not None and row.due > made.now:
        made.why.append(f"The worker {row.worker} has it, and runs attempt {row.attempt}.")
        made.next = "It ends; or its worker renews the lease, or is lost, and another one takes it when the lease ends."
        made.at = row.due
        return
    loss = f" ({row.loss})" if row.loss else ""
    made.why.append(f"The worker {row.worker} had it and was lost{loss}: its lease has ended, and it was not renewed.")
    made.next = "The relay rings for it, and another worker runs it again."
    made.at = row.ring_at
    _tell_relay(made)


def _tell_pending(made: Explanation) -> None:
    row = made.row
    if row.crashes:
        limit = conf.current().crash_limit
        made.why.append(f"Workers in a row that did not finish it: {row.crashes}. At {limit} it is dead (CRASH_LIMIT).")
    if row.due is not None and row.due > made.now:
        made.why.append(_waits_for_its_time(row))
        made.next = "The relay rings for it."
        made.at = row.ring_at
    elif not _tell_turn(made):
        made.why.append(f"It is due, and no worker has taken it. Rings of the relay so far: {row.rings}.")
        made.next = "The relay rings for it again, if no worker takes it before."
        made.at = row.ring_at
        queue = _queue(row)
        made.cures.append(
            f"Is there a worker for the queue {queue!r}? manage.py deferred_doctor looks."
            if queue
            else "Is there a worker for its queue? manage.py deferred_doctor looks."
        )
    _tell_problem(made)
    _tell_relay(made)
    made.cures.append(f"manage.py discard_deliveries --state pending {row.delivery_id} ends it.")


def _waits_for_its_time(row: OutboxDelivery) -> str:
    if row.error or row.error_type:
        return f"Attempt {row.attempt} waits for its time. Before, {row.error_type or 'it was'}: {row.error}"
    return "It waits for its countdown or debounce."


def _tell_turn(made: Explanation) -> bool:
    """Say for which others it waits by its keys; False if for none."""
    row = made.row
    if not keyed.has_key(row):
        return False
    seen = keyed.standing(made.database, row)
    if seen.superseded:
        made.why.append(f"A later delivery of its key {row.unique_key!r} counts for it.")
        made.next = "It is discarded when it is its turn."
        made.at = row.ring_at
        return True
    if not seen.blocked:
        return False
    made.next = "It is rung for when that one has ended."
    found = before(made.database, row)
    if found is None:
        made.why.append("It is not its turn: others of its key come first.")
        return True
    other = found.row.delivery_id
    made.why.append(f"It is not its turn: of its key {found.key!r}, delivery {other} {found.does}.")
    made.cures.append(f"manage.py explain_delivery {other}")
    return True


def _queue(row: OutboxDelivery) -> str:
    try:
        return registry.get(row.receiver).options_for(row.signal).queue or ""
    except NotYetKnown:
        return ""


def _tell_relay(made: Explanation) -> None:
    leads = Lock.objects.using(made.database).filter(name=NAME, until__gt=DatabaseNow()).exists()
    if not leads:
        made.why.append("No relay is at work for this database, so nobody rings for it again.")
        if made.at is not None:  # that was to be the relay's doing
            may_come = made.row.due is None or made.row.due <= made.now
            unless = ", unless its doorbell still waits at the broker" if may_come else ""
            made.next, made.at = f"Nothing before a relay is at work{unless}.", None
        made.cures.append("Start a Celery worker, which runs the relay by itself (RELAY), or manage.py relay_outbox.")


_TELL = {
    State.PENDING: _tell_pending,
    State.RUNNING: _tell_running,
    State.SUCCEEDED: _tell_succeeded,
    State.DISCARDED: _tell_discarded,
    State.DEAD: _tell_dead,
}
