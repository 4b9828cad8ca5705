"""Django's model signals on a worker, sent by saving, loading, deleting and relating rows."""

import django
import pytest

from .conftest import STACKS
from .families import table
from .shop import Shop

SCENARIOS = {
    "models.saves": ("pre_save", "post_save"),
    "models.deletes": ("pre_delete", "post_delete"),
    "models.relations": ("m2m_changed",),
}
pytestmark = pytest.mark.parametrize("stack", STACKS, indirect=True)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_argument_arrives_as_the_table_says(families: Shop, scenario: str):
    answer = families.call(scenario)
    assert answer["differences"] == []
    assert set(answer["compared"]) == table.ids(SCENARIOS[scenario])


def test_saves_of_all_kinds_arrive(families: Shop):
    answer = families.call("models.saves")
    assert answer["differences"] == []
    assert set(answer["created"]) == {True, False}
    assert answer["update_fields"] == ["None", "['name']"]


def test_rows_loaded_from_a_fixture_arrive_as_raw(families: Shop):
    answer = families.call("models.loaded_from_a_fixture")
    assert answer["differences"] == []
    assert set(answer["compared"]) == table.ids(("pre_save", "post_save", "m2m_changed"))
    raw = {(name, said) for name, said in answer["raw"]}
    assert raw == {
        ("pre_save", True),
        ("post_save", True),
        ("m2m_changed", True if django.VERSION >= (6, 1) else None),
    }


def test_deletions_of_instances_and_querysets_arrive_with_all_that_they_cascade_to(families: Shop):
    answer = families.call("models.deletes")
    assert answer["differences"] == []
    # Each customer with two orders. Django sends nothing for the rows behind a ManyToManyField.
    assert {name: answer["deleted"].count(name) for name in answer["deleted"]} == {
        "Customer": 3,
        "Order": 6,
        "Product": 2,
    }
    assert answer["origins"] == ["Customer", "QuerySet"]


def test_all_six_changes_of_a_relation_arrive_from_both_ends(families: Shop):
    answer = families.call("models.relations")
    assert answer["differences"] == []
    changes = [f"{when}_{what}" for what in ("add", "remove", "clear") for when in ("pre", "post")]
    assert answer["actions"] == [[change, reverse] for reverse in (False, True) for change in changes]
    assert answer["pk_sets"] == ["set", "set", "set", "set", "NoneType", "NoneType"] * 2
