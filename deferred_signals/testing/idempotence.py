"""Whether it makes a difference that a receiver runs twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.db.models import Model, QuerySet

from .captured import CapturedDelivery
from .modes import capture_deliveries
from .running import Run, raise_death, run_again, run_once


def assert_idempotent(delivery: CapturedDelivery, *, state: Callable[[], Any]) -> None:
    """Run a captured delivery twice, and fail if ``state()`` tells of two runs another thing than of one.

    ``state`` returns what the receiver is to change: numbers, texts, instances, querysets, and lists and dicts of
    these. What the delivery's receiver sends is delivered after each run. Fails as well if the first run changes
    nothing of it, for that would prove nothing; what the receiver raises in the first run is raised.
    """
    if not delivery.is_waiting:
        raise ValueError("assert_idempotent() takes a delivery that is still to be run; this one has ended.")
    before = frozen(state())
    _run(delivery, lambda: run_once(delivery))
    once = frozen(state())
    if once == before:
        raise AssertionError(
            f"The first run of {delivery.receiver} has changed nothing that state() shows, so the second proves "
            f"nothing. It is {once!r}"
        )
    try:
        _run(delivery, lambda: run_again(delivery))
    except Exception as error:
        raise AssertionError(
            f"{delivery.receiver} is not idempotent: its second run has raised {type(error).__name__}"
        ) from error
    twice = frozen(state())
    if twice != once:
        raise AssertionError(
            f"{delivery.receiver} is not idempotent.\n  After one run:  {once!r}\n  after two runs: {twice!r}"
        )


def _run(delivery: CapturedDelivery, run: Callable[[], Sequence[Run]]) -> None:
    with capture_deliveries() as caused:
        runs = run()
        for one in runs:
            if one.outcome.state == "dead":
                raise_death(one)
        if delivery.is_waiting:
            raise _reason(runs)
        caused.deliver()


def _reason(runs: Sequence[Run]) -> Exception:
    """Why a delivery still waits after a run: a retry, or others of its keys."""
    errors = [one.outcome.error for one in runs if one.outcome.error is not None]
    return errors[-1] if errors else AssertionError("The row waits for others of its keys, so nothing is known.")


def frozen(value: Any) -> Any:
    """A copy that shows what is, and not what will be: of rows their fields, of lists and dicts what is in them."""
    if isinstance(value, QuerySet):
        return [frozen(one) for one in value.all()]
    if isinstance(value, Model):
        return (
            value._meta.label,
            {field.attname: getattr(value, field.attname) for field in value._meta.concrete_fields},
        )
    if isinstance(value, Mapping):
        return {key: frozen(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [frozen(one) for one in value]
    if isinstance(value, set | frozenset):
        return set(value)
    return value
