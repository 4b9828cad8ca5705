"""One captured delivery: what it says, read from its real wire form, and how its runs have ended."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .. import encryption, registry
from ..decoding import argument, decoding, sender_of
from ..delivery import Delivery
from ..envelope import Envelope, seal, unseal
from ..exceptions import DeferredSignalsError
from ..options import Options
from ..outcome import Outcome
from ..references import Reference, is_instance, is_model, key_of, model_of


class Row:
    """Stands for a row while deliveries are compared: equal to each instance of it, without asking the database."""

    def __init__(self, reference: Reference) -> None:
        self._model = model_of(reference.label)
        self._pk = key_of(self._model, reference.pk)

    def __eq__(self, other: object) -> bool:
        if not is_instance(other):
            return NotImplemented
        same = other._meta.concrete_model is self._model._meta.concrete_model  # type: ignore[attr-defined]
        return bool(same and other.pk == self._pk)  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash(self._pk)

    def __repr__(self) -> str:
        return f"<{self._model._meta.label} {self._pk}>"


class Arguments(Mapping[str, Any]):
    """The arguments as the receiver would get them now; each is decoded when it is asked for."""

    def __init__(self, encoded: dict[str, Any], decode: Callable[[str, Any], Any]) -> None:
        self._encoded = encoded
        self._decode = decode

    def __getitem__(self, name: str) -> Any:
        return self._decode(name, self._encoded[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._encoded)

    def __len__(self) -> int:
        return len(self._encoded)

    def __repr__(self) -> str:
        return f"<arguments {', '.join(self)}>"


class CapturedDelivery:
    """A delivery that was published while a test captured, and what has become of it since."""

    def __init__(self, delivery: Delivery, payload: str) -> None:
        #: What ``send()`` has returned for it.
        self.delivery = delivery
        #: How each of its runs has ended, in order.
        self.outcomes: list[Outcome] = []
        #: Whether it is still to be run: for the first time, or again.
        self.is_waiting = True
        self._payload = payload

    @property
    def id(self) -> str:
        """Its id, the same over retries."""
        return self.delivery.id

    @property
    def receiver(self) -> str:
        """The receiver's name."""
        return self.delivery.receiver

    @property
    def signal(self) -> str | None:
        """The signal's name."""
        return self.delivery.signal

    @property
    def options(self) -> Options:
        """The options of the connection."""
        return self.delivery.options

    @property
    def is_durable(self) -> bool:
        """Whether it is a row of the outbox."""
        return self.delivery.kept is not None

    @property
    def sender(self) -> Any:
        """The sender, as the receiver would get it."""
        return sender_of(self._contents[0], decoding())

    @property
    def kwargs(self) -> Arguments:
        """The arguments, without signal and sender; rows are read when they are asked for, as at the delivery."""
        return self._arguments(decoding())

    @property
    def state(self) -> str:
        """How its last run has ended; ``"waiting"`` before the first."""
        return self.outcomes[-1].state if self.outcomes else "waiting"

    @property
    def payload(self) -> str:
        """The signed string that would travel, or that its row holds: of the next run, if it is to be run again."""
        if self.is_durable:
            from . import durable  # noqa: PLC0415 - its models are there only where the outbox is installed

            return durable.payload_of(self.delivery)
        return self._payload

    @property
    def envelope(self) -> Envelope:
        """What the payload says."""
        return unseal(self.payload, of_any_age=True)

    @property
    def _contents(self) -> tuple[Any, dict[str, Any]]:
        sender, kwargs, _ = encryption.opened(self.envelope)
        return sender, kwargs

    def _arguments(self, decode: Callable[[Any], Any]) -> Arguments:
        registration = registry.get(self.receiver)
        return Arguments(self._contents[1], lambda name, value: argument(name, value, decode, registration))

    def comparable(self) -> tuple[Any, Arguments]:
        """Sender and arguments in which each row is a ``Row``: to be compared with what a test expects."""
        decode = decoding(Row)
        return sender_of(self._contents[0], decode), self._arguments(decode)

    def ended(self, outcome: Outcome) -> None:
        """Note how a run has ended."""
        self.outcomes.append(outcome)
        self.is_waiting = outcome.state == "retry"
        if self.is_waiting and not self.is_durable:
            self._payload = seal(outcome.text)

    def __repr__(self) -> str:
        return f"<CapturedDelivery to {self.receiver} ({self.state})>"

    def describe(self) -> str:
        """The delivery in a line of a failed assertion: with shortened values, for they are a test's own."""
        try:
            sender, kwargs = self.comparable()
            told = [f"sender={_shown(sender)}", *(f"{name}={_shown(kwargs[name])}" for name in kwargs)]
        except DeferredSignalsError as error:
            told = [f"cannot be read: {type(error).__name__}"]
        signal = self.signal or "a signal without a name"
        how = f"{self.state}, durable" if self.is_durable else self.state
        return f"{self.receiver} from {signal} ({how}): {', '.join(told)}"


_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 60


def _shown(value: Any) -> str:
    if is_model(value):
        return str(value._meta.label)
    if is_instance(value):
        # Its own words may ask the database.
        return f"<{value._meta.label} {value.pk}>"
    return _repr.repr(value)
