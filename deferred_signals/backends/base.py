"""What every backend does, and which one is in force."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence

from django.utils.module_loading import import_string

from .. import conf
from ..delivery import Delivery
from ..exceptions import ConfigurationError

#: The short names that the setting takes.
NAMES = {
    "celery": "deferred_signals.backends.celery.CeleryBackend",
    "immediate": "deferred_signals.backends.immediate.ImmediateBackend",
    "memory": "deferred_signals.backends.memory.MemoryBackend",
}

#: A delivery and why it could not be handed over.
Failure = tuple[Delivery, Exception]


class Backend(ABC):
    """Takes deliveries that may run now: their transaction is committed, or none was waited for."""

    #: What may interrupt the caller's wait from outside, and is the caller's to handle.
    interruptions: tuple[type[BaseException], ...] = ()

    @property
    def inline(self) -> bool:
        """Whether ``publish`` runs the receivers in this process, and may raise what they raise."""
        return False

    def check(self) -> None:  # noqa: B027 - most backends are always ready
        """Raise ConfigurationError when this process cannot publish at all; called in ``send()``, so be quick."""

    @abstractmethod
    def publish(self, deliveries: Sequence[Delivery]) -> list[Failure]:
        """Hand over deliveries in this order; return those that failed, and never raise for one of them."""


@functools.cache
def _load(path: str) -> Backend:
    try:
        kind = import_string(path)
    except ImportError as error:
        raise ConfigurationError(f"DEFERRED_SIGNALS['BACKEND'] {path!r} cannot be imported: {error}") from error
    if not isinstance(kind, type) or not issubclass(kind, Backend):
        raise ConfigurationError(f"DEFERRED_SIGNALS['BACKEND'] {path!r} is not a subclass of Backend.")
    return kind()


class StandIn(Backend):
    """What a test puts in the place of the backend; it is also told when a send is through, committed or not."""

    @abstractmethod
    def after_send(self) -> None:
        """Called at the end of each send to a deferred receiver."""


#: Those that tests have put in the place of the backend; the last of them counts.
stand_ins: list[StandIn] = []


def after_send() -> None:
    """Tell the one in the backend's place that a send is through."""
    if stand_ins:
        stand_ins[-1].after_send()


def current() -> Backend:
    """The backend in force, one instance per process. Raises ConfigurationError."""
    return stand_ins[-1] if stand_ins else configured()


def configured() -> Backend:
    """The one that the settings name, whatever a test has put in its place. Raises ConfigurationError."""
    name = conf.current().backend
    return _load(NAMES.get(name, name))
