"""All signals of the Django that is installed, found in its sources: a new one cannot be overlooked."""

import re
from functools import cache
from importlib import import_module
from pathlib import Path

import django
from django.dispatch import Signal


@cache
def installed_signals() -> dict[str, Signal]:
    """The signals that a module of Django makes, by name."""
    root = Path(django.__file__).parent
    sources = [path for path in root.rglob("*.py") if re.search(r"^\w+ = \w*Signal\(", path.read_text(), re.MULTILINE)]
    found: dict[str, Signal] = {}
    for source in sources:
        module = import_module(".".join(("django", *source.relative_to(root).with_suffix("").parts)))
        found |= {name: value for name, value in vars(module).items() if isinstance(value, Signal)}
    return found


def name_of(signal: Signal) -> str:
    return next(name for name, value in installed_signals().items() if value is signal)
