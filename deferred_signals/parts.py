"""Many things in parts, none of which has too many of them or is too large."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def in_parts(items: Sequence[Item], sizes: Iterable[int], most: int, largest: int) -> Iterator[Sequence[Item]]:
    """Cut items, of these sizes, into parts of ``most`` at most, none larger than ``largest`` but of a single item."""
    start = total = 0
    for place, size in enumerate(sizes):
        if place > start and (place - start == most or total + size > largest):
            yield items[start:place]
            start, total = place, 0
        total += size
    if start < len(items):
        yield items[start:]
