"""The screenshots of the documentation: each is small and shown, and none that is shown is missing."""

import re
import struct
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
SHOTS = sorted((DOCS / "_static/screenshots").glob("*.png"))


def shown() -> dict[str, str]:
    """By name the alternative text of each that a page shows."""
    text = "".join(page.read_text() for page in DOCS.glob("*.md"))
    return dict(re.findall(r"\{image\} _static/screenshots/(\S+)\n\s*:alt: (.+)", text))


def test_the_pages_show_those_that_there_are_each_with_what_it_shows():
    assert sorted(shown()) == [path.name for path in SHOTS]
    assert all(len(text) > 20 for text in shown().values())


def test_the_command_takes_them_all():
    said = (DOCS / "screenshots.py").read_text()
    assert [path.stem for path in SHOTS if f'"{path.stem}"' not in said] == []


@pytest.mark.parametrize("path", SHOTS, ids=lambda path: path.name)
def test_one_is_small(path: Path):
    head = path.read_bytes()
    assert len(head) < 120_000
    assert struct.unpack(">I", head[16:20])[0] == 1280  # its width
