"""The diagrams of the documentation are what their command draws, and say what the code says."""

import importlib.util
import typing
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType

import pytest

from deferred_signals import outcome

from .test_floors import FLOOR_OF

DOCS = Path(__file__).resolve().parent.parent / "docs"


def command() -> ModuleType:
    spec = importlib.util.spec_from_file_location("diagrams", DOCS / "diagrams.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


diagrams = command()


@pytest.mark.parametrize("name", diagrams.DIAGRAMS)
def test_a_diagram_is_what_the_command_draws(name: str):
    drawn = diagrams.DIAGRAMS[name]()
    assert (DOCS / "_static" / name).read_text() == drawn, "make docs-diagrams"


@pytest.mark.parametrize("name", diagrams.DIAGRAMS)
def test_a_diagram_is_xml_is_for_light_and_dark_and_has_a_title(name: str):
    text = diagrams.DIAGRAMS[name]()
    root = ET.fromstring(text)
    assert root.find("{http://www.w3.org/2000/svg}title") is not None
    assert "prefers-color-scheme: dark" in text
    light, dark = (block.partition("svg {")[2].partition("}")[0] for block in text.split("@media", 1))
    assert [word for word in light.split() if word.startswith("--")] == [
        word for word in dark.split() if word.startswith("--")
    ]


def test_the_command_writes_them_all(tmp_path: Path):
    diagrams.main(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(diagrams.DIAGRAMS)


def test_the_staircase_has_every_floor_with_rooms_of_it():
    assert [floor for floor, _, _ in diagrams.FLOORS] == sorted(set(FLOOR_OF.values()), reverse=True)
    for floor, rooms, _ in diagrams.FLOORS:
        assert {FLOOR_OF[room] for room in rooms} == {floor}


def test_the_life_of_a_delivery_ends_in_every_state_that_there_is():
    states = typing.get_args(typing.get_type_hints(outcome.Outcome)["state"])
    assert states
    assert all(f">{state}</text>" in diagrams.life() for state in states)
