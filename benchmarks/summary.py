"""``make bench-plot``: what of results.json stands in the documentation, as Markdown."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
#: Of the environment, what is not a version.
FACTS = ("database", "machine", "load", "deferred_signals")
#: In which comparisons ours stands beside the rivals; results.json has the others.
SHOWN = (
    "delivery_1",
    "delivery_1000",
    "delivery_1000_batch500",
    "delivery_1_rabbitmq",
    "delivery_1000_rabbitmq",
    "five_receivers",
    "durable_1000",
    "worker_one",
    "worker_batch100",
)


def summary(results: dict[str, Any]) -> str:
    """Two tables: ours beside the bars, and ours beside each rival."""
    environment = results["environment"]
    versions = ", ".join(f"{name} {value}" for name, value in environment.items() if name not in FACTS)
    lines = [
        "<!-- Made by make bench-plot from benchmarks/results.json. -->",
        f"{environment['machine']}; {versions}.",
        "",
        "| what | wall | CPU | bar | |",
        "|---|---:|---:|---:|---|",
        *map(_row, _bars(results["comparisons"])),
        "",
        "| ours, in proportion to | wall | CPU |",
        "|---|---:|---:|",
        *map(_row, _rivals(results["comparisons"])),
    ]
    return "\n".join(lines) + "\n"


def _bars(comparisons: dict[str, Any]) -> Iterator[list[str]]:
    for comparison in comparisons.values():
        for way in comparison["ways"]:
            if "bar" not in way:
                continue
            ratio = way["ratio"]
            first = next(iter(ratio))
            yield [
                f"{comparison['title']}: {way['name']}",
                _number(ratio.get("wall", ratio[first])) + ("" if "wall" in ratio else f" ({first})"),
                _number(ratio["cpu"]) if "cpu" in ratio else "",
                f"{way['bar']:.3g}",
                way.get("verdict", ""),
            ]


def _rivals(comparisons: dict[str, Any]) -> Iterator[list[str]]:
    for comparison in (comparisons[key] for key in SHOWN if key in comparisons):
        for way in comparison["ways"]:
            if (ours := way.get("ours")) and "wall" in ours:
                cpu = _number(ours["cpu"]) if "cpu" in ours else ""
                yield [f"{way['name']}: {comparison['title']}", _number(ours["wall"]), cpu]


def _number(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.3f}"


def _row(cells: Iterable[str]) -> str:
    # An upright bar in a name would end its cell.
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def main() -> None:
    """Write it."""
    parser = argparse.ArgumentParser(description="Write what of results.json stands in the documentation.")
    parser.add_argument("--input", type=Path, default=HERE / "results.json")
    parser.add_argument("--output", type=Path, default=HERE.parent / "docs" / "_static" / "benchmarks.md")
    given = parser.parse_args()
    given.output.write_text(summary(json.loads(given.input.read_text())))
    print(given.output)


if __name__ == "__main__":
    main()
