"""The results as a Markdown table and as JSON; README.md says what each number means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .measure import Comparison, Way, summary


def as_json(comparisons: Iterable[Comparison], environment: Mapping[str, Any]) -> dict[str, Any]:
    """What goes to results.json."""
    return {
        "environment": dict(environment),
        "comparisons": {
            comparison.key: {
                "title": comparison.title,
                "rounds": len(comparison.ways[0].taken["wall"]),
                "noise": _ratios(comparison, comparison.again),
                "ways": [_way(comparison, way) for way in comparison.all if way is not comparison.again],
            }
            for comparison in comparisons
        },
    }


def _ratios(comparison: Comparison, way: Way) -> dict[str, float]:
    made: dict[str, float] = {}
    for clock in ("wall", "cpu"):
        made[clock] = comparison.ratio(way, clock)
        made[f"{clock}_median"] = comparison.median_ratio(way, clock)
        net = comparison.net_ratio(way, clock)
        if net is not None:
            made[f"{clock}_net"] = net
    return {name: round(ratio, 4) for name, ratio in made.items()}


def _way(comparison: Comparison, way: Way) -> dict[str, Any]:
    taken = {clock: summary(samples) for clock, samples in way.taken.items()}
    made = {"name": way.name, **taken, "ratio": _ratios(comparison, way)}
    return made if way.bar is None else {**made, "bar": way.bar}


def as_markdown(comparisons: Iterable[Comparison], environment: Mapping[str, Any]) -> str:
    """The table, with what it was measured on."""
    head = ("", "wall µs", "CPU µs", "ratio", "median ratio", "CPU ratio", "net ratio", "bar")
    lines = [
        ", ".join(f"{name} {value}" for name, value in environment.items()),
        "",
        _row(head),
        _row(["---", *["---:"] * (len(head) - 1)]),
    ]
    for comparison in comparisons:
        lines.append(_row([f"**{comparison.title}**", *[""] * (len(head) - 1)]))
        lines += map(_row, _cells(comparison))
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(comparison: Comparison) -> Iterator[list[str]]:
    for way in comparison.all:
        net = comparison.net_ratio(way)
        yield [
            way.name,
            *map(_times, way.taken.values()),
            f"{comparison.ratio(way):.3f}",
            f"{comparison.median_ratio(way):.3f}",
            f"{comparison.ratio(way, 'cpu'):.3f}",
            "" if net is None else f"{net:.3f}",
            "" if way.bar is None else f"{way.bar:.2f}",
        ]


def _times(samples: list[float]) -> str:
    made = summary(samples)
    return " / ".join(f"{value:.3g}" if value < 100 else f"{value:.0f}" for value in made.values())
