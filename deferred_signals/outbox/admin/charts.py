"""Small charts, drawn as SVG: bars of a day, hour by hour. Colours are classes, of the admin's own variables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

HEIGHT = 96
_WIDTH, _GAP = 18, 2

#: Of one hour, numbers by what they count; in the order in which they stand on one another.
Hour = Mapping[str, int]


def bars(title: str, hours: Sequence[Hour], *, and_before: bool = False) -> SafeString:
    """A chart of hours, the last of which is the one that ends now; the first may stand for all before it, too."""
    most = _most(hours)
    width = len(hours) * (_WIDTH + _GAP)
    drawn = format_html_join("", "<g><title>{}</title>{}</g>", _drawn(hours, most, and_before))
    return format_html(
        '<svg class="ds-chart" viewBox="0 0 {} {}" role="img" aria-label="{}" preserveAspectRatio="none">{}'
        '<line class="ds-axis" x1="0" y1="{}" x2="{}" y2="{}"/></svg>',
        width,
        HEIGHT + 1,
        _alternative(title, hours, most, and_before),
        drawn,
        HEIGHT,
        width,
        HEIGHT,
    )


def with_numbers(title: str, hours: Sequence[Hour], *, and_before: bool = False) -> dict[str, Any]:
    """The same for a template, and all that it shows as text."""
    return {
        "title": title if and_before else f"{title}, the last {len(hours)} hours",
        "svg": bars(title, hours, and_before=and_before),
        "ago": f"{len(hours)} hours ago{' and before' if and_before else ''}",
        "most": _most(hours),
        "kinds": list(hours[0]),
        "hours": [
            (when(index, len(hours), and_before=and_before), list(hour.values()))
            for index, hour in reversed([*enumerate(hours)])
        ],
    }


def _most(hours: Sequence[Hour]) -> int:
    return max((sum(hour.values()) for hour in hours), default=0)


def when(index: int, of: int, *, and_before: bool = False) -> str:
    """Which hour one of so many is, in words."""
    ago = of - index
    if and_before and index == 0:
        return f"more than {ago - 1} hours ago"
    return "in the last hour" if ago == 1 else f"{ago - 1} to {ago} hours ago"


def _alternative(title: str, hours: Sequence[Hour], most: int, and_before: bool) -> str:
    total = sum(sum(hour.values()) for hour in hours)
    before = " and before" if and_before else ""
    return (
        f"{title}: {total:,} in {len(hours)} hours{before}, at most {most:,} in one of them. The numbers stand below."
    )


def _drawn(hours: Sequence[Hour], most: int, and_before: bool) -> Iterator[tuple[str, SafeString]]:
    for index, hour in enumerate(hours):
        said = ", ".join(f"{count:,} {name}" for name, count in hour.items() if count) or "nothing"
        yield (
            f"{when(index, len(hours), and_before=and_before)}: {said}",
            format_html_join("", _RECT, _stacked(index, hour, most)),
        )


_RECT = '<rect class="ds-bar ds-{}" x="{}" y="{}" width="{}" height="{}"/>'


def _stacked(index: int, hour: Hour, most: int) -> Iterator[tuple[str, int, str, int, str]]:
    top = float(HEIGHT)
    for name, count in hour.items():
        if count:
            # What is there can be seen, be it one of a million.
            height = max(1.0, HEIGHT * count / most)
            top -= height
            yield name, index * (_WIDTH + _GAP), f"{max(top, 0.0):.1f}", _WIDTH, f"{height:.1f}"
