"""What the doctor says: lines with a mark, in sections."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

#: A note is no judgement: it says what could not be looked at, or is only good to know.
Mark = Literal["ok", "note", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. ``cure`` is what to do about it, ``id`` that of the system check which found it."""

    mark: Mark
    text: str
    cure: str = ""
    id: str = ""


@dataclass(slots=True)
class Section:
    """Lines under a title."""

    title: str
    findings: list[Finding] = field(default_factory=list)

    def add(self, mark: Mark, text: str, cure: str = "", *, id: str = "") -> None:  # noqa: A002 - as in the output
        """Append a line."""
        self.findings.append(Finding(mark, text, cure, id))


def plain(text: str) -> str:
    """One line, and nothing that a terminal would obey: names come from whoever can write to broker or database."""
    return "".join(character if character.isprintable() else "?" for character in text)
