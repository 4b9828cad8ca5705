"""What signals, senders and inline receivers are called, as far as this process can tell."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from django.apps import AppConfig, apps
from django.dispatch import Signal

from ..references import is_model, path_of, type_name
from ..signal_names import signal_name

#: Of whom nobody knows any more who it is.
UNKNOWN = "(unknown)"


def _held_by_modules() -> Iterator[tuple[str, Any]]:
    """Each attribute of the imported modules, by its dotted path. No code of a module runs."""
    for module in list(sys.modules.values()):
        # Not isinstance, and object's own way to the namespace: a lazy module would load itself when asked.
        if issubclass(type(module), ModuleType):
            for name, value in list(object.__getattribute__(module, "__dict__").items()):
                yield f"{module.__name__}.{name}", value


def signals() -> list[Signal]:
    """All signals that a module holds, each once."""
    # Not isinstance: a lazy object in a module would be evaluated to answer.
    found = {id(value): value for _, value in _held_by_modules() if issubclass(type(value), Signal)}
    return list(found.values())


def name_of_signal(signal: Signal) -> str:
    """The name by which it travels, or what it is where no module holds it."""
    return signal_name(signal) or f"({type(signal).__qualname__} that no module holds)"


def name_of_sender(sender: Any) -> str:
    """``app.Model`` for a model, the label of an app, a dotted path; empty for any sender."""
    if sender is None or isinstance(sender, str):
        return sender or ""
    if is_model(sender) and hasattr(sender, "_meta"):
        return str(sender._meta.label)
    if isinstance(sender, AppConfig):
        return sender.label
    return path_of(sender) or _nearest(sender)


class Senders:
    """Finds senders of which only the ``id`` is known."""

    def __init__(self) -> None:
        models = apps.get_models(include_auto_created=True, include_swapped=True)
        self._known: dict[int, str] = {id(one): name_of_sender(one) for one in [*models, *apps.get_app_configs()]}
        self._elsewhere: dict[int, tuple[str, Any]] | None = None

    def name(self, sender_id: int, sender: Any = None) -> str:
        """The name of the sender with that id, which is alive if its receiver can ever be called.

        The same with or without the sender itself, which not every release of Django has.
        """
        if sender_id in self._known:
            return self._known[sender_id]
        if self._elsewhere is None:
            # Once, and only where a sender is neither a model nor an app: that looks at everything there is.
            self._elsewhere = {id(value): (path, value) for path, value in _held_by_modules()}
        if sender_id in self._elsewhere:
            path, value = self._elsewhere[sender_id]
            return path_of(value) or path
        return UNKNOWN if sender is None else name_of_sender(sender)

    def name_of(self, sender: Any) -> str:
        """The name of a sender; empty for any, as it is for an "app.Model" that Django waits for."""
        return name_of_sender(sender) if sender is None or isinstance(sender, str) else self.name(id(sender), sender)


def name_of_receiver(receiver: Any) -> str:
    """The dotted path of an inline receiver, or the nearest to one that it has."""
    if isinstance(receiver, functools.partial):
        return f"{name_of_receiver(receiver.func)} (partial)"
    owner = getattr(receiver, "__self__", None)
    if owner is not None and not isinstance(owner, ModuleType):
        holder = owner if isinstance(owner, type) else type(owner)
        return f"{holder.__module__}.{holder.__qualname__}.{receiver.__name__}"
    return _nearest(receiver)


def _nearest(thing: Any) -> str:
    """Of a lambda too, and a class inside a function: it need not be found again, only recognised."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    return f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else type_name(thing)


def app_of(path: str) -> str:
    """The label of the installed app in whose package a dotted path lies; empty if it is in none."""
    found = apps.get_containing_app_config(path)
    return found.label if found is not None else ""
