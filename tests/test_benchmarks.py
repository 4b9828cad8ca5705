"""The benchmarks' own promises: what is documented is what is measured, and the words of the table are true."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks import plot, report, summary
from benchmarks.measure import Comparison, Way

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "benchmarks" / "README.md").read_text()


def _run(*words: str) -> str:
    # They have settings of their own.
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "benchmarks.settings", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=env, check=True, capture_output=True, text=True)
    return done.stdout


def _section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def way(name: str, wall: float, cpu: float | None = None, **more: Any) -> Way:
    return Way(name, taken={"wall": [wall], "cpu": [wall if cpu is None else cpu]}, **more)


def compared(*ways: Way) -> Comparison:
    made = Comparison("delivery_1", "1 delivery", [way("by hand", 1.0), *ways])
    assert made.again is not None
    made.again.taken = {"wall": [1.01], "cpu": [1.0]}
    return made


def test_the_documented_keys_are_those_that_are_measured() -> None:
    cells = re.findall(r"^\| (`.*?) \|", _section("What the numbers mean"), re.MULTILINE)
    documented = [key for cell in cells for key in re.findall(r"`(\w+)`", cell)]
    assert documented == list(dict.fromkeys(documented))
    assert set(documented) == set(_run("benchmarks/run.py", "--list").split())


def test_the_documented_parts_are_those_that_can_be_asked_for() -> None:
    said = README.partition("The parts are ")[2].partition(". One Markdown table")[0]
    usage = _run("benchmarks/run.py", "--help")
    parts = re.search(r"--part \{(.*?)\}", re.sub(r"\s+", "", usage).replace("--part{", "--part {"))
    assert parts is not None
    assert set(re.findall(r"`(\w+)`", said)) == set(parts[1].split(","))


def test_every_field_of_the_json_is_documented() -> None:
    ours = way("ours", 0.5, kind="ours", bar=0.6, stretch=0.4)
    comparison = compared(ours, way("theirs", 0.9, kind="rival"))
    comparison.own = way("no receiver", 0.1)
    made = {**report.as_json([comparison], {"Django": "5.2"}), "facts": []}
    documented = set(re.findall(r"`(\w+)`", _section("`results.json`")))

    def names(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set(value).union(*map(names, value.values()))
        return set().union(*map(names, value)) if isinstance(value, list) else set()

    assert names(made) - {"delivery_1", "Django"} <= documented


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        (way("ours", 0.3, kind="ours", bar=0.6, stretch=0.4), "stretch"),
        (way("ours", 0.5, kind="ours", bar=0.6, stretch=0.4), "met"),
        (way("ours", 0.7, 0.5, kind="ours", bar=0.6, stretch=0.4), "met (CPU)"),
        (way("ours", 0.7, kind="ours", bar=0.6, stretch=0.4), "NOT met"),
        (way("ours", 1.02, kind="ours", bar=1.0, slack=0.02), "met"),
        (way("ours", 1.02, kind="ours", bar=1.0, slack=0.02, surpassed=True), "stretch"),
        (way("ours", 1.2, kind="ours", bar=1.0, slack=0.02, surpassed=True), "NOT met"),
        (way("ours", 1.2, kind="ours"), "LOSS"),
        (way("ours", 1.02, kind="ours"), ""),
        (way("ours", 0.2, kind="ours"), ""),
    ],
)
def test_the_verdict_on_ours(ours: Way, verdict: str) -> None:
    assert report.verdict(compared(ours), ours) == verdict


@pytest.mark.parametrize(("wall", "verdict"), [(0.4, "BEATS ours"), (0.49, ""), (0.9, "")])
def test_a_rival_is_compared_with_ours(wall: float, verdict: str) -> None:
    rival = way("theirs", wall, kind="rival")
    comparison = compared(way("ours", 0.5, kind="ours"), rival)
    assert report.verdict(comparison, rival) == verdict
    assert report.as_json([comparison], {})["comparisons"]["delivery_1"]["ways"][2]["ours"]["wall"] == pytest.approx(
        0.5 / wall, rel=1e-3
    )


def test_the_table_is_one_table() -> None:
    comparison = compared(way("ours", 0.5, kind="ours", bar=0.6), way("theirs", 0.4, kind="rival"))
    head, empty, *table = report.as_markdown([comparison], {"Django": "5.2"}).splitlines()
    assert (head, empty) == ("Django 5.2", "")
    assert {line.count("|") for line in table} == {len(report.HEAD) + 1}
    assert [line for line in table if "met" in line] == [line for line in table if line.startswith("| ours ")]


def test_ways_take_turns_and_the_stage_is_left() -> None:
    done: list[str] = []

    def work(name: str) -> Way:
        def sample() -> tuple[float, ...]:
            done.append(name)
            return 1.0, 1.0

        return Way(name, sample=sample)

    comparison = Comparison("key", "title", [work("one"), work("two")], rounds=2, facts=lambda: ["said"])
    comparison.run(0)
    assert done == ["one", "one", "two", "one", "two", "one"]
    assert comparison.told == ["said"]


def test_the_curves_are_drawn(tmp_path: Path) -> None:
    comparisons = {
        f"delivery_{count}": {"ways": [{"name": "<ours>", "kind": "ours", "wall": {"min": 30.0 * count**0.8}}]}
        for count in (1, 10, 1000)
    }
    source = tmp_path / "results.json"
    source.write_text(json.dumps({"comparisons": comparisons}))
    said = _run("-m", "benchmarks.plot", "--input", str(source), "--output", str(tmp_path))
    assert [file.name for file in tmp_path.glob("*.svg")] == ["benchmarks-per-transaction.svg"]
    assert said.count("NOT DRAWN") == len(plot.CHARTS) - 1
    drawn = ET.parse(tmp_path / "benchmarks-per-transaction.svg").getroot()
    assert len(drawn.findall("{*}circle")) == 3
    assert "<ours>" in [text.text for text in drawn.findall("{*}text")]


GUARD = """
from benchmarks import guard
def one(*found):
    found = iter(found)
    made = guard.Guarded("it", 0.5, None)
    made.ratio = lambda seconds: next(found)
    return guard.holds(made, 0)
print([one(0.4), one(0.6, 0.7, 0.5), one(0.6, 0.7, 0.8)])
"""


def test_the_guard_fails_after_three_measurements_above_the_limit() -> None:
    assert _run("-c", GUARD).splitlines()[-1] == "[True, True, False]"


def _published() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results.json").read_text())
    return found


def test_the_tables_of_the_documentation_are_those_of_the_committed_run() -> None:
    assert (ROOT / "docs" / "_static" / "benchmarks.md").read_text() == summary.summary(_published())


@pytest.mark.parametrize("chart", plot.CHARTS, ids=lambda chart: chart.name)
def test_the_curves_of_the_documentation_are_those_of_the_committed_run(chart: plot.Chart) -> None:
    drawn = (ROOT / "docs" / "_static" / f"benchmarks-{chart.name}.svg").read_text()
    assert drawn == plot.draw(chart, plot.curves(chart, _published()["comparisons"]))


def test_the_committed_run_has_every_comparison_and_nothing_failed() -> None:
    published = _published()
    asked = set(_run("benchmarks/run.py", "--list").split()) - {"memory_million"}  # only with --full
    assert asked <= published["comparisons"].keys()
    assert not [line for line in published["facts"] if line.startswith("FAILED")]


@pytest.mark.parametrize(
    ("key", "name", "clock", "line"),
    [
        ("dispatch_1", "deferred_signals.Signal", "wall", "| a send to inline receivers, beside Django's | {} |"),
        ("delivery_1", "deferred receiver", "wall", "| one deferred delivery in a transaction, on Redis | {} |"),
        ("delivery_1000", "deferred receiver", "wall", "where both are confirmed | {};"),
        ("delivery_1000_rabbitmq_confirmed", "deferred receiver", "wall", "; {} |\n| a thousand with"),
        ("delivery_1000_batch500", "deferred receiver, batch_size=500", "wall", "`batch_size=500` | {} |"),
        ("durable_1000", "durable=True", "cpu", "in `together()` | {};"),
        ("durable_1000", "durable=True, in together()", "cpu", "; {} |\n| a worker"),
        ("worker_one", "deferred receiver", "wall", "`batch_size=100` | {};"),
        ("worker_batch100", "deferred receiver, batch_size=100", "wall", "; {} |\n\n## Documentation"),
    ],
)
def test_the_readme_quotes_the_committed_run(key: str, name: str, clock: str, line: str) -> None:
    [way] = [way for way in _published()["comparisons"][key]["ways"] if way["name"] == name]
    assert line.format(f"{way['ratio'][clock]:.2f}") in (ROOT / "README.md").read_text()
