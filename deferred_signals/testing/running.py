"""Runs of captured deliveries, each as a worker's: the payload is verified, decoded, and the receiver called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from ..attempt import run
from ..exceptions import WorkerLost
from ..outcome import Outcome
from .captured import CapturedDelivery
from .faults import Crash, WorkerKilled, receivers_called

LOST = "a worker did not finish it, which a test has killed"


class Run(NamedTuple):
    """One run of a captured delivery, and how it has ended."""

    delivery: CapturedDelivery
    outcome: Outcome


#: By its id, another captured delivery.
Others = Callable[[str], CapturedDelivery | None]


def passes(error: BaseException) -> bool:
    """Say of what is no Exception that it is not the receiver's: Ctrl-C, pytest's own words, a killed worker."""
    return not isinstance(error, SystemExit)


def run_once(one: CapturedDelivery, crash: Crash | None = None, others: Others = lambda _: None) -> list[Run]:
    """Run a delivery once; return how that has ended, and what else: none, if other rows of its key come first."""
    with receivers_called(crash):
        return _run_row(one, others) if one.is_durable else [_run_message(one)]


def _noted(one: CapturedDelivery, outcome: Outcome) -> Run:
    one.ended(outcome)
    return Run(one, outcome)


def _run_message(one: CapturedDelivery) -> Run:
    try:
        _, outcome = run(one.payload, passes=passes)
    except WorkerKilled:
        # The broker gives it to another worker, which counts that.
        _, outcome = run(one.payload, redelivered=True, passes=passes)
    return _noted(one, outcome)


def _run_row(one: CapturedDelivery, others: Others) -> list[Run]:
    from . import durable  # noqa: PLC0415 - its models are there only where the outbox is installed

    try:
        ended = durable.answer(one.delivery, passes)
    except WorkerKilled:
        durable.lose_worker(one.delivery)
        return [_noted(one, Outcome("retry", WorkerLost(LOST), LOST))]
    runs = []
    for delivery, outcome in ended:
        known = one if delivery is None or delivery.id == one.id else others(delivery.id)
        if known is not None:
            runs.append(_noted(known, outcome))
    if one not in [run.delivery for run in runs] and (end := durable.end_of(one.delivery)) is not None:
        runs.append(_noted(one, end))
    return runs


def run_again(one: CapturedDelivery) -> list[Run]:
    """Run a delivery that has ended once more, as after a duplicate or a completion that was lost.

    A row is not run for a duplicate, and what an ``atomic`` receiver has written is completed with it: of that, only
    what is done outside of its transaction can come again.
    """
    if not one.is_durable:
        return run_once(one)
    from . import durable  # noqa: PLC0415 - as above

    durable.revive(one.delivery)
    if not one.options.atomic:
        return run_once(one)
    runs = run_once(one, "after")
    durable.complete(one.delivery)
    one.is_waiting = False
    return runs


def raise_death(run: Run, others: Sequence[Run] = ()) -> NoReturn:
    """Raise what a delivery has died of, with a note that says which it was."""
    error: Exception = run.outcome.error  # type: ignore[assignment]  # nothing dies without one
    error.add_note(f"So died the delivery {run.delivery.id} to {run.delivery.receiver}: {run.outcome.reason}")
    for other in others:
        error.add_note(f"So did the delivery {other.delivery.id} to {other.delivery.receiver}: {other.outcome.reason}")
    raise error
