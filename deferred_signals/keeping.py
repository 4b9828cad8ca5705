"""The outbox as the core knows it: a slot, which the app ``deferred_signals.outbox`` fills.

The core has no tables. Without that app the slot is empty and nothing is kept: a durable delivery cannot be sent, what
cannot be published is lost, what is dead is gone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from django.db.backends.base.base import BaseDatabaseWrapper

from . import conf
from .bell import Bell
from .calling import Passes
from .delivery import Delivery
from .exceptions import ConfigurationError
from .options import Options
from .outcome import Outcome, summary

#: A run's delivery (None when the payload could not be opened) and how it ended.
Run = tuple[Delivery | None, Outcome]
#: A delivery and why it could not be handed over.
Failure = tuple[Delivery, Exception]


class Outbox(ABC):
    """Keeps deliveries in the databases from which they are sent."""

    @abstractmethod
    def check(self, alias: str) -> None:
        """Raise ConfigurationError when nothing can be kept on this alias; called in ``send()``, so be quick."""

    @abstractmethod
    def write(self, delivery: Delivery, connection: BaseDatabaseWrapper, *, instead: str | None = None) -> str | None:
        """Write the delivery's row over this connection, the sender's, into its transaction if one is open.

        ``instead``: the payload of a row of this id that was written before in this transaction, and is written anew.
        Returns the payload that was written, None if there is no such row any more.
        """

    @abstractmethod
    def bells(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """What to publish now that the rows of these deliveries are committed."""

    @abstractmethod
    def unrung(self, deliveries: Sequence[Delivery]) -> None:
        """Take note that the doorbells for these could not be published; never raise."""

    @abstractmethod
    def answer(self, bell: Bell, passes: Passes) -> list[Run]:
        """Run the deliveries for which a worker was rung. ``passes`` as for ``attempt.run``."""

    @abstractmethod
    def spill(self, failures: Sequence[Failure], alias: str) -> list[Failure]:
        """Keep deliveries that could not be published, to be run later; return those that could not be kept."""

    @abstractmethod
    def bury(self, payload: str, delivery: Delivery | None, end: Outcome) -> None:
        """Keep a dead delivery that has no row (None if it cannot be opened); never raise."""


_outbox: Outbox | None = None


def use(outbox: Outbox | None) -> None:
    """Fill the slot, or empty it."""
    global _outbox  # noqa: PLW0603 - one slot per process
    _outbox = outbox


def current() -> Outbox | None:
    """The outbox, None where the app is not installed."""
    return _outbox


def is_wanted(options: Options) -> bool:
    """Whether the deliveries of a connection are durable."""
    return options.on_commit and (conf.current().durable if options.durable is None else options.durable)


def required() -> Outbox:
    """The outbox. Raises ConfigurationError where there is none."""
    if _outbox is None:
        raise ConfigurationError(
            "A durable delivery needs the outbox, which is not installed. Add 'deferred_signals.outbox' to "
            "INSTALLED_APPS and run manage.py migrate, or connect the receiver without durable=True."
        )
    return _outbox


def answer(bell: Bell, passes: Passes) -> Outcome:
    """Run the rows that a doorbell names. Dead, with their errors, if one of them has died; else succeeded."""
    if _outbox is None:
        reason = (
            "a doorbell has come to a process without the outbox; its rows stay, and are rung for again. Add "
            "'deferred_signals.outbox' to INSTALLED_APPS of every worker."
        )
        return Outcome("dead", ConfigurationError(reason), reason)
    return summary([end for _, end in _outbox.answer(bell, passes)], "doorbell")
