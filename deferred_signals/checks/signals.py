"""System check of signals that a worker could not tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core import checks

from .. import registry
from ..signal_names import signal_name


def check_signals(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """E007: a receiver listens to several signals, of which one has no name to travel by."""
    return [
        checks.Error(
            f"The deferred receiver {registration.name!r} listens to several signals, and no module attribute holds "
            "one of them: every send of that one would fail, for a worker could not tell it from the others.",
            hint="Assign the signal to an attribute of a module, also one of yours if it is another package's, or make "
            "it with Signal(name=...).",
            obj=registration.name,
            id="deferred_signals.E007",
        )
        for registration in registry.registrations()
        if len(listening := registration.listening()) > 1 and any(signal_name(signal) is None for signal in listening)
    ]
