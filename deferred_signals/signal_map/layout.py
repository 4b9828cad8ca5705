"""Where the boxes of a drawing stand: three columns, no library, the same for the same map."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from .graph import ANY_SENDER, Graph, manner, short

#: Measures in pixels. The letters are those of a monospaced font, so that a width is known without one.
LETTER, LINE, PADDING, GAP, COLUMN_GAP, MARGIN = 7.3, 16, 8, 10, 90, 16
#: Letters of a line; what is longer is cut, and stands in full in the box's title.
LONGEST = 60


@dataclass(frozen=True, slots=True)
class Box:
    """A box with one or two lines of text. ``title`` is what it is called in full."""

    x: float
    y: float
    width: float
    height: float
    texts: tuple[str, ...]
    title: str
    kind: str

    @property
    def middle(self) -> float:
        """Its middle, from above."""
        return self.y + self.height / 2


@dataclass(frozen=True, slots=True)
class Line:
    """A line from the right side of a box to the left side of another."""

    start: Box
    end: Box
    kind: str


@dataclass(frozen=True, slots=True)
class Layout:
    """A drawing, and how large it is."""

    width: float
    height: float
    boxes: list[Box]
    lines: list[Line]


def cut(text: str) -> str:
    """A text that is not too long for its box: of a name the end says most."""
    return text if len(text) <= LONGEST else f"…{text[1 - LONGEST :]}"


def width_of(text: str) -> float:
    """How wide a text is: letters of East Asia take the room of two."""
    return sum(LETTER * (2 if unicodedata.east_asian_width(letter) in "WF" else 1) for letter in text)


#: The texts, the title and the kind of a box.
Content = tuple[tuple[str, ...], str, str]


def arrange(graph: Graph) -> Layout:
    """Give each box its place."""
    columns: list[list[Content]] = [
        [((name or ANY_SENDER,), name or ANY_SENDER, "sender") for name in graph.senders],
        [((short(signal),), f"{signal}, sent by {sender or ANY_SENDER}", "signal") for signal, sender in graph.sends],
        [_receiver(graph, name) for name in graph.receivers],
    ]
    heights = [
        sum(len(texts) * LINE + 2 * PADDING for texts, _, _ in column) + GAP * max(0, len(column) - 1)
        for column in columns
    ]
    height = max(heights)
    x = float(MARGIN)
    placed: list[list[Box]] = []
    for column, tall in zip(columns, heights, strict=True):
        width = 2 * PADDING + max((width_of(cut(text)) for texts, _, _ in column for text in texts), default=0)
        # Each column in the middle, by which lines are shorter.
        y = MARGIN + (height - tall) / 2
        boxes = []
        for texts, title, kind in column:
            box = Box(x, y, width, len(texts) * LINE + 2 * PADDING, tuple(map(cut, texts)), title, kind)
            boxes.append(box)
            y += box.height + GAP
        placed.append(boxes)
        x += width + COLUMN_GAP
    senders = dict(zip(graph.senders, placed[0], strict=True))
    sends = dict(zip(graph.sends, placed[1], strict=True))
    receivers = dict(zip(graph.receivers, placed[2], strict=True))
    lines = [Line(senders[sender], box, "sends") for (_, sender), box in sends.items()]
    lines += [
        Line(sends[one.signal, one.sender], receivers[one.receiver], _kind(one.deferred, one.durable))
        for one in graph.lines
    ]
    return Layout(x - COLUMN_GAP + MARGIN, height + 2 * MARGIN, [box for column in placed for box in column], lines)


def _receiver(graph: Graph, name: str) -> Content:
    mine = [one for one in graph.lines if one.receiver == name]
    manners = list(dict.fromkeys(said for one in mine if (said := manner(one))))
    kind = _kind(any(one.deferred for one in mine), any(one.durable for one in mine))
    return (name, *(["; ".join(manners)] if manners else [])), name, kind


def _kind(deferred: bool, durable: bool) -> str:
    if durable:
        return "durable"
    return "deferred" if deferred else "inline"
