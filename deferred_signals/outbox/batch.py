"""One batch of the relay: rows that are due are marked, and rung for.

Their ``ring_at`` is pushed into the future and committed, and only then the broker is talked to, so that no lock is
held meanwhile. What it does not take since it is away is put back; what one queue refuses is rung for ever more seldom,
as what nobody takes. A relay that is killed between the two has pushed rows away for which it has not rung: they are
rung for when that time has passed, which for the first is ``RING_AGAIN`` seconds.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from deferred_signals import handover
from deferred_signals.backends import Failure
from deferred_signals.delivery import Delivery
from deferred_signals.failpoints import reach

from .marking import mark, put_back
from .refusal import may_be_outage
from .ringing import bells_by_route, ids_of

logger = logging.getLogger("deferred_signals")

#: Rows that are marked in one transaction.
BATCH = 1000


class Batch(NamedTuple):
    """What a batch came to: rows that were due, rows that were rung for, and why the broker is held to be away."""

    due: int
    rung: int
    outage: Exception | None


def ring_batch(alias: str, most: int = BATCH, only: Collection[int] | None = None) -> Batch:
    """Ring for rows that are due, for so many at most, or ``only`` for some of them. Raises the database's error."""
    due, blocked = mark(alias, most, only)
    reach("relay.after_mark")
    ready = [row for row in due if row.number not in blocked]
    refused, away = ring(bells_by_route(alias, ready))
    reach("relay.after_ring")
    if refused:
        _tell(refused)
    if away:
        by_id = {row.delivery_id: row.number for row in ready}
        # To the end of those that are due.
        put_back(alias, [by_id[one] for bell, _ in away for one in ids_of(bell)])
    rung = len(ready) - sum(len(ids_of(bell)) for bell, _ in (*refused, *away))
    return Batch(len(due), rung, away[-1][1] if away else None)


class Answers(NamedTuple):
    """The doorbells that were not taken: those whose own queue refuses them, and those for which the broker is away."""

    refused: list[Failure]
    away: list[Failure]


def ring(routes: Iterable[Sequence[Delivery]]) -> Answers:
    """Ring on each route by itself, for one queue that hangs keeps those waiting that are published with it.

    Of many ways to fail it cannot be told whether the broker is away or only a queue. So a doorbell that it has taken
    is rung once more, which does no harm: if it takes that, it is there, and what it refuses now is refused for its own
    sake.
    """
    answers = Answers([], [])
    taken: Delivery | None = None
    for bells in routes:
        failures = handover.ring(bells)
        for failure in failures:
            (answers.away if may_be_outage(failure[1]) else answers.refused).append(failure)
        failed = {id(bell) for bell, _ in failures}
        taken = next((bell for bell in bells if id(bell) not in failed), taken)
    if answers.away and taken is not None and not handover.ring([taken]):
        for _, some in groupby(answers.away, key=lambda failure: id(failure[0].options)):
            answers.refused.extend(handover.ring([bell for bell, _ in some]))
        answers.away.clear()
    return answers


def _tell(refused: Sequence[Failure]) -> None:
    """Log each reason once; a doorbell may ring for one row, and a batch have a thousand."""
    said = Counter((bell.receiver, type(error).__name__, str(error)) for bell, error in refused)
    for (receiver, name, text), count in said.items():
        times = f" ({count} doorbells)" if count > 1 else ""
        logger.error("Deliveries to %s cannot be rung for: %s: %s%s", receiver, name, text, times)


def drain(aliases: Sequence[str]) -> dict[str, Batch]:
    """Ring once for all that is due now; return by alias what that came to. Raises the database's error."""
    done = {}
    for alias in aliases:
        due = rung = 0
        while True:
            batch = ring_batch(alias)
            due, rung = due + batch.due, rung + batch.rung
            if not batch.due or batch.outage:
                break
        done[alias] = Batch(due, rung, batch.outage)
    return done
