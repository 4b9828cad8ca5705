"""A delivery: one send to one deferred receiver; and which of them is being run."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from . import encryption, registry
from .envelope import Envelope, joined, seal
from .exceptions import NotYetKnown
from .options import Options
from .references import is_same_instance

#: On a worker, which looks them up by the receiver's name; to make them takes as long as all the rest of a delivery.
_UNKNOWN = Options()


# Not frozen, though nobody sets anything but ``keep``: that takes three times as long to make, and each send makes one.
@dataclass(eq=False, slots=True)
class Delivery:
    """One send to one deferred receiver.

    ``send()`` returns it as that receiver's response; on the worker ``current_delivery()`` is the one being run. The id
    stays the same over retries and is the id of the Celery task. ``receiver`` and ``signal`` are names, ``attempt``
    counts the runs from 1, ``depth`` the deliveries that caused this one, ``repeats`` those of them that were, just
    before it, to the same receiver about the same instance, ``crashes`` the workers in a row that did not finish it.
    """

    id: str
    receiver: str
    signal: str | None
    #: When it was sent, in Unix seconds.
    at: float
    attempt: int = 1
    depth: int = 0
    repeats: int = 0
    crashes: int = 0
    #: The envelope in clear, in the sender's process only: two JSON objects, the first one as ``Envelope.texts``, and
    #: empty where all is in the second.
    shared: str = field(default="", repr=False)
    own: str = field(default="", repr=False)
    #: The options of the connection, in the sender's process only.
    options: Options = field(default=_UNKNOWN, repr=False)
    #: What it is about, for ``coalesce``; in the sender's process only.
    subject: Any = field(default=None, repr=False)
    #: Its keys in the outbox, of the options ``order_by`` and ``unique``; in the sender's process only.
    keys: tuple[str | None, str | None] = field(default=(None, None), repr=False)
    #: The alias of the database in whose outbox it is, None if it is in none; in the sender's process only.
    kept: str | None = None
    #: Those that it carries, if it is a batch; in the sender's process only.
    members: tuple[Delivery, ...] = field(default=(), repr=False)
    #: The payload of its row there, if a later delivery may become one with it; in the sender's process only.
    row: str = field(default="", repr=False)
    #: How long the attempt took, on the worker when it is over; None if the receiver was not come to.
    seconds: float | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        envelope: Envelope,
        texts: tuple[str, str] = ("", ""),
        options: Options | None = None,
        subject: Any = None,
        keys: tuple[str | None, str | None] = (None, None),
    ) -> Delivery:
        """The delivery that an envelope carries."""
        return cls(
            envelope.id,
            envelope.receiver,
            envelope.signal,
            envelope.created,
            envelope.attempt,
            envelope.depth,
            envelope.repeats,
            envelope.crashes,
            *texts,
            options or _UNKNOWN,
            subject,
            keys,
        )

    def keep(self, alias: str) -> None:
        """Note that its row is written; what is in the database need not be in memory. Before anybody else has it."""
        self.kept, self.shared, self.own = alias, "", ""

    @property
    def created(self) -> datetime:
        """When it was sent."""
        return datetime.fromtimestamp(self.at, UTC)

    @property
    def text(self) -> str:
        """The envelope's text in clear; empty on the worker, and once its row is written."""
        return joined(self.shared, self.own) if self.shared else self.own

    @property
    def payload(self) -> str:
        """The signed string for the wire, encrypted if the options say so.

        Empty on the worker, which has it already, and of a delivery in an outbox, whose row has it. Raises
        ConfigurationError where it must be encrypted and cannot be.
        """
        if not self.own or self.kept is not None:
            return ""
        return seal(encryption.encrypted(self.text) if encryption.is_wanted(self.options) else self.text)

    @property
    def function(self) -> Any:
        """The receiver's function, None where it is unknown: the sender of the ``delivery_*`` signals."""
        try:
            return registry.get(self.receiver).function
        except NotYetKnown:
            return None


_current: ContextVar[Delivery | None] = ContextVar("deferred_signals_current", default=None)
#: The argument ``instance`` of the delivery that is being run.
_about: ContextVar[Any] = ContextVar("deferred_signals_about", default=None)


def current_delivery() -> Delivery | None:
    """The delivery that is being run here; None outside a deferred receiver."""
    return _current.get()


def cause(receiver: str, signal: str | None, instance: Any) -> tuple[int, int]:
    """The ``depth`` and ``repeats`` of a delivery that is made here, by what is being run while it is."""
    running = _current.get()
    if running is None:
        return 0, 0
    again = (
        running.receiver == receiver
        and _event(running.signal) == _event(signal)
        and is_same_instance(_about.get(), instance)
    )
    return running.depth + 1, running.repeats + 1 if again else 0


def _event(signal: str | None) -> str:
    """What a signal is about, before and after: a save, a deletion."""
    return (signal or "").replace(".pre_", ".").replace(".post_", ".")


def begin(delivery: Delivery) -> None:
    """Say that the delivery is being run, for the rest of this context."""
    _current.set(delivery)


def instance_is(instance: Any) -> None:
    """Say which instance the delivery that is being run is about."""
    _about.set(instance)
