"""What several options and settings ask of their values alike: each returns the value, or raises ValueError."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("True or False")
    return value


def whole(least: int, most: int) -> Callable[[Any], int]:
    """A check for a whole number between the two."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return value

    return check


def one_of(*words: str) -> Callable[[Any], str]:
    """A check for one of these words."""

    def check(value: Any) -> str:
        if value not in words:
            raise ValueError(" or ".join(f'"{word}"' for word in words))
        return str(value)

    return check
