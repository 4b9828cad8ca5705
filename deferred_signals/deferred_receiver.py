"""What stands in a signal's receivers for a deferred receiver, and what a send to it does."""

from __future__ import annotations

import functools
import logging
import time
from datetime import UTC, datetime
from typing import Any

from django import dispatch
from django.db import DEFAULT_DB_ALIAS, connections, router

from . import changes, coalescing, django_signals, handover, publisher
from .arguments import Arguments
from .backends.base import after_send
from .delivery import Delivery, cause
from .envelope import VERSION, Envelope
from .envelope_fields import LATEST
from .exceptions import EncodeError, TooLarge
from .ids import new_id
from .keys import keys_of
from .options import Options
from .references import is_instance, is_model, label_of, write_alias
from .registry import Registration
from .signal_names import signal_name
from .signals import announce, delivery_unpublished
from .strict_json import dump
from .suppression import suppressed
from .terms import Terms, terms_of

logger = logging.getLogger("deferred_signals")


def _size(text: str) -> int:
    """Its bytes."""
    return len(text) if text.isascii() else len(text.encode())


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
        #: The signal that was sent last, its name, which it keeps once it is found, and that as JSON.
        self._sent: tuple[dispatch.Signal | None, str | None, str] = (None, None, "null")
        self._name_text = dump(registration.name)
        self._terms: Terms | None = None
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
        terms = self._terms = terms_of(self.options, self._terms)
        # Asked for once: that takes longer than the checks that need it.
        connection = connections[self._alias(sender, named) if self.options.on_commit else DEFAULT_DB_ALIAS]
        if terms.is_durable:
            publisher.check_durable(self.registration.name, connection)
        try:
            delivery = self._delivery(signal, sender, named, terms.settings.max_size)
        except TooLarge as error:
            if self.options.oversize == "raise":
                raise
            self._say_too_large(error)
            return None
        if self.options.on_commit:
            delivery = publisher.publish(delivery, connection, durable=terms.is_durable)
        else:
            handover.publish_at_once(delivery)
        after_send()
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

    def _delivery(self, signal: dispatch.Signal, sender: Any, named: dict[str, Any], limit: int) -> Delivery:
        name = self._name_of(signal)
        depth, repeats = cause(self.registration.name, name, named.get("instance"))
        now, expires = round(time.time(), 3), self.options.expires
        keys = keys_of(self.registration, self.options, sender, named)
        if not depth and expires is None and not self.options.coalesce:
            text = self._arguments.text(sender, named)
            if text is not None and (made := self._plain(name, now, text, keys, limit)) is not None:
                return made
        encoded = self._arguments.encode(sender, named)
        envelope = Envelope(
            id=new_id(),
            created=now,
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
        return Delivery.of(envelope, self._text(envelope, limit), self.options, subject, keys)

    def _name_of(self, signal: dispatch.Signal) -> str | None:
        last, name, _ = self._sent
        if signal is not last:
            name = signal_name(signal)
            self._sent = signal if name else None, name, dump(name)
        if name is None and len(self.registration.listening()) > 1:
            raise EncodeError(
                f"{self.registration.name} listens to several signals, and this one has no name by which the worker "
                "could tell it: make it a module attribute, or Signal(name=...)."
            )
        return name

    def _plain(
        self, name: str | None, now: float, rest: str, keys: tuple[str | None, str | None], limit: int
    ) -> Delivery | None:
        """The delivery of a send whose arguments are text already: what ``Envelope`` makes; None if it is too large."""
        key = new_id()
        text = f'{{"v":{VERSION},"id":"{key}","at":{now!r},"to":{self._name_text},"signal":{self._sent[2]},{rest}'
        if _size(text) > limit:
            return None
        created = datetime.fromtimestamp(now, UTC)
        return Delivery(key, self.registration.name, name, created, text=text, options=self.options, keys=keys)

    def _text(self, envelope: Envelope, limit: int) -> str:
        """The envelope's text, if it is not too large. Raises TooLarge."""
        text = envelope.to_text()
        if (size := _size(text)) > limit:
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
        fields = {"delivery_receiver": self.registration.name, "delivery_outcome": "unpublished"}
        logger.error('No delivery is made (oversize="log"): %s', error, extra=fields)
        announce(delivery_unpublished, self.registration.function, delivery=None, error=error)
