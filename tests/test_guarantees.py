"""``docs/guarantees.md`` promises nothing that no test proves."""

import re
from typing import NamedTuple

import pytest

from .named_tests import ROOT, exists, is_one_test, named_in

TEXT = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")

#: The faults of the design's own table, as a row here must speak of them.
FAULTS = {
    "rollback": r"transaction is rolled back",
    "broker down at commit": r"broker is (down|away) at the commit",
    "sender killed between commit and publish": r"sender is killed between (its )?commit and",
    "broker loses everything (FLUSHALL)": r"FLUSHALL",
    "worker killed mid-receiver": r"worker is killed while",
    "the broker delivers twice": r"broker delivers twice",
    "receiver fails for good": r"retries are used up",
}


class Row(NamedTuple):
    fault: str
    #: What is promised, by the mode's name: ``default``, later ``outbox`` and others.
    promises: dict[str, str]
    proof: str

    def tests(self, mode: str) -> list[str]:
        """The tests that prove the promise of one mode.

        They stand in the cell itself, or in the last one: there, if the table has several modes, behind the mode's name
        and a colon.
        """
        if own := named_in(self.promises[mode]):
            return own
        if len(self.promises) == 1:
            return named_in(self.proof)
        head = "|".join(re.escape(name) for name in self.promises)
        parts = re.split(rf"(?:^|(?<=[\s;]))({head}):", self.proof)
        return [
            test for name, text in zip(parts[1::2], parts[2::2], strict=True) if name == mode for test in named_in(text)
        ]


def rows(text: str) -> list[Row]:
    """The rows of the tables whose last column says what proves them."""
    found = []
    for table in re.finditer(r"^\|.*\n\|[-:| ]+\n((?:\|.*\n)+)", text, re.MULTILINE):
        head, _, *lines = (
            [cell.strip() for cell in line.strip().strip("|").split("|")] for line in table[0].splitlines()
        )
        if head[-1] != "proved by":
            continue
        modes = [name.partition(" (")[0].strip("`") for name in head[1:-1]]
        for fault, *promises, proof in lines:
            found.append(Row(fault, dict(zip(modes, promises, strict=True)), proof))
    return found


def problems(text: str) -> list[str]:
    """What is wrong with the tables of a text, a line each."""
    found = []
    for row in rows(text):
        if "no test" in row.proof.lower():
            found.append(f"{row.fault} says that there is no test")
        for mode in row.promises:
            tests = [test for test in row.tests(mode) if is_one_test(test)]
            if not tests:
                found.append(f"{row.fault} has no test for {mode!r}")
            found.extend(f"{row.fault} names {test}, which does not exist" for test in tests if not exists(test))
    return found


def bullets(text: str) -> list[str]:
    """What is said not to be guaranteed."""
    section = text.partition("\n## What is not guaranteed\n")[2].partition("\n## ")[0]
    return re.findall(r"^- .*(?:\n  .*)*", section, re.MULTILINE)


def test_every_promise_has_a_test_that_exists():
    assert rows(TEXT)
    assert problems(TEXT) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_of_the_design_has_a_row(fault: str):
    assert [row.fault for row in rows(TEXT) if re.search(FAULTS[fault], row.fault)]


def test_what_is_not_guaranteed_is_listed_and_names_only_tests_that_exist():
    assert bullets(TEXT)
    assert [test for bullet in bullets(TEXT) for test in named_in(bullet) if not exists(test)] == []


def test_no_fault_has_two_rows():
    faults = [row.fault for row in rows(TEXT)]
    assert sorted(faults) == sorted(set(faults))


HERE = "tests/test_guarantees.py"
ONE = "| fault | default (no tables) | proved by |\n|---|---|---|\n"
TWO = "| fault | default (no tables) | `durable` | proved by |\n|---|---|---|---|\n"
GOOD, OTHER = f"`{HERE}::test_no_fault_has_two_rows`", "`tests/test_wire.py::test_the_rows_of_a_specimen_are_found`"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"{ONE}| Fire. | Lost. | {GOOD} |\n", []),
        (f"{ONE}| Fire. | Lost. |  |\n", ["Fire. has no test for 'default'"]),
        (f"{ONE}| Fire. | Lost. | `{HERE}` |\n", ["Fire. has no test for 'default'"]),
        (f"{ONE}| Fire. | Lost. | `tests/kit.py::link` |\n", ["Fire. has no test for 'default'"]),
        (
            f"{ONE}| Fire. | Lost. | {GOOD} no test: it is fire |\n",
            ["Fire. says that there is no test"],
        ),
        (
            f"{ONE}| Fire. | Lost. | `{HERE}::test_gone` |\n",
            [f"Fire. names {HERE}::test_gone, which does not exist"],
        ),
        (
            f"{ONE}| Fire. | Lost. | `tests/test_gone.py::test_x` |\n",
            ["Fire. names tests/test_gone.py::test_x, which does not exist"],
        ),
        (
            f"{ONE}| Fire. | Lost. | {GOOD} |\n| Water. | Wet. | `tests/test_wire.py::TestGone::test_x` |\n",
            ["Water. names tests/test_wire.py::TestGone::test_x, which does not exist"],
        ),
        (f"{TWO}| Fire. | Lost. | Kept. | default: {GOOD}; durable: {OTHER} |\n", []),
        (f"{TWO}| Fire. | Lost. | Kept. {OTHER} | default: {GOOD} |\n", []),
        (f"{TWO}| Fire. | Lost. | Kept. | default: {GOOD} |\n", ["Fire. has no test for 'durable'"]),
        (
            f"{TWO}| Fire. | Lost. | Kept. | {GOOD} {OTHER} |\n",
            ["Fire. has no test for 'default'", "Fire. has no test for 'durable'"],
        ),
    ],
)
def test_a_promise_without_a_test_would_be_seen(text: str, told: list[str]):
    assert problems(f"# Guarantees\n\n{text}\nMore text.\n") == told


def test_what_is_not_guaranteed_is_read_to_its_end():
    one, two = "- **One.** This\n  and that.", "- **Two.** `tests/test_x.py::test_y`"
    assert bullets(f"\n## What is not guaranteed\n\n{one}\n{two}\n\n## More\n\n- Three.\n") == [one, two]
