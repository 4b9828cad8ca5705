"""The name by which a signal travels."""

from __future__ import annotations

import sys
from types import ModuleType
from weakref import WeakKeyDictionary

from django.dispatch import Signal

#: The module attributes that hold a signal, best first, and how many modules there were when they were looked for.
_holders: WeakKeyDictionary[Signal, tuple[int, list[str]]] = WeakKeyDictionary()


def signal_name(signal: Signal) -> str | None:
    """The name by which a signal travels: its own ``name``, or the module attribute that holds it, found once."""
    given = getattr(signal, "name", None)
    return given if isinstance(given, str) else signal_path(signal)


def signal_path(signal: Signal) -> str | None:
    """The dotted path of the module attribute that holds the signal, found once; None if no module does."""
    count, paths = _holders.get(signal, (0, []))
    if not paths and count != len(sys.modules):
        paths = _look_for(signal)
    return paths[0] if paths else None


def is_called(signal: Signal, name: str) -> bool:
    """Whether a payload may mean the signal by that name: whoever imports it holds it, and processes differ in that."""
    if name == signal_name(signal):
        return True
    count, paths = _holders.get(signal, (0, []))
    return name in (paths if count == len(sys.modules) else _look_for(signal))


def _look_for(signal: Signal) -> list[str]:
    defined_in = getattr(signal, "module", None)
    paths = [
        f"{module.__name__}.{attribute}"
        for module in list(sys.modules.values())
        if isinstance(module, ModuleType) and module.__name__ != "__main__"
        for attribute, value in list(vars(module).items())
        if value is signal
    ]

    def merit(path: str) -> tuple[bool, bool, bool, int, str]:
        # Where it was made, if it knows. Else most likely Django's own module, or one that is called signals.
        module = path.rpartition(".")[0]
        return module != defined_in, not path.startswith("django."), ".signals." not in path, path.count("."), path

    paths.sort(key=merit)
    _holders[signal] = len(sys.modules), paths
    return paths


def is_signal(signal: Signal, module: str, *names: str) -> bool:
    """Whether it is one of those signals, without importing their module: whoever holds one has."""
    return any(getattr(sys.modules.get(module), name, None) is signal for name in names)
