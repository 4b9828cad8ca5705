"""What the specimens of the wire name by path. Nothing here may change: messages of old releases are under way."""

import dataclasses
import enum
from typing import Any, NamedTuple


class Colour(enum.Enum):
    RED = "r"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass(frozen=True)
class Point:
    x: Any
    y: Any


class Pair(NamedTuple):
    left: Any
    right: Any


def function() -> None: ...
