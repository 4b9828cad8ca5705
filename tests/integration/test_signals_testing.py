"""The signal of Django's tests on a worker, sent by ``override_settings``."""

import pytest

from .families import table
from .shop import Shop

SCENARIOS = {"testing.settings": ("setting_changed",)}
pytestmark = pytest.mark.parametrize("stack", ["redis-sqlite"], indirect=True)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_argument_arrives_as_the_table_says(families: Shop, scenario: str):
    answer = families.call(scenario)
    assert answer["differences"] == []
    assert set(answer["compared"]) == table.ids(SCENARIOS[scenario])
    assert answer["entered"] == [True] * 3 + [False] * 3 + [True, False]
