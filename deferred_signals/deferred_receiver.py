"""What stands in a signal's receivers for a deferred receiver, and what a send to it does."""

from __future__ import annotations

import functools
import logging
from typing import Any

from django import dispatch
from django.db import DEFAULT_DB_ALIAS, connections, router

from . import changes, coalescing, django_signals, handover, publisher
from .arguments import Arguments
from .backends.base import after_send
from .delivery import Delivery, cause
from .envelope import Envelope, joined, moment
from .envelope_fields import LATEST
from .exceptions import EncodeError, TooLarge
from .ids import new_id
from .keys import NO_KEYS, Keys, keys_of
from .options import Options
from .origin import Origin
from .references import is_instance, is_model, write_alias
from .registry import Registration
from .signals import announce, delivery_unpublished
from .strict_json import dump, size_of
from .suppression import suppressed
from .terms import Terms, terms_of

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
        #: Of the last send.
        self._origin: Origin | None = None
        self._terms: Terms | None = None
        self._of_models = django_signals.is_model_signal(signal)
        self._is_asked = django_signals.is_asked(signal)
        self._has_keys = given.has_keys
        #: Whether its deliveries say no more than their arguments.
        self._is_plain = given.expires is None and not given.coalesce
        self._arguments = Arguments(
            registration,
            given,
            snapshot=given.instance == "snapshot"
            or (given.instance is None and django_signals.wants_snapshots(signal)),
            of_save=django_signals.is_post_save(signal),
            reductions=django_signals.reductions(signal, registration.takes.named),
        )

    def __repr__(self) -> str:
        return f"<DeferredReceiver {self.registration.name}>"

    def __call__(self, /, signal: dispatch.Signal, sender: Any, **named: Any) -> Delivery | None:
        """What Django calls at send.

        Raises EncodeError, ConfigurationError, TypeError for arguments that the receiver lacks or does not take (as the
        receiver itself would inline), and PublishError with on_commit=False.
        """
        if suppressed():
            return None
        origin = self._origin
        if origin is None or not origin.is_of(signal, sender):
            origin = self._origin_of(signal, sender)
        # Only the raw= of Django's own signals means fixtures.
        if self._of_models and (origin.of_stranger or (named.get("raw") and not self.options.deliver_raw)):
            return None
        if self.options.changes:
            named["changes"] = changes.of_save(named.get("instance"), named.get("using"), self)
        if self.options.when is not None and not self.options.when(sender=sender, **named):
            return None
        takes = self.registration.takes
        if takes.possible is not None or not takes.required <= named.keys():
            takes.check(self.registration.name, named)
        if self.options.changes:
            named["changes"] = changes.carried(named["changes"], named.get("instance"), self.options)
        terms = self._terms = terms_of(self.options, self._terms)
        connection = connections[self._alias(sender, named) if self.options.on_commit else DEFAULT_DB_ALIAS]
        if terms.is_durable:
            publisher.check_durable(self.registration.name, connection)
        try:
            delivery = self._delivery(origin, named, terms.settings.max_size)
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

    def _origin_of(self, signal: dispatch.Signal, sender: Any) -> Origin:
        made = Origin(self.registration.name, signal, sender)
        if made.lasts:
            self._origin = made
        return made

    def _delivery(self, origin: Origin, named: dict[str, Any], limit: int) -> Delivery:
        if origin.name is None and len(self.registration.listening()) > 1:
            raise EncodeError(
                f"{self.registration.name} listens to several signals, and this one has no name by which the worker "
                "could tell it: make it a module attribute, in a module of yours if it is another package's, or "
                "Signal(name=...)."
            )
        depth, repeats = cause(self.registration.name, origin.name, named.get("instance"))
        keys = keys_of(self.registration, self.options, origin.sender, named) if self._has_keys else NO_KEYS
        if not depth and self._is_plain and (made := self._plain(origin, named, keys, limit)) is not None:
            return made
        (now, _), expires = moment(), self.options.expires
        encoded = self._arguments.encode(origin.sender, named)
        envelope = Envelope(
            id=new_id(),
            created=now,
            receiver=self.registration.name,
            signal=origin.name,
            sender=encoded.sender,
            kwargs=encoded.kwargs,
            context=encoded.context,
            depth=depth,
            repeats=repeats,
            expires=None if expires is None else min(round(now + expires, 3), LATEST),
        )
        subject = coalescing.subject_of(envelope, named, self) if self.options.coalesce else None
        return Delivery.of(envelope, self._texts(envelope, limit), self.options, subject, keys)

    def _plain(self, origin: Origin, named: dict[str, Any], keys: Keys, limit: int) -> Delivery | None:
        """The delivery of a send that can be written at once, as ``Envelope`` would make it; None for any other."""
        if (shared := origin.shared()) is None or (arguments := self._arguments.text(named)) is None:
            return None
        (now, at), key = moment(), new_id()
        own = f'{{"id":"{key}","at":{at},"kwargs":{arguments}}}'
        if size_of(shared) + size_of(own) - 1 > limit:
            return None
        receiver = self.registration.name
        return Delivery(key, receiver, origin.name, now, 1, 0, 0, 0, shared, own, self.options, None, keys)

    def _texts(self, envelope: Envelope, limit: int) -> tuple[str, str]:
        """The envelope's texts, if they are not too large. Raises TooLarge."""
        texts = envelope.texts()
        if (size := size_of(joined(*texts))) > limit:
            largest = max(envelope.kwargs, key=lambda name: len(dump(envelope.kwargs[name])), default="")
            error = TooLarge(
                f"the delivery has {size:,} bytes and MAX_SIZE is {limit:,}; this is its largest argument. Send what "
                "identifies the data instead, raise DEFERRED_SIGNALS['MAX_SIZE'], or see the options fields= and "
                "oversize=."
            ).under(f"kwargs[{largest!r}]")
            error.receiver = self.registration.name
            raise error
        return texts

    def _say_too_large(self, error: TooLarge) -> None:
        fields = {"delivery_receiver": self.registration.name, "delivery_outcome": "unpublished"}
        logger.error('No delivery is made (oversize="log"): %s', error, extra=fields)
        announce(delivery_unpublished, self.registration.function, delivery=None, error=error)
