"""Deleting the rows of finished deliveries."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.db.models.signals import post_delete, pre_delete
from django.test.utils import CaptureQueriesContext, override_settings

from deferred_signals.outbox import pruning
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.models import OutboxDelivery, State
from deferred_signals.outbox.pruning import Pruning, prune

pytestmark = pytest.mark.django_db

DAY = 86400.0


def finished(state: State, days: float, count: int = 1) -> None:
    """Rows that have been in this end state for so many days."""
    made = [
        OutboxDelivery(delivery_id=uuid.uuid4(), state=state, receiver="mail", payload="", finished=None)
        for _ in range(count)
    ]
    for one in made:
        one.created = DatabaseNow(-days * DAY)
        one.finished = DatabaseNow(-days * DAY)
    OutboxDelivery.objects.bulk_create(made)


def states() -> list[str]:
    return list(OutboxDelivery.objects.order_by("number").values_list("state", flat=True))


@pytest.fixture
def asked() -> Callable[[Callable[[], Any]], list[str]]:
    def ask(action: Callable[[], Any]) -> list[str]:
        with CaptureQueriesContext(connection) as queries:
            action()
        return [one["sql"] for one in queries if "deferred_signals_delivery" in one["sql"]]

    return ask


class TestPruning:
    def test_deletes_what_was_finished_so_long_ago(self):
        finished(State.SUCCEEDED, 3)
        finished(State.DISCARDED, 2)
        finished(State.SUCCEEDED, 0.5)
        assert prune("default", DAY) == 2
        assert states() == ["succeeded"]

    def test_leaves_dead_ones_unless_they_are_asked_for(self):
        finished(State.DEAD, 100)
        finished(State.SUCCEEDED, 100)
        assert prune("default", DAY) == 1
        assert states() == ["dead"]
        assert prune("default", DAY, [State.DEAD]) == 1
        assert states() == []

    def test_leaves_what_is_not_finished(self):
        finished(State.SUCCEEDED, 3)
        OutboxDelivery.objects.update(state=State.PENDING, finished=None)
        assert prune("default", 0) == 0
        finished(State.SUCCEEDED, 3)
        # Redelivered: it keeps the time of its end until it has another one.
        OutboxDelivery.objects.filter(finished__isnull=False).update(state=State.RUNNING)
        assert prune("default", 0) == 0
        assert states() == ["pending", "running"]

    def test_knows_no_state_that_is_none(self):
        with pytest.raises(ValueError, match="gone"):
            prune("default", DAY, ["gone"])

    def test_works_in_batches_from_the_oldest_on(self, asked):
        finished(State.SUCCEEDED, 2, count=5)
        finished(State.DISCARDED, 3, count=2)
        said = asked(lambda: prune("default", DAY, batch=3))
        assert [one.split()[0] for one in said] == ["SELECT", "DELETE"] * 3
        finished(State.SUCCEEDED, 2, count=2)
        finished(State.DISCARDED, 3, count=2)
        assert prune("default", DAY, batch=3, most=2) == 2
        assert states() == ["succeeded", "succeeded"]

    def test_ends_after_as_many_as_were_allowed(self):
        finished(State.SUCCEEDED, 2, count=7)
        assert prune("default", DAY, batch=2, most=5) == 5
        assert len(states()) == 2

    def test_deletes_nothing_that_was_redelivered_between_its_two_steps(self, monkeypatch):
        finished(State.DEAD, 2)
        delete = pruning._delete

        def late(*given: Any) -> int:
            OutboxDelivery.objects.update(state=State.PENDING, finished=None)
            return delete(*given)

        monkeypatch.setattr(pruning, "_delete", late)
        assert prune("default", DAY, [State.DEAD]) == 0
        assert states() == ["pending"]

    def test_tells_no_receiver_of_the_project(self):
        told: list[Any] = []

        def hear(sender: Any, **kwargs: Any) -> None:
            told.append(sender)

        for one in (pre_delete, post_delete):
            one.connect(hear)
        try:
            finished(State.SUCCEEDED, 2)
            prune("default", DAY)
        finally:
            for one in (pre_delete, post_delete):
                one.disconnect(hear)
        assert told == []

    def test_reads_no_payload(self, asked):
        finished(State.SUCCEEDED, 2)
        assert not any("payload" in one for one in asked(lambda: prune("default", DAY)))


class TestARelaysPruning:
    def test_is_a_batch_at_a_time_until_there_is_no_more_and_then_rests(self, asked, monkeypatch):
        monkeypatch.setattr(pruning, "BATCH", 2)
        finished(State.SUCCEEDED, 2, count=5)
        one = Pruning("default")
        assert [one.goes_on(), one.goes_on(), one.goes_on()] == [True, True, False]
        assert states() == []
        finished(State.SUCCEEDED, 2)
        assert asked(one.goes_on) == []

    def test_does_not_look_again_at_dead_ones_that_it_has_passed(self, asked, monkeypatch):
        monkeypatch.setattr(pruning, "PAUSE", 0.0)
        finished(State.DEAD, 3)
        one = Pruning("default")
        (first,) = asked(one.goes_on)
        (second,) = asked(one.goes_on)
        assert (first.count("finished"), second.count("finished")) == (2, 3)  # ORDER BY, and one bound or two
        # What was finished just before the last look may have been committed after it.
        finished(State.SUCCEEDED, 1 + 0.5 * pruning.SLACK / DAY)
        finished(State.SUCCEEDED, 1 + 2 * pruning.SLACK / DAY)
        one.goes_on()
        assert states() == ["dead", "succeeded"]

    @override_settings(DEFERRED_SIGNALS={"BACKEND": "memory", "RETENTION": None})
    def test_is_none_where_the_settings_say_so(self, asked):
        finished(State.SUCCEEDED, 1000)
        assert asked(Pruning("default").goes_on) == []
        assert states() == ["succeeded"]
