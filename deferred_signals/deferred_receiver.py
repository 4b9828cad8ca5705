"""What stands in a signal's receivers for a deferred receiver, and what a send to it does."""

from __future__ import annotations

import functools
import logging
import time
import uuid
from typing import Any

from django import dispatch
from django.db import DEFAULT_DB_ALIAS, router

from . import backends, changes, coalescing, conf, django_signals, encryption, handover, publisher
from .arguments import Arguments
from .delivery import Delivery, cause
from .envelope import LATEST, Envelope
from .exceptions import EncodeError, TooLarge
from .options import Options
from .references import is_instance, is_model, label_of, write_alias
from .registry import Registration
from .signal_names import signal_name
from .signals import announce, delivery_unpublished
from .strict_json import dump
from .suppression import suppressed

logger = logging.getLogger("deferred_signals")


class DeferredReceiver:
    """Stands in a signal's receivers for a deferred receiver; calling it publishes and returns the Delivery.

    To whoever looks (debug-toolbar, factory_boy, log lines) it has the name and the signature of the function.
    """

    def __init__(
        self, registration: Registration, signal: dispatch.Signal, sender: Any, key: Any, given: Options
    ) -> None:
        # Its __dict__ is left out: it holds the marks of async functions, and Django must not await a stand-in.
        functools.update_wrapper(self, registration.function, updated=())
        self.registration = registration
        self.signal = signal
        #: The sender it was connected for: whatever the signal has, an "app.Model" that is not loaded yet, or None.
        self.sender = sender
        self.key = key
        self.options = given
        #: Whether Django waits for the model of a lazy "app.Model" sender before it connects this.
        self.pending = False
        self._of_models = django_signals.is_model_signal(signal)
        self._is_asked = django_signals.is_asked(signal)
        self._arguments = Arguments(
            registration,
            given,
            snapshot=given.instance == "snapshot"
            or (given.instance is None and django_signals.wants_snapshots(signal)),
            reductions=django_signals.reductions(signal, registration.named),
        )

    def __repr__(self) -> str:
        return f"<DeferredReceiver {self.registration.name}>"

    def __call__(self, /, signal: dispatch.Signal, sender: Any, **named: Any) -> Delivery | None:
        """What Django calls at send.

        Raises EncodeError, ConfigurationError, TypeError for arguments that the receiver lacks (as the receiver itself
        would inline), and PublishError with on_commit=False.
        """
        if suppressed():
            return None
        if self._of_models and is_model(sender) and label_of(sender) is None:
            # A migration's historical model, or the table in which Django notes them: no worker has such a class.
            return None
        # Only the raw= of Django's own signals means fixtures.
        if self._of_models and named.get("raw") and not self.options.deliver_raw:
            return None
        if self.options.changes:
            named["changes"] = changes.of_save(named.get("instance"), named.get("using"), self)
        if self.options.when is not None and not self.options.when(sender=sender, **named):
            return None
        if not self.registration.required <= named.keys():
            lacking = ", ".join(sorted(self.registration.required - named.keys()))
            raise TypeError(
                f"The receiver {self.registration.name} needs arguments that the send does not have: {lacking}"
                + (" (the option changes=True would add it)" if lacking == "changes" else "")
            )
        if self.options.changes:
            named["changes"] = changes.carried(named["changes"], named.get("instance"), self.options)
        backends.current().check()
        if encryption.is_wanted(self.options):
            encryption.check()
        try:
            delivery = self._delivery(signal, sender, named)
        except TooLarge as error:
            if self.options.oversize == "raise":
                raise
            self._say_too_large(error)
            return None
        if self.options.on_commit:
            delivery = publisher.publish(delivery, self._alias(sender, named))
        else:
            handover.publish_at_once(delivery)
        return None if self._is_asked else delivery

    def _alias(self, sender: Any, named: dict[str, Any]) -> str:
        """The database whose commit is awaited."""
        if self.options.using is not None:
            return self.options.using
        if self._of_models and isinstance(named.get("using"), str):
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
        encoded = self._arguments.encode(sender, named)
        depth, repeats = cause(self.registration.name, name, named.get("instance"))
        now, expires = time.time(), self.options.expires
        envelope = Envelope(
            id=str(uuid.uuid4()),
            created=round(now, 3),
            receiver=self.registration.name,
            signal=name,
            sender=encoded.sender,
            kwargs=encoded.kwargs,
            context=encoded.context,
            depth=depth,
            repeats=repeats,
            expires=None if expires is None else min(round(now + expires, 3), LATEST),
        )
        subject = coalescing.subject_of(envelope, named, self) if self.options.coalesce else None
        return Delivery.of(envelope, self._text(envelope), self.options, subject)

    def _text(self, envelope: Envelope) -> str:
        """The envelope's text, if it is not too large. Raises TooLarge."""
        text = envelope.to_text()
        size, limit = len(text) if text.isascii() else len(text.encode()), conf.current().max_size
        if size > limit:
            largest = max(envelope.kwargs, key=lambda name: len(dump(envelope.kwargs[name])), default="")
            error = TooLarge(
                f"the delivery has {size:,} bytes and MAX_SIZE is {limit:,}; this is its largest argument. Send what "
                "identifies the data instead, raise DEFERRED_SIGNALS['MAX_SIZE'], or see the options fields= and "
                "oversize=."
            ).under(f"kwargs[{largest!r}]")
            error.receiver = self.registration.name
            raise error
        return text

    def _say_too_large(self, error: TooLarge) -> None:
        logger.error('No delivery is made (oversize="log"): %s', error)
        announce(delivery_unpublished, self.registration.function, delivery=None, error=error)
