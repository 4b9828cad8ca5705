"""The signals of Django's own tasks, which Django 6 brings, on a worker of ours."""

import django
import pytest

from .families import table
from .shop import Shop

SCENARIOS = {"jobs.tasks": ("task_enqueued", "task_started", "task_finished")}
pytestmark = [
    pytest.mark.parametrize("stack", ["rabbitmq-postgresql"], indirect=True),
    pytest.mark.skipif(
        django.VERSION < (6,), reason=f"NOT COVERED: Django {django.get_version()} has no task signals; Django 6 has"
    ),
]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_argument_arrives_as_the_table_says(families: Shop, scenario: str):
    answer = families.call(scenario)
    assert answer["differences"] == []
    assert set(answer["compared"]) == table.ids(SCENARIOS[scenario])
    assert answer["backends"] == ["DummyBackend", "ImmediateBackend"]
    # One that succeeds, one that fails, one that is only enqueued.
    assert answer["states"] == {
        "task_enqueued": ["READY", "READY", "READY"],
        "task_started": ["RUNNING", "RUNNING"],
        "task_finished": ["SUCCESSFUL", "FAILED"],
    }
