"""The signals of Django's development server on a worker, sent by its reloader."""

import pytest

from .families import table
from .shop import Shop

SCENARIOS = {"development.reload_when_a_file_changes": ("autoreload_started", "file_changed")}
pytestmark = pytest.mark.parametrize("stack", ["redis-sqlite"], indirect=True)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_argument_arrives_as_the_table_says_and_the_server_reloads(families: Shop, scenario: str):
    answer = families.call(scenario)
    assert answer["differences"] == []
    assert set(answer["compared"]) == table.ids(SCENARIOS[scenario])
    assert answer["sent"] == ["autoreload_started", "file_changed"]
    # The exit status with which Django's reloader asks to be started anew: the deferred receiver did not prevent it.
    assert answer["reloaded"] == 3
