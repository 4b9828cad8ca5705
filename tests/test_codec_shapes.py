"""What is remembered of sends that differ in the key of their row gives the text that they would have without."""

from __future__ import annotations

import ctypes
import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Group

from deferred_signals import ids, register_codec
from deferred_signals.codec import base, shapes
from deferred_signals.codec.plain import text_of_arguments
from deferred_signals.codec.shapes import Shapes
from tests.shop.models import Customer, Order


def row(pk: Any, alias: str = "default", kind: Any = Customer) -> Any:
    made = kind(pk=pk)
    made._state.adding, made._state.db = False, alias
    return made


@pytest.fixture
def known() -> Shapes:
    return Shapes()


def test_the_second_row_has_the_text_of_its_own(known: Shapes):
    for pk in (1, 2, 2**62, 0, 12345):
        named = {"instance": row(pk), "created": True, "using": "default", "update_fields": None, "raw": False}
        assert known.text(named) == text_of_arguments(named)
    assert len(known._known) == 1


@pytest.mark.parametrize("pk", [1, 11])
@pytest.mark.parametrize(
    "named",
    [
        {"instance": row(1), "one": True},
        {"instance": row(1), "one": False},
        {"instance": row(1), "other": True},
        {"instance": row(1), "one": "True"},
        {"one": "1", "instance": row(1)},
        {"instance": row(1, "other"), "one": True},
        {"instance": row(1), "one": ',1,"default"]}'},
        {"instance": row(1), "one": None},
    ],
)
def test_whatever_else_differs_is_another_shape(known: Shapes, named: dict[str, Any], pk: int):
    for one in ({"instance": row(1), "one": True}, named):
        one["instance"].pk = pk
        assert known.text(one) == text_of_arguments(one)
        changed = {**one, "instance": row(7, one["instance"]._state.db)}
        assert known.text(changed) == text_of_arguments(changed)


@pytest.mark.parametrize(
    "given",
    [
        row(2, kind=Group),
        row(2, "other"),
        row(2**63),
        None,
        True,
        "word",
    ],
)
def test_what_stands_in_the_place_of_the_last_row_is_looked_at(known: Shapes, given: Any):
    for value in (row(1), given, row(3)):
        named = {"instance": value, "created": True}
        assert known.text(named) == text_of_arguments(named)


class AnyPrimary:
    """Writes to one of several primaries, to another one each time it is asked or every few times."""

    answers: Iterator[str]

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return next(self.answers)


@pytest.mark.parametrize("often", [1, 2, 3, 4])
def test_a_router_that_writes_to_any_of_several_databases_is_taken_at_one_of_its_words(
    known: Shapes, settings: Any, often: int
):
    settings.DATABASE_ROUTERS = ["tests.test_codec_shapes.AnyPrimary"]
    AnyPrimary.answers = itertools.cycle([*["default"] * often, "other"])
    named = {"instance": row(5), "created": True}
    texts = {known.text(named) for _ in range(20)}
    assert texts <= {
        f'{{"instance":{{"$ref":["shop.customer",5,"{alias}"]}},"created":true}}' for alias in ("default", "other")
    }


def test_an_instance_that_is_not_saved_is_not_taken_for_the_last_row(known: Shapes):
    assert known.text({"instance": row(1)}) is not None
    assert known.text({"instance": Customer(pk=1)}) is None


@pytest.mark.parametrize(
    "named",
    [
        {"instance": row(1), "number": 5},
        {"instance": row(1), "text": "x" * 50},
        {"number": 5},
        {},
        {"instance": row(2**63)},
        {"instance": row(-1)},
    ],
)
def test_what_has_no_shape_is_written_by_itself(known: Shapes, named: dict[str, Any]):
    assert known.text(named) == text_of_arguments(named)
    assert not known._known


@pytest.mark.parametrize(
    "named",
    [
        {"instance": Customer(pk=1)},  # not saved
        {"instance": row(None)},
        {"instance": row("1")},
        {"instance": row(1), "other": row(2)},
        {"instance": row("5b0e8a52-5a3b-4b8f-9a49-7f4d8d1be0c1", kind=Order)},
        {"instance": row(1), "when": 1.5},
        {"instance": row(1), "text": "ä"},
        {"instance": row(1), "when": []},
    ],
)
def test_what_is_not_plain_has_no_text(known: Shapes, named: dict[str, Any]):
    assert known.text(named) is None
    assert not known._known


def test_a_codec_that_is_added_is_noticed(known: Shapes, monkeypatch: pytest.MonkeyPatch):
    for table in ("_exact", "_families", "tags", "_found", "writers", "found_writers"):
        monkeypatch.setattr(base, table, dict(getattr(base, table)))
    named = {"instance": row(1)}
    assert known.text(named) is not None
    register_codec(Customer, encode=lambda customer: customer.pk, decode=lambda pk: pk, tag="customer")
    monkeypatch.setattr("deferred_signals.codec.plain.found_writers", {})
    assert known.text(named) is None


def test_words_that_are_others_each_time_are_soon_no_part_of_a_shape(known: Shapes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shapes, "_MOST", 4)
    for number in range(100):
        named = {"instance": row(1), "word": str(number)}
        assert known.text(named) == text_of_arguments(named)
        assert len(known._known) <= 4
    kept = dict(known._known)
    assert known.text({"instance": row(1), "word": "once more"})
    assert known._known == kept


def test_ids_are_uuids_of_the_random_kind():
    import uuid

    made = [ids.new_id() for _ in range(1000)]
    assert len(set(made)) == 1000
    assert {(uuid.UUID(one).version, uuid.UUID(one).variant) for one in made} == {(4, uuid.RFC_4122)}
    assert all(str(uuid.UUID(one)) == one for one in made)


@pytest.mark.parametrize(
    "fork",
    [
        os.fork,
        # As uWSGI does, whose forks no hook of Python's hears of.
        ctypes.PyDLL(None).fork,
    ],
    ids=["Python's", "C's"],
)
def test_a_child_makes_other_ids_than_its_parent(fork: Any):
    ids.new_id()
    reading, writing = os.pipe()
    child = fork()
    if not child:
        os.write(writing, ids.new_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 100).decode()
    os.close(reading)
    os.close(writing)
    assert len(theirs) == 36
    assert theirs not in {ids.new_id() for _ in range(300)}
