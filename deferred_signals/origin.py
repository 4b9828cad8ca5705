"""Where sends come from: their signal and their sender, and what follows from these alone, found out once for many."""

from __future__ import annotations

from typing import Any

from django import dispatch

from . import context
from .codec import base
from .codec.plain import text_of
from .envelope import VERSION
from .references import is_instance, is_model, label_of
from .signal_names import signal_name
from .strict_json import dump


class Origin:
    """The signal and the sender of sends to one receiver."""

    __slots__ = ("_edition", "_head", "_last", "name", "of_stranger", "sender", "signal")

    def __init__(self, receiver: str, signal: dispatch.Signal, sender: Any) -> None:
        self.signal = signal
        self.sender = sender
        #: The signal's name, None as long as none is found.
        self.name = signal_name(signal)
        #: Whether the sender is a migration's historical model, or the table in which Django notes them: no worker has
        #: such a class.
        self.of_stranger = is_model(sender) and label_of(sender) is None
        self._edition = base.edition()
        # An instance that is the sender may be a row of the arguments.
        told = None if is_instance(sender) else text_of(sender)
        #: The beginning of what the envelopes of these sends have in common, None where the sender is not plain.
        self._head = told and f'{{"v":{VERSION},"to":{dump(receiver)},"signal":{dump(self.name)},"sender":{told},'
        #: The last context, and the text with it.
        self._last = "", ""

    @property
    def lasts(self) -> bool:
        """Whether it may be kept for the next send: a sender that is an object is not kept alive."""
        return self.name is not None and (self.sender is None or isinstance(self.sender, type))

    def is_of(self, signal: dispatch.Signal, sender: Any) -> bool:
        """Whether it is that of a send."""
        # When a codec is added, it may be for the sender.
        return self.signal is signal and self.sender is sender and self._edition == base.edition()

    def shared(self) -> str | None:
        """What the envelopes of sends have in common in this context, as the first of ``Envelope.texts``.

        None where it cannot be written at once.
        """
        if self._head is None or (captured := context.text()) is None:
            return None
        last, text = self._last
        if captured is not last:
            text = f'{self._head}"context":{captured}}}'
            self._last = captured, text
        return text
