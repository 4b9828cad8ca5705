"""``make build`` refuses a wheel in which a file of the package is wanting."""

import zipfile
from pathlib import Path

import pytest

from tests.wheel import ROOT, files_of, objections

FILES = [
    "deferred_signals/__init__.py",
    "deferred_signals/py.typed",
    "deferred_signals/outbox/static/deferred_signals/outbox.css",
    "deferred_signals/outbox/migrations/0001_initial.py",
    "deferred_signals/templates/deferred_signals/debug_toolbar.html",
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in [*FILES, "deferred_signals/__pycache__/__init__.cpython-311.pyc", "tests/__init__.py"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def pack(folder: Path, names: list[str]) -> Path:
    wheel = folder / "deferred_signals-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as opened:
        for name in [*names, "deferred_signals-1.0.dist-info/METADATA"]:
            opened.writestr(name, "")
    return wheel


def test_a_wheel_with_all_files_is_right(tree: Path):
    assert objections(pack(tree, FILES), tree) == []


@pytest.mark.parametrize("name", FILES)
def test_a_wheel_without_one_of_them_is_not(tree: Path, name: str):
    assert objections(pack(tree, [one for one in FILES if one != name]), tree) == [f"lacks {name}"]


def test_nor_is_one_with_something_else(tree: Path):
    [objection] = objections(pack(tree, [*FILES, "tests/__init__.py"]), tree)
    assert objection.startswith("has tests/__init__.py")


def test_the_package_has_files_of_every_kind_that_may_be_forgotten():
    assert {Path(name).suffix for name in files_of(ROOT)} >= {".py", ".typed", ".html", ".css"}
