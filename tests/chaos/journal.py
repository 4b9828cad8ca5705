"""What every process of a run writes down, in one file: a JSON object a line, in the order in which things happened.

A file and not a table: a rollback does not undo it, and a killed process has written what it did. Each line is one
write to a file that is open for appending, so the lines of several processes do not mix.
"""

import functools
import json
import os
import time
from pathlib import Path
from typing import Any

#: Where a run's processes find the file.
VARIABLE = "CHAOS_JOURNAL"


@functools.cache
def _file() -> int:
    return os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def note(what: str, **fields: Any) -> None:
    """Write a line. ``at`` is in seconds, on the one clock that all processes of a machine share."""
    os.write(_file(), json.dumps({"what": what, "at": time.monotonic(), **fields}).encode() + b"\n")


class Reader:
    """Reads a journal while it is written."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self._file = path.open("rb")
        self._rest = b""

    def new(self) -> list[dict[str, Any]]:
        """The lines that were written since the last call."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        self._file.close()
