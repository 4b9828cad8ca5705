"""One line of the map: who listens to what, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..options import Options
from ..references import path_of


@dataclass(frozen=True, slots=True)
class Connection:
    """A receiver that is connected to a signal. ``sender`` is empty for any; ``queue`` where it cannot be known."""

    signal: str
    sender: str
    receiver: str
    deferred: bool
    queue: str = ""
    durable: bool = False
    #: Those that differ from their defaults, as JSON has them.
    options: Mapping[str, Any] = field(default_factory=dict)
    #: The labels of the apps of its signal, its sender and its receiver.
    apps: frozenset[str] = frozenset()
    #: The receiver itself, and what it is connected with if it is deferred.
    function: Any = field(default=None, repr=False, compare=False)
    stand_in: Any = field(default=None, repr=False, compare=False)

    def as_json(self) -> dict[str, Any]:
        """For a machine."""
        return {
            "signal": self.signal,
            "sender": self.sender or None,
            "receiver": self.receiver,
            "deferred": self.deferred,
            "queue": self.queue or None,
            "durable": self.durable,
            "options": dict(self.options),
        }


def default_of(name: str) -> Any:
    """The default of an option."""
    return _DEFAULTS[name]


_DEFAULTS = {one.name: one.default for one in fields(Options)}


def shown(value: Any) -> Any:
    """The value of an option as JSON has it. Of headers only the names: their values are nobody else's."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return sorted(value)
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [shown(one) for one in value]
    return _path(value)


def _path(value: Callable[..., Any]) -> str:
    """A class or function by its path; a lambda, or a function inside another, by the module's and its own name."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", type(value).__qualname__)
    path = path_of(value) or f"{module}.{name}"
    return path.removeprefix("builtins.")


def differing(options: Options) -> dict[str, Any]:
    """The options that differ from their defaults, as JSON has them."""
    return {name: shown(value) for name, default in _DEFAULTS.items() if (value := getattr(options, name)) != default}
