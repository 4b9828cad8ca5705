"""The tests that documents name: ``tests/test_x.py::TestClass::test_name``, in backticks."""

import ast
import functools
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

_NAMED = re.compile(r"`(tests/[\w/]+\.py(?:::\w+)*)`")


def named_in(text: str) -> list[str]:
    """What a text names: files, classes and functions of the tests."""
    return _NAMED.findall(text)


def is_one_test(node: str) -> bool:
    """Whether it names one test function, and not a file or a class."""
    file, _, names = node.partition("::")
    return names.split("::")[-1].startswith("test_") and Path(file).name.startswith("test_")


@functools.cache
def _definitions(file: str) -> dict[str, ast.AST]:
    """Classes and functions of a file, and the methods of its classes, by what stands behind the file's name."""
    found: dict[str, ast.AST] = {}
    inside = [("", ast.parse((ROOT / file).read_text(encoding="utf-8")).body)]
    for above, body in inside:
        for one in body:
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found[f"{above}::{one.name}"] = one
                if isinstance(one, ast.ClassDef):
                    inside.append((f"{above}::{one.name}", one.body))
    return found


def exists(node: str) -> bool:
    """Whether there is such a file, class or function."""
    file, separator, names = node.partition("::")
    return (ROOT / file).is_file() and (not names or separator + names in _definitions(file))
