"""Draw the diagrams of these pages into ``_static``: ``make docs-diagrams``. A test holds them to what this draws.

Plain SVG from a list of boxes and arrows; no program or font is needed. Light and dark by the reader's system.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

STATIC = Path(__file__).parent / "_static"

STYLE = """
  svg {
    --paper: #ffffff; --ink: #1f2328; --line: #59636e; --box: #f6f8fa; --good: #dafbe1; --bad: #ffebe9; --wait: #fff8c5;
  }
  @media (prefers-color-scheme: dark) {
    svg {
      --paper: #131416; --ink: #e6edf3; --line: #8b949e; --box: #21262d; --good: #12361d; --bad: #4c1512;
      --wait: #3d2e00;
    }
  }
  .paper { fill: var(--paper); }
  .box { fill: var(--box); stroke: var(--line); }
  .good { fill: var(--good); stroke: var(--line); }
  .bad { fill: var(--bad); stroke: var(--line); }
  .wait { fill: var(--wait); stroke: var(--line); }
  .arrow { fill: none; stroke: var(--line); stroke-width: 1.5; marker-end: url(#tip); }
  .dashed { stroke-dasharray: 5 4; }
  .tip { fill: var(--line); }
  text { fill: var(--ink); font: 13px system-ui, sans-serif; text-anchor: middle; }
  .small { font-size: 11px; }
  .left { text-anchor: start; }
  .word { font-weight: 600; }
"""


class Box(NamedTuple):
    """A state: its place, its words, a line below them, and a class of the style."""

    x: int
    y: int
    word: str
    small: str = ""
    kind: str = "box"
    width: int = 150
    height: int = 46

    def draw(self) -> Iterator[str]:
        """The box and its words."""
        middle, centre = self.x + self.width // 2, self.y + self.height // 2
        yield (
            f'<rect class="{self.kind}" x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" rx="6"/>'
        )
        yield text(middle, centre + (-2 if self.small else 5), self.word, "word")
        if self.small:
            yield text(middle, centre + 14, self.small, "small")


def text(x: int, y: int, words: str, kind: str = "") -> str:
    """Words at a place."""
    return f'<text class="{kind}" x="{x}" y="{y}">{escape(words)}</text>'


def arrow(path: str, kind: str = "") -> str:
    """A line with a tip at its end."""
    return f'<path class="{f"arrow {kind}".strip()}" d="{path}"/>'


_TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    '<path class="tip" d="M0 0 8 4 0 8z"/></marker></defs>'
)


def svg(width: int, height: int, title: str, parts: list[str]) -> str:
    """The file."""
    size = f'viewBox="0 0 {width} {height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title">',
            f'<title id="title">{escape(title)}</title>',
            f"<style>{STYLE}</style>",
            _TIP,
            f'<rect class="paper" width="{width}" height="{height}"/>',
            *parts,
            "</svg>\n",
        ]
    )


def life() -> str:
    """From the send to the outcome."""
    boxes = [
        Box(20, 110, "send()", "encoded, signed"),
        Box(210, 110, "waits for the commit", "", "box", 170),
        Box(420, 110, "published", "at the broker"),
        Box(620, 110, "attempt", "the receiver runs"),
        Box(820, 20, "succeeded", "", "good"),
        Box(820, 110, "discarded", "on purpose", "good"),
        Box(820, 200, "dead", "against our will", "bad"),
        Box(20, 230, "no delivery", "when, raw, suppress()"),
        Box(220, 230, "never sent", "rolled back"),
        Box(420, 230, "unpublished", "lost; kept with the outbox", "bad", 170),
        Box(640, 230, "retry", "a pause, then again", "wait", 130),
    ]
    arrows = [
        arrow("M170 133H204"),
        arrow("M380 133H414"),
        arrow("M570 133H614"),
        arrow("M770 126L816 52"),
        arrow("M770 133H814"),
        arrow("M770 142L816 216"),
        arrow("M95 156V224"),
        arrow("M295 156V224"),
        arrow("M480 156V224"),
        arrow("M540 230V162", "dashed"),
        arrow("M705 156V224"),
        arrow("M640 268H605V180Q605 168 590 168H560V162"),
        # A worker that is lost: the message comes back.
        arrow("M720 110V60Q720 48 708 48H507Q495 48 495 60V104"),
        arrow("M895 246V318Q895 330 883 330H412Q400 330 400 318V145H414", "dashed"),
    ]
    labels = [
        text(606, 40, "the worker is lost: it comes back, counted; CRASH_LIMIT times, then dead", "small"),
        text(705, 294, "it raised · a database is away · not known here yet", "small"),
        text(650, 348, "redeliver: attempt 1 again (with the outbox)", "small"),
        text(510, 198, "the relay", "small"),
    ]
    parts = [*arrows, *(line for box in boxes for line in box.draw()), *labels]
    return svg(990, 365, "The life of a delivery: from send() to one of four outcomes", parts)


#: Floor, its main rooms, and what is done there. ``tests/test_diagrams.py`` holds the rooms to the floors of the code.
FLOORS = [
    (7, ("dispatch", "connecting", "deferred_receiver"), "which receivers wait?"),
    (6, ("publisher", "frames", "handover"), "wait for the commit, hand over together"),
    (5, ("backends", "coalescing"), "to whoever runs them: celery, immediate, memory"),
    (4, ("tasks", "worker_guard"), "Celery's one door"),
    (3, ("attempt", "delivery"), "open, resolve, call, judge: the outcome"),
    (2, ("codec",), "Python values and JSON"),
    (1, ("references", "envelope", "registry", "options", "context"), "the values that travel, the names"),
    (0, ("exceptions", "conf", "signals"), "the words"),
]
#: The broker is below the first of these two; what is below the second is used by both processes.
_LAST_OF_THE_SENDER, _LAST_OF_THE_WORKER = 5, 3


def staircase() -> str:
    """The floors of the package; the broker is the gap in the middle."""
    parts, y = [], 20
    for step, (floor, rooms, does) in enumerate(FLOORS):
        x = 20 + 34 * step
        kind = "good" if floor >= _LAST_OF_THE_SENDER else "wait" if floor >= _LAST_OF_THE_WORKER else "box"
        parts += [
            f'<rect class="{kind}" x="{x}" y="{y}" width="{700 - x}" height="40"/>',
            text(x + 12, y + 25, str(floor), "left word"),
            text(x + 34, y + 18, " · ".join(rooms), "left word"),
            text(x + 34, y + 33, does, "left small"),
        ]
        y += 40
        if floor == _LAST_OF_THE_SENDER:
            parts += [arrow(f"M{x + 60} {y + 2}V{y + 38}", "dashed"), text(x + 300, y + 25, "the broker", "word")]
            y += 40
    parts += [
        arrow("M740 24V136"),
        text(790, 84, "sender"),
        arrow("M740 184V256"),
        text(790, 224, "worker"),
        arrow("M740 268V376", "dashed"),
        text(790, 324, "both"),
        text(360, y + 22, "Imports point down; what is sent walks down the same steps.", "small"),
    ]
    return svg(840, y + 36, "The package as a staircase of eight floors, with the broker as a gap", parts)


DIAGRAMS = {"life-of-a-delivery.svg": life, "staircase.svg": staircase}


def main(folder: Path = STATIC) -> None:
    """Write them."""
    for name, draw in DIAGRAMS.items():
        (folder / name).write_text(draw())
        print(folder / name)  # noqa: T201 - a command


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
