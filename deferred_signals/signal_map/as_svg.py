"""The map as a picture: plain SVG, drawn here, without scripts; every text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from ..doctor.findings import plain
from .connection import Connection
from .graph import graph
from .layout import LINE, PADDING, Box, Layout, Line, arrange

_LIGHT = "--ink:#1c2733;--page:#ffffff;--sender:#e8eef7;--signal:#fff4d6;--inline:#f1f1f1;--deferred:#dff3e4;"
_LIGHT += "--line:#8a8a8a;--later:#2f8f4e"
_DARK = "--ink:#e6e6e6;--page:#16191d;--sender:#253449;--signal:#4a3d12;--inline:#2d3136;--deferred:#1d3d28;"
_DARK += "--line:#8d949c;--later:#63c384"
#: Also for a page that says by data-theme how it is shown, as Django's admin does.
STYLE = f"""
.signal-map {{{_LIGHT};font:12px ui-monospace,Menlo,Consolas,monospace}}
@media (prefers-color-scheme: dark) {{ .signal-map {{{_DARK}}} }}
[data-theme="light"] .signal-map {{{_LIGHT}}}
[data-theme="dark"] .signal-map {{{_DARK}}}
.signal-map .page {{fill:var(--page);stroke:none}}
.signal-map text {{fill:var(--ink)}}
.signal-map rect {{stroke:var(--line)}}
.signal-map .sender rect {{fill:var(--sender)}}
.signal-map .signal rect {{fill:var(--signal)}}
.signal-map .inline rect {{fill:var(--inline)}}
.signal-map .deferred rect, .signal-map .durable rect {{fill:var(--deferred);stroke:var(--later)}}
.signal-map .durable rect {{stroke-width:3}}
.signal-map path {{fill:none;stroke:var(--line)}}
.signal-map path.deferred {{stroke:var(--later);stroke-dasharray:5 4}}
.signal-map path.durable {{stroke:var(--later);stroke-width:2.5}}
"""


def draw(connections: Sequence[Connection], *, style: bool = True) -> str:
    """The picture, a whole document of its own; the same for the same connections."""
    made: Layout = arrange(graph(connections))
    width, height = max(made.width, 1), max(made.height, 1)
    size, seen = f'width="{width:.1f}" height="{height:.1f}"', f"0 0 {width:.1f} {height:.1f}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="signal-map" role="img" {size} viewBox="{seen}">',
        "<title>Signals and receivers</title>",
        "<desc>Who sends, what, and who listens. Solid lines: inline. Dashed: deferred. Thick: durable.</desc>",
    ]
    if style:
        lines.append(f"<style>{STYLE}</style>")
    lines.append(f'<rect class="page" {size} stroke="none"/>')
    lines += [_path(line) for line in made.lines]
    lines += [_group(box) for box in made.boxes]
    return "\n".join([*lines, "</svg>"]) + "\n"


def _path(line: Line) -> str:
    x, y, end = line.start.x + line.start.width, line.start.middle, line.end.x
    bend = (x + end) / 2
    way = f"M{x:.1f},{y:.1f} C{bend:.1f},{y:.1f} {bend:.1f},{line.end.middle:.1f} {end:.1f},{line.end.middle:.1f}"
    return f'<path class="{line.kind}" d="{way}"/>'


def _group(box: Box) -> str:
    # A line of text stands on its baseline.
    x, y = box.x + PADDING, box.y + PADDING + LINE * 0.75
    texts = "".join(
        f'<text x="{x:.1f}" y="{y + LINE * place:.1f}">{_escaped(text)}</text>' for place, text in enumerate(box.texts)
    )
    rect = f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="4"/>'
    return f'<g class="{box.kind}"><title>{_escaped(box.title)}</title>{rect}{texts}</g>'


def _escaped(text: str) -> str:
    # What XML cannot say at all, control characters and lone surrogates, is no character that can be printed.
    return escape(plain(text))
