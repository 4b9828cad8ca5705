"""What stands in a signal's receivers for a deferred receiver, and what a send to it does."""

from __future__ import annotations

import functools
import logging
import sys
import time
import uuid
from typing import Any

from django import dispatch
from django.db import DEFAULT_DB_ALIAS, router

from . import backends, conf, context, publisher
from .codec import Encoder
from .codec.base import TwoStates, type_name
from .codec.stand_ins import not_carried
from .delivery import Delivery, current_delivery
from .envelope import Envelope, dump
from .exceptions import EncodeError
from .options import Options
from .references import is_instance, is_model, label_of, write_alias
from .registry import Registration
from .signal_names import is_signal, signal_name
from .suppression import suppressed

logger = logging.getLogger("deferred_signals")

MODEL_SIGNALS = "django.db.models.signals"

#: Their instances are, or are about to be, other than the row: a reference would show the wrong state.
SNAPSHOT_SIGNALS = ("pre_save", "pre_delete", "post_delete")


class DeferredReceiver:
    """Stands in a signal's receivers for a deferred receiver; calling it publishes and returns the Delivery.

    To whoever looks (debug-toolbar, factory_boy, log lines) it has the name and the signature of the function.
    """

    def __init__(self, registration: Registration, signal: dispatch.Signal, key: Any, given: Options) -> None:
        # Its __dict__ is left out: it holds the marks of async functions, and Django must not await a stand-in.
        functools.update_wrapper(self, registration.function, updated=())
        self.registration = registration
        self.signal = signal
        self.key = key
        self.options = given
        #: Whether Django waits for the model of a lazy "app.Model" sender before it connects this.
        self.pending = False
        module = sys.modules.get(MODEL_SIGNALS)
        self._of_django = module is not None and any(value is signal for value in vars(module).values())
        self._snapshot = given.instance == "snapshot" or (
            given.instance is None and is_signal(signal, MODEL_SIGNALS, *SNAPSHOT_SIGNALS)
        )
        self._said: set[str] = set()

    def __repr__(self) -> str:
        return f"<DeferredReceiver {self.registration.name}>"

    def __call__(self, /, signal: dispatch.Signal, sender: Any, **named: Any) -> Delivery | None:
        """What Django calls at send.

        Raises EncodeError, ConfigurationError, TypeError for arguments that the receiver lacks (as the receiver itself
        would inline), and PublishError with on_commit=False.
        """
        if suppressed():
            return None
        if self._of_django and is_model(sender) and label_of(sender) is None:
            # A migration's historical model, or the table in which Django notes them: no worker has such a class.
            return None
        # Only the raw= of Django's own signals means fixtures.
        if self._of_django and named.get("raw") and not self.options.deliver_raw:
            return None
        if self.options.when is not None and not self.options.when(sender=sender, **named):
            return None
        if not self.registration.required <= named.keys():
            lacking = ", ".join(sorted(self.registration.required - named.keys()))
            raise TypeError(
                f"The receiver {self.registration.name} needs arguments that the send does not have: {lacking}"
            )
        backends.current().check()
        delivery = self._delivery(signal, sender, named)
        if self.options.on_commit:
            publisher.publish(delivery, self._alias(sender, named))
        else:
            publisher.publish_at_once(delivery)
        return delivery

    def _alias(self, sender: Any, named: dict[str, Any]) -> str:
        """The database whose commit is awaited."""
        if self.options.using is not None:
            return self.options.using
        if self._of_django and isinstance(named.get("using"), str):
            return named["using"]  # type: ignore[no-any-return]
        for value in (named.get("instance"), *named.values(), sender):
            if is_instance(value):
                return write_alias(value)
        return router.db_for_write(sender) if is_model(sender) else DEFAULT_DB_ALIAS

    def _delivery(self, signal: dispatch.Signal, sender: Any, named: dict[str, Any]) -> Delivery:
        name = signal_name(signal)
        if name is None and len(self.registration.listening()) > 1:
            raise EncodeError(
                f"{self.registration.name} listens to several signals, and this one has no name by which the worker "
                "could tell it: make it a module attribute, or Signal(name=...)."
            )
        apart: frozenset[Any] = frozenset()
        while True:
            encoder = Encoder(snapshot=self._snapshot, apart=apart)
            try:
                kwargs = self._encode(encoder, named)
                encoded_sender = self._encode_sender(encoder, sender)
                break
            except TwoStates as two:
                apart |= {two.row}
        cause = current_delivery()
        envelope = Envelope(
            id=str(uuid.uuid4()),
            created=round(time.time(), 3),
            receiver=self.registration.name,
            signal=name,
            sender=encoded_sender,
            kwargs=kwargs,
            context=context.capture(),
            depth=cause.depth + 1 if cause else 0,
        )
        return Delivery.of(envelope, self._text(envelope), self.options)

    def _encode(self, encoder: Encoder, named: dict[str, Any]) -> dict[str, Any]:
        kwargs: dict[str, Any] = {}
        for name, value in named.items():
            if name == "origin" and self._of_django and name not in self.registration.named:
                kwargs[name] = _origin(encoder, value)
                continue
            if not name.isascii():
                encoder.encode(name)
            try:
                kwargs[name] = encoder.encode(value)
            except EncodeError as error:
                encoder.restart()
                kwargs[name] = self._refused(name, error.under(f"kwargs[{name!r}]"))
        return kwargs

    def _encode_sender(self, encoder: Encoder, sender: Any) -> Any:
        try:
            return encoder.encode(sender)
        except EncodeError as error:
            encoder.restart()
            try:
                # A view, a service, an AppConfig: what its receivers want to know is whose it is.
                if not isinstance(sender, type):
                    return encoder.encode(type(sender))
            except EncodeError:
                pass
            return self._refused("sender", error.under("sender"))

    def _refused(self, name: str, error: EncodeError) -> Any:
        """Raise for what the receiver names; a marker for what only lands in its ``**kwargs``, said once."""
        error.receiver = self.registration.name
        if name in self.registration.named:
            raise error
        if name not in self._said:
            self._said.add(name)
            logger.warning("%s The receiver does not name it, so it gets a NotCarried marker instead.", error)
        return not_carried(error)

    def _text(self, envelope: Envelope) -> str:
        """The envelope's text, if it is not too large. Raises EncodeError."""
        text = envelope.to_text()
        size, limit = len(text) if text.isascii() else len(text.encode()), conf.current().max_size
        if size > limit:
            largest = max(envelope.kwargs, key=lambda name: len(dump(envelope.kwargs[name])), default="")
            error = EncodeError(
                f"the delivery has {size:,} bytes and MAX_SIZE is {limit:,}; this is its largest argument. Send what "
                "identifies the data instead, or raise DEFERRED_SIGNALS['MAX_SIZE']."
            ).under(f"kwargs[{largest!r}]")
            error.receiver = self.registration.name
            raise error
        return text


def _origin(encoder: Encoder, value: Any) -> Any:
    """The ``origin`` of Django's delete signals, for a receiver that does not name it.

    A queryset would be asked for all its rows again at the send for each of them.
    """
    if is_instance(value):
        return encoder.encode(value)
    reason = "it is the queryset that is being deleted. Name origin in the receiver to get its rows."
    return not_carried(EncodeError(reason, type_name(value)).under("kwargs['origin']"))
