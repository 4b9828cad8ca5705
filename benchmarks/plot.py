"""``make bench-plot``: the scaling curves of results.json as SVG, drawn without a library."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

HERE = Path(__file__).resolve().parent
WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 72, 240, 44, 52
#: The first ones the colour-blind tell apart, on light and on dark ground.
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#8c510a", "#5e3c99", "#01665e")
STYLE = (
    "text{font-family:system-ui,'DejaVu Sans',sans-serif;font-size:12px;fill:#333}"
    ".title{font-size:15px;font-weight:600}"
    ".grid{stroke:#8884;stroke-width:1}.curve{fill:none;stroke-width:2.2}"
    "@media (prefers-color-scheme:dark){text{fill:#ddd}}"
)

#: By the kind of a way, when it gets its colour.
RANKS = {"": 0, "ours": 1}

Points = list[tuple[float, float]]


@dataclass
class Chart:
    """One picture: how it is called, what its axes say, and which comparisons are its points."""

    name: str
    title: str
    across: str
    pattern: str
    #: What one unit of the work is divided by.
    each: Callable[[float], float] = lambda at: 1.0


CHARTS = (
    Chart(
        "per-transaction",
        "What one delivery costs the sender on Redis, in µs",
        "deliveries in the transaction",
        r"delivery_(\d+)",
        lambda at: at,
    ),
    Chart("per-signal", "What one send costs on Redis, in µs", "receivers of the signal", r"receivers_(\d+)"),
    Chart(
        "per-payload", "What one delivery costs the sender on Redis, in µs", "bytes of its argument", r"payload_(\d+)"
    ),
)


def curves(chart: Chart, comparisons: dict[str, Any]) -> dict[str, Points]:
    """By the names of the ways, their points: theirs, ours, and then the others, which get the other colours."""
    found: dict[str, Points] = {}
    ranks: dict[str, int] = {}
    for key, comparison in comparisons.items():
        if (match := re.fullmatch(chart.pattern, key)) is None:
            continue
        at = float(match[1])
        for way in comparison["ways"]:
            name = way["name"].partition(" (rows only")[0].partition(" (before")[0]
            if not name.startswith("no receiver"):
                found.setdefault(name, []).append((at, way["wall"]["min"] / chart.each(at)))
                ranks[name] = RANKS.get(way.get("kind", ""), 2)
    return {name: sorted(found[name]) for name in sorted(found, key=ranks.__getitem__) if len(found[name]) > 1}


def _decades(low: float, high: float) -> list[float]:
    return [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]


def _said(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _text(x: float, y: float, said: str, more: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(said)}</text>'


def draw(chart: Chart, found: dict[str, Points]) -> str:
    """The picture; both axes are logarithmic, for the curves lie far from one another."""
    xs = sorted({x for points in found.values() for x, _ in points})
    ys = [y for points in found.values() for _, y in points]
    rows = _decades(min(ys), max(ys))

    def place(value: float, low: float, high: float, start: float, end: float) -> float:
        return start + (end - start) * (math.log10(value) - math.log10(low)) / (math.log10(high) - math.log10(low))

    def x_of(x: float) -> float:
        return place(x, xs[0], xs[-1], LEFT, WIDTH - RIGHT)

    def y_of(y: float) -> float:
        return place(y, rows[0], rows[-1], HEIGHT - BOTTOM, TOP)

    parts = [_text(LEFT, 24, chart.title, 'class="title"')]
    for row in rows:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y_of(row):.1f}" y2="{y_of(row):.1f}"/>')
        parts.append(_text(LEFT - 8, y_of(row) + 4, _said(row), 'text-anchor="end"'))
    parts += [_text(x_of(x), HEIGHT - BOTTOM + 18, _said(x), 'text-anchor="middle"') for x in xs]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, chart.across, 'text-anchor="middle"'))
    # The names stand beside the ends of their curves, in their order, pushed apart where they would overlap.
    names = sorted(found, key=lambda name: y_of(found[name][-1][1]))
    last = 0.0
    for name in names:
        colour = COLOURS[list(found).index(name) % len(COLOURS)]
        points = [(x_of(x), y_of(y)) for x, y in found[name]]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline class="curve" stroke="{colour}" points="{line}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        last = max(last + 15, points[-1][1])
        parts.append(_text(WIDTH - RIGHT + 12, last + 4, name, f'style="fill:{colour}"'))
    body = "\n".join(parts)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    return f"{head}\n<title>{escape(chart.title)}</title>\n<style>{STYLE}</style>\n{body}\n</svg>\n"


def main() -> None:
    """Draw what is there."""
    parser = argparse.ArgumentParser(description="Draw the scaling curves of results.json as SVG.")
    parser.add_argument("--input", type=Path, default=HERE / "results.json")
    parser.add_argument("--output", type=Path, default=HERE.parent / "docs" / "_static", help="a directory")
    given = parser.parse_args()
    comparisons = json.loads(given.input.read_text())["comparisons"]
    for chart in CHARTS:
        file = given.output / f"benchmarks-{chart.name}.svg"
        if found := curves(chart, comparisons):
            file.write_text(draw(chart, found))
            print(file)
        else:
            print(f"NOT DRAWN: {file.name}: {given.input} has less than two comparisons {chart.pattern}")


if __name__ == "__main__":
    main()
