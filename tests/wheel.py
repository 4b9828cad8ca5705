"""A wheel as people get it: ``python -m tests.wheel dist/*.whl``, which ``make build`` runs. Needs nothing but Python.

It must hold all files of the package, and a project that has it from the wheel, in a virtual environment of its own and
without this checkout, must work: see ``tests/installed``.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "deferred_signals"


def files_of(root: Path) -> set[str]:
    """The files of the package as Git has them: what Python and editors leave beside is nobody's."""
    return {
        path.relative_to(root).as_posix()
        for path in (root / PACKAGE).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


def objections(wheel: Path, root: Path = ROOT) -> list[str]:
    """What a wheel lacks, and what it has that is not of the package; its metadata aside."""
    with zipfile.ZipFile(wheel) as opened:
        found = {name for name in opened.namelist() if ".dist-info/" not in name}
    expected = files_of(root)
    return [f"lacks {name}" for name in sorted(expected - found)] + [
        f"has {name}, which is not in {PACKAGE}/" for name in sorted(found - expected)
    ]


def try_it(wheel: Path) -> int:
    """Install it, and let the project of ``tests/installed`` use it; pytest's exit code."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        venv.create(home / "venv", with_pip=True)
        python = home / "venv/bin/python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", wheel.resolve(), "pytest-django"], check=True)
        shutil.copytree(ROOT / "tests/installed", home / "project")
        alone = {
            key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "DJANGO_", "PYTEST_"))
        }
        command = [str(python), "-m", "pytest", "-q", "checks.py"]
        return subprocess.run(command, cwd=home / "project", env=alone, check=False).returncode


if __name__ == "__main__":
    [wheel] = map(Path, sys.argv[1:])
    if found := objections(wheel):
        sys.exit("\n".join([f"{wheel.name}:", *found]))
    sys.exit(try_it(wheel))
