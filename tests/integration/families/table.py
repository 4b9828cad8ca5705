"""The table of docs/signals.md: which argument of which signal travels how, and what arrives."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import django

PAGE = Path(__file__).resolve().parents[3] / "docs" / "signals.md"


class Row(NamedTuple):
    signal: str
    argument: str
    #: Which values the row is about, where not all; one of ``expectations.CONDITIONS``.
    condition: str
    travels: str
    arrives: str

    def __str__(self) -> str:
        return f"{self.signal}.{self.argument}" + (f" ({self.condition})" if self.condition else "")


def tables() -> Iterator[tuple[str, list[list[str]]]]:
    """The tables of the page: the first word of the head, and the rows' cells."""
    for found in re.finditer(r"^\|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE.read_text(), re.MULTILINE):
        head, _, *lines = found[0].splitlines()
        yield head.split("|")[1].strip(), [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def table(head: str) -> list[list[str]]:
    """The rows of the one table with that head."""
    [rows] = [rows for word, rows in tables() if word == head]
    return rows


def named(cell: str) -> list[tuple[str, str]]:
    """The names in a cell, each with what stands in parentheses behind it."""
    return re.findall(r"`([^`]+)`(?: \(([^)]+)\))?", cell)


def exists(condition: str) -> bool:
    """Whether the Django here has what the table says of ``(Django x.y)``."""
    version = re.match(r"Django (\d+)(?:\.(\d+))?$", condition)
    return not version or django.VERSION[:2] >= (int(version[1]), int(version[2] or 0))


@cache
def rows(*, every_django: bool = False) -> tuple[Row, ...]:
    """The table's rows, by default those that mean the Django here."""
    found = []
    for signals, arguments, travels, arrives in table("signal"):
        for signal, since in named(signals):
            for argument, condition in named(arguments):
                if every_django or (exists(since) and exists(condition)):
                    found.append(Row(signal, argument, re.sub("^Django.*", "", condition), travels, arrives))
    return tuple(found)


def ids(signals: tuple[str, ...]) -> set[str]:
    """The rows of some signals, as the scenarios name what they have compared."""
    return {str(row) for row in rows() if row.signal in signals}


def words(of: str) -> tuple[str, ...]:
    """What the second table says travels of an ``environ``, a ``scope`` or of headers."""
    [cell] = [cell for name, cell in table("of") if name.strip("`") == of]
    return tuple(name for name, _ in named(cell))
