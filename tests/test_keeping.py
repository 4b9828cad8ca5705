"""The slot for an outbox, and what Celery is told of a doorbell."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from typing import Any

import pytest

from deferred_signals import keeping
from deferred_signals.attempt import run
from deferred_signals.bell import Bell
from deferred_signals.calling import everything
from deferred_signals.exceptions import ConfigurationError, SeveralDied
from deferred_signals.keeping import Outbox, Run
from deferred_signals.options import Options
from deferred_signals.outcome import Outcome
from deferred_signals.tasks import deliver

BELL = Bell("default", (uuid.UUID(int=1),))


class Told(Outbox):
    """Answers every doorbell with these ends."""

    def __init__(self, *ends: Outcome) -> None:
        self.ends = ends

    def check(self, alias: str) -> None: ...

    def write(self, *args: Any, **kwargs: Any) -> Any: ...

    def bells(self, deliveries: Sequence[Any]) -> list[Any]:
        return []

    def unrung(self, deliveries: Any) -> None: ...

    def answer(self, bell: Bell, passes: Any) -> list[Run]:
        return [(None, end) for end in self.ends]

    def spill(self, failures: Sequence[Any], alias: str) -> list[Any]:
        return []

    def bury(self, *args: Any) -> None: ...


@pytest.fixture(autouse=True)
def _empty_again() -> Any:
    before = keeping.current()
    yield
    keeping.use(before)


def dead(error: Exception) -> Outcome:
    return Outcome("dead", error, str(error))


def test_without_an_outbox_the_slot_is_empty_and_asking_for_it_says_what_to_install():
    keeping.use(None)
    assert keeping.current() is None
    with pytest.raises(ConfigurationError, match="INSTALLED_APPS"):
        keeping.required()


def test_what_is_in_the_slot_is_had_until_it_is_emptied():
    outbox = Told()
    keeping.use(outbox)
    assert keeping.current() is keeping.required() is outbox


@pytest.mark.parametrize(
    ("setting", "option", "on_commit", "wanted"),
    [
        (False, None, True, False),
        (True, None, True, True),
        (True, False, True, False),
        (False, True, True, True),
        (True, None, False, False),
    ],
)
def test_the_option_goes_before_the_setting_and_nothing_is_durable_that_does_not_wait_for_the_commit(
    settings, setting, option, on_commit, wanted
):
    settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "DURABLE": setting}
    assert keeping.is_wanted(Options(durable=option, on_commit=on_commit)) is wanted


class TestADoorbell:
    def test_that_comes_to_a_process_without_an_outbox_is_dead_and_says_that_nothing_is_lost(self):
        keeping.use(None)
        _, end = run(BELL.payload)
        assert (end.state, type(end.error)) == ("dead", ConfigurationError)
        assert "rung for again" in end.reason

    def test_has_succeeded_whatever_its_rows_come_to_but_death(self):
        keeping.use(Told(Outcome("succeeded"), Outcome("discarded"), Outcome("retry", ValueError("again"))))
        assert keeping.answer(BELL, everything).state == "succeeded"

    def test_that_rings_in_vain_has_succeeded(self):
        keeping.use(Told())
        assert run(BELL.payload)[1].state == "succeeded"

    def test_of_which_one_has_died_fails_with_its_error(self):
        error = ZeroDivisionError("of its own")
        keeping.use(Told(Outcome("succeeded"), dead(error)))
        end = keeping.answer(BELL, everything)
        assert (end.state, end.error) == ("dead", error)

    def test_of_which_several_have_died_fails_with_all_their_errors(self):
        errors = [ZeroDivisionError("one"), ValueError("two")]
        keeping.use(Told(*map(dead, errors)))
        end = keeping.answer(BELL, everything)
        assert isinstance(end.error, SeveralDied)
        assert list(end.error.exceptions) == errors
        assert end.reason == "one; two"

    def test_is_told_to_celery_and_to_who_hears_of_failures_there(self, settings):
        """As error trackers do: by the task's failure, once for the message."""
        errors = [ZeroDivisionError("one"), ValueError("two")]
        keeping.use(Told(*map(dead, errors)))
        result = deliver.apply(args=[BELL.payload])
        assert result.state == "FAILURE"
        assert isinstance(result.result, SeveralDied)
        keeping.use(Told(Outcome("succeeded")))
        assert deliver.apply(args=[BELL.payload]).state == "SUCCESS"

    def test_that_is_none_is_not_kept_among_the_dead(self, caplog):
        kept: list[Any] = []

        class Keeping(Told):
            def bury(self, *args: Any) -> None:
                kept.append(args)

        keeping.use(Keeping())
        caplog.set_level(logging.ERROR, "deferred_signals")
        run(BELL.payload + "x")
        assert kept == []
        run("nonsense")
        assert len(kept) == 1
        assert caplog.text.count("is dead") == 2
