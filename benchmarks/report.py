"""The results as a Markdown table and as JSON; README.md says what each number means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .measure import Comparison, Way, summary

#: What is nearer to 1 than this, and than the noise of its comparison, is neither a gain nor a loss.
MARGIN = 0.03


def as_json(comparisons: Iterable[Comparison], environment: Mapping[str, Any]) -> dict[str, Any]:
    """What goes to results.json."""
    return {
        "environment": dict(environment),
        "comparisons": {
            comparison.key: {
                "title": comparison.title,
                "rounds": len(comparison.ways[0].taken[comparison.clock]),
                "noise": {} if comparison.again is None else _ratios(comparison, comparison.again),
                "ways": [_way(comparison, way) for way in comparison.all if way is not comparison.again],
            }
            for comparison in comparisons
        },
    }


def _ratios(comparison: Comparison, way: Way) -> dict[str, float]:
    made: dict[str, float] = {}
    for clock in comparison.clocks:
        made[clock] = comparison.ratio(way, clock)
        made[f"{clock}_median"] = comparison.median_ratio(way, clock)
        net = comparison.net_ratio(way, clock)
        if net is not None:
            made[f"{clock}_net"] = net
    return {name: round(ratio, 4) for name, ratio in made.items()}


def _way(comparison: Comparison, way: Way) -> dict[str, Any]:
    taken = {clock: summary(way.taken[clock], clock) for clock in comparison.clocks}
    made: dict[str, Any] = {"name": way.name, **taken, "ratio": _ratios(comparison, way)}
    if way.kind:
        made["kind"] = way.kind
    if (ours := comparison.ours) is not None and way.kind == "rival":
        made["ours"] = {clock: round(comparison.ratio(ours, clock, to=way), 4) for clock in comparison.clocks}
    if way.bar is not None:
        made["bar"] = way.bar
    if way.stretch is not None:
        made["stretch"] = way.stretch
    if said := verdict(comparison, way):
        made["verdict"] = said
    return made


def verdict(comparison: Comparison, way: Way) -> str:
    """How a way stands: ours to its bar, or to the first way where it has none; a rival to ours."""
    noise = max(comparison.noise(), MARGIN)
    if way.bar is not None:
        ratio = comparison.ratio(way)
        bar = way.bar * (1 + max(noise, way.slack)) if way.slack else way.bar
        if ratio <= bar:
            return "stretch" if way.surpassed or ratio <= (way.stretch or 0) else "met"
        return "met (CPU)" if "cpu" in comparison.clocks and comparison.ratio(way, "cpu") <= bar else "NOT met"
    if way.kind == "ours":
        return "LOSS" if comparison.ratio(way) > 1 + noise else ""
    if way.kind == "rival" and comparison.ours is not None:
        return "BEATS ours" if comparison.ratio(comparison.ours, to=way) > 1 + noise else ""
    return ""


HEAD = ("", "wall µs", "CPU µs", "ratio", "median ratio", "CPU ratio", "net ratio", "ours to it", "bar", "verdict")


def as_markdown(comparisons: Iterable[Comparison], environment: Mapping[str, Any]) -> str:
    """The table, with what it was measured on."""
    lines = [
        ", ".join(f"{name} {value}" for name, value in environment.items()),
        "",
        _row(HEAD),
        _row(["---", *["---:"] * (len(HEAD) - 2), "---"]),
    ]
    for comparison in comparisons:
        lines.append(_row([f"**{comparison.title}** `{comparison.key}`", *[""] * (len(HEAD) - 1)]))
        lines += map(_row, _cells(comparison))
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(comparison: Comparison) -> Iterator[list[str]]:
    ours = comparison.ours
    for way in comparison.all:
        net = comparison.net_ratio(way)
        yield [
            way.name,
            _amount(way.taken[comparison.clock], comparison.clock),
            _amount(way.taken.get("cpu", []), "cpu"),
            _number(comparison.ratio(way)),
            _number(comparison.median_ratio(way)),
            _number(comparison.ratio(way, "cpu")) if "cpu" in comparison.clocks else "",
            "" if net is None else _number(net),
            _number(comparison.ratio(ours, to=way)) if ours is not None and way.kind == "rival" else "",
            _bar(way),
            verdict(comparison, way),
        ]


def _number(ratio: float) -> str:
    return f"{ratio:.3f}" if ratio >= 0.1 else f"{ratio:.4f}"


def _bar(way: Way) -> str:
    return " / ".join(f"{limit:.3g}" for limit in (way.bar, way.stretch) if limit is not None)


def _amount(samples: list[float], clock: str) -> str:
    if not samples:
        return ""
    made = summary(samples, clock)
    if clock not in ("wall", "cpu"):
        amount = made["min"]
        return f"{amount:.0f} B" if amount < 1e6 else f"{amount / 1e6:.0f} MB"
    return " / ".join(f"{value:.3g}" if value < 100 else f"{value:.0f}" for value in made.values())
