"""The name by which a signal travels."""

from __future__ import annotations

import sys
from types import ModuleType
from weakref import WeakKeyDictionary

from django.dispatch import Signal

_signal_names: WeakKeyDictionary[Signal, str] = WeakKeyDictionary()


def signal_name(signal: Signal) -> str | None:
    """The name by which a signal travels: its own ``name``, or the module attribute that holds it, found once."""
    given = getattr(signal, "name", None)
    return given if isinstance(given, str) else signal_path(signal)


def signal_path(signal: Signal) -> str | None:
    """The dotted path of the module attribute that holds the signal, found once; None if no module does."""
    known = _signal_names.get(signal)
    if known is None:
        holders = [
            f"{module.__name__}.{attribute}"
            for module in list(sys.modules.values())
            if isinstance(module, ModuleType)
            for attribute, value in list(vars(module).items())
            if value is signal
        ]
        if not holders:
            return None
        # Whoever imported the signal holds it too. Its own module is most likely Django's, or called signals.
        known = min(
            holders,
            key=lambda path: (not path.startswith("django."), ".signals." not in path, path.count("."), path),
        )
        _signal_names[signal] = known
    return known


def is_signal(signal: Signal, module: str, *names: str) -> bool:
    """Whether it is one of those signals, without importing their module: whoever holds one has."""
    return any(getattr(sys.modules.get(module), name, None) is signal for name in names)
