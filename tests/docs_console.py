"""What the console blocks of a page show is what the commands print.

A block begins with ``$ python manage.py ...``; what follows is its output. Ids, times and ages differ from run to run,
and so does where a page's modules lie: they are compared by their form only.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from django.core.management import CommandError, call_command

_BLOCK = re.compile(r"^```console\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\$ python manage\.py (.+)$", re.MULTILINE)
_CHANGING = (
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "<id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b"), "<time>"),
    (re.compile(r"\((?:in )?\d+ (?:s|min|h|d)(?: ago)?\)"), "<age>"),
    (re.compile(r"\S*/?(shop/\w+\.py):\d+"), r"\1:<line>"),
)


def documented(page: Path) -> dict[str, str]:
    """By the words after ``manage.py``, what the page says is printed."""
    found = {}
    for block in _BLOCK.finditer(page.read_text()):
        _, *parts = _COMMAND.split(block["text"])
        found.update({command: output.strip("\n") for command, output in zip(parts[::2], parts[1::2], strict=True)})
    return found


def printed(command: str) -> str:
    """What a command prints, an error at its end included, to somebody who says yes."""
    out = StringIO()

    def answer(question: str) -> str:
        out.write(f"{question}y\n")
        return "y"

    try:
        with patch("builtins.input", answer):
            call_command(*shlex.split(command), stdout=out, stderr=out, no_color=True)
    except CommandError as error:
        out.write(f"CommandError: {error}\n")
    return out.getvalue().strip("\n")


def alike(text: str) -> str:
    """A text without what differs from run to run."""
    for pattern, instead in _CHANGING:
        text = pattern.sub(instead, text)
    return text


def check(page: Path, command: str, ids: Mapping[str, str] | None = None) -> None:
    """Run one command of a page; raise AssertionError where it prints something else than the page shows.

    ``ids``: by the ids that the page shows, the real ones.
    """
    shown, real = documented(page)[command], command
    for one, other in (ids or {}).items():
        real = real.replace(one, other)
    output = printed(real)
    assert alike(output) == alike(shown), f"{command} prints:\n{output}"
