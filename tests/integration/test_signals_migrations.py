"""Django's migration signals on a worker, sent by ``migrate`` and ``flush``."""

import pytest

from .families import table
from .shop import Shop

SCENARIOS = {"migrations.migrate": ("pre_migrate", "post_migrate")}
pytestmark = pytest.mark.parametrize("stack", ["rabbitmq-postgresql"], indirect=True)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_argument_arrives_as_the_table_says(families: Shop, scenario: str):
    answer = families.call(scenario)
    assert answer["differences"] == []
    assert set(answer["compared"]) == table.ids(SCENARIOS[scenario])
    assert answer["apps"] == ["auth", "contenttypes", "families", "sessions"]
    # Backwards and forwards, before and after, for each app; flush has no plan.
    assert sorted(answer["plans"]) == [[False]] * 8 + [[True]] * 8
    assert answer["without a plan"] == 4
