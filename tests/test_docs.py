"""What the documentation shows works: every Python block in it runs (see docs_blocks for the convention)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs_blocks import BLOCK, settings_of

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    path.relative_to(ROOT).as_posix()
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if BLOCK.search(path.read_text())
]


def run_blocks(document: Path) -> subprocess.CompletedProcess[str]:
    """A process of its own: what a page connects and registers must not reach other tests."""
    command = [sys.executable, "-m", "tests.docs_blocks", str(document)]
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": settings_of(document)}
    # In-memory SQLite whatever the other tests use: pages that run side by side would share a server's database.
    environment.pop("TEST_DATABASE", None)
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_python_blocks_run(document: str) -> None:
    done = run_blocks(ROOT / document)
    assert done.returncode == 0, done.stdout + done.stderr


def test_blocks_share_a_namespace_and_can_be_modules(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text(
        "<!-- docs-test: file=cafe/menu.py -->\n```python\nPIZZA = 7\n```\n"
        "```console\n$ not python\n```\n"
        "```python\nfrom cafe.menu import PIZZA\n```\n"
        "```python\nfrom django.contrib.auth.models import User\n"
        "print(PIZZA, User.objects.count())\n```\n"
    )
    done = run_blocks(document)
    assert (done.returncode, done.stdout) == (0, "7 0\n"), done.stderr


def test_a_block_that_fails_is_shown_with_its_line(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text("# A page\n\n```python\nassert 1 == 2\n```\n")
    done = run_blocks(document)
    assert done.returncode == 1
    assert 'page.md", line 4' in done.stderr
    assert "assert 1 == 2" in done.stderr
