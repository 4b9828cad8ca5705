"""Signals and the connecting of receivers: what stands in Django's receiver list for a deferred receiver."""

from __future__ import annotations

import functools
import logging
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from django import dispatch
from django.db import DEFAULT_DB_ALIAS, router

from . import backends, conf, context, options, publisher, registry, signals
from .codec import Encoder
from .codec.base import TwoStates
from .codec.values import not_carried
from .delivery import Delivery, current_delivery
from .envelope import Envelope, dump
from .exceptions import ConnectError, EncodeError
from .options import Options
from .references import is_instance, is_model, write_alias
from .registry import Registration
from .suppression import suppressed

logger = logging.getLogger("deferred_signals")

Receiver = TypeVar("Receiver", bound=Callable[..., Any])

#: Signals for which deferring cannot mean anything: module, attribute, the reason and the alternative.
REFUSED = (
    ("django.db.models.signals", "class_prepared",
     "it is sent while models are being loaded, when no delivery can be made. Use AppConfig.ready()."),
    ("django.db.models.signals", "pre_init",
     "it is sent for every instance that any process makes, the worker's own included. Use pre_save or post_save."),
    ("django.db.models.signals", "post_init",
     "it is sent for every row that any process reads, the worker's own included. Use post_save."),
    ("django.db.backends.signals", "connection_created",
     "it concerns one connection of one process, and the worker's own connecting would send it again. Connect inline."),
    *((signals.__name__, name, "it tells about deliveries, and each delivery would cause another. Connect inline.")
      for name in ("delivery_published", "delivery_unpublished", "delivery_started", "delivery_finished")),
)  # fmt: skip

_MODEL_SIGNALS = "django.db.models.signals"
_SNAPSHOT_SIGNALS = ("pre_save", "pre_delete", "post_delete")


def _is(signal: dispatch.Signal, module: str, *names: str) -> bool:
    """Whether it is one of those signals, without importing their module: whoever holds one has."""
    return any(getattr(sys.modules.get(module), name, None) is signal for name in names)


class DeferredReceiver:
    """Stands in a signal's receivers for a deferred receiver; calling it publishes and returns the Delivery.

    To whoever looks (debug-toolbar, factory_boy, log lines) it has the name and the signature of the function.
    """

    def __init__(self, registration: Registration, signal: dispatch.Signal, key: Any, given: Options, pending: bool) -> None:
        functools.update_wrapper(self, registration.function)
        # The stand-in is sync even for an async receiver: Django must not await it.
        for mark in ("_is_coroutine_mark", "_is_coroutine"):
            self.__dict__.pop(mark, None)
        self.registration = registration
        self.key = key
        self.options = given
        #: Whether Django waits for the model of a lazy "app.Model" sender before it connects this.
        self.pending = pending
        module = sys.modules.get(_MODEL_SIGNALS)
        self._of_django = module is not None and any(value is signal for value in vars(module).values())
        self._snapshot = given.instance == "snapshot" or (
            given.instance is None and _is(signal, _MODEL_SIGNALS, *_SNAPSHOT_SIGNALS)
        )
        self._said: set[str] = set()

    def __repr__(self) -> str:
        return f"<DeferredReceiver {self.registration.name}>"

    def __call__(self, /, signal: dispatch.Signal, sender: Any, **named: Any) -> Delivery | None:
        """What Django calls at send. Raises EncodeError, ConfigurationError, and PublishError with on_commit=False."""
        if suppressed():
            return None
        # Only the raw= of Django's own signals means fixtures.
        if self._of_django and named.get("raw") and not self.options.deliver_raw:
            return None
        if self.options.when is not None and not self.options.when(sender=sender, **named):
            return None
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
        name = registry.signal_name(signal)
        if name is None and len(self.registration.signals()) > 1:
            raise EncodeError(
                f"{self.registration.name} listens to several signals, and this one has no name by which the worker could "
                "tell it: make it a module attribute, or Signal(name=...)."
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
            try:
                kwargs[name] = encoder.encode(value)
            except EncodeError as error:
                encoder.depth = 0
                kwargs[name] = self._refused(name, error.under(f"kwargs[{name!r}]"))
        return kwargs

    def _encode_sender(self, encoder: Encoder, sender: Any) -> Any:
        try:
            return encoder.encode(sender)
        except EncodeError as error:
            encoder.depth = 0
            try:
                # A view, a service, an AppConfig: what its receivers want to know is whose it is.
                return encoder.encode(type(sender))
            except EncodeError:
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


def _lookup_id(target: Any) -> Any:
    """What Django's dispatcher calls the identity of a receiver or sender (``dispatcher._make_id``).

    Connecting the stand-in with this as ``dispatch_uid`` puts it under the very key that Django would have used for
    the plain function, so that ``signal.disconnect(function, sender=...)`` finds it, on Django's own signals too.
    """
    if hasattr(target, "__func__"):
        return (id(target.__self__), id(target.__func__))
    return id(target)


def _connect_deferred(signal: dispatch.Signal, receiver: Any, sender: Any, dispatch_uid: Any, given: dict[str, Any]) -> None:
    """Put a stand-in for ``receiver`` among the signal's receivers. Raises ConnectError."""
    function = receiver.__func__ if isinstance(receiver, staticmethod) else receiver
    if not callable(function):
        raise ConnectError(f"A receiver must be callable; this is a {type(receiver).__name__}.")
    for module, name, reason in REFUSED:
        if _is(signal, module, name):
            raise ConnectError(f"{module}.{name} cannot have deferred receivers: {reason}")
    extra = {"apps": given.pop("apps")} if "apps" in given else {}
    parsed = options.parse(given)
    registration = registry.register(function, parsed)
    uid = dispatch_uid or _lookup_id(function)
    key = (uid, _lookup_id(sender))
    for other, of in registration.connections():
        if of is signal and other.key == key:
            if other.options == parsed:
                return  # a repetition, which Django too passes over
            raise ConnectError(f"{registration.name!r} is connected to this signal and sender already, with other options.")
    lazy = getattr(sys.modules.get(_MODEL_SIGNALS), "ModelSignal", None)
    pending = isinstance(sender, str) and lazy is not None and isinstance(signal, lazy)
    stand_in = DeferredReceiver(registration, signal, key, parsed, pending)
    signal.connect(stand_in, sender=sender, weak=False, dispatch_uid=uid, **extra)
    if not pending and not registry.holds(signal, stand_in):
        raise ConnectError(
            f"{registration.name!r} or its dispatch_uid is connected to this signal and sender already, inline, so Django "
            "passed this connection over. Disconnect the inline one first."
        )
    registration.connected(stand_in, signal)


def _only_deferred(given: dict[str, Any]) -> None:
    """Refuse options that an inline receiver would ignore."""
    for name in given:
        if options.is_option(name):
            raise ConnectError(f"The option {name!r} is for deferred receivers: add deferred=True.")


class Signal(dispatch.Signal):
    """Django's Signal, whose ``connect`` also takes deferred receivers. The four sends are Django's own.

    ``name`` is the signal's stable name on the wire, by default the module attribute that holds it.
    ``providing_args`` is kept as documentation of what its sends provide, as Django did before 4.0.
    """

    def __init__(
        self, use_caching: bool = False, *, name: str | None = None, providing_args: Sequence[str] | None = None
    ) -> None:
        super().__init__(use_caching)
        self.name = name
        self.providing_args = None if providing_args is None else list(providing_args)

    def connect(  # type: ignore[override]  # returns the receiver, so that it works as a decorator
        self,
        receiver: Any = None,
        sender: Any = None,
        weak: bool = True,
        dispatch_uid: Any = None,
        *,
        deferred: bool = False,
        **given: Any,
    ) -> Any:
        """Connect a receiver; also a decorator, bare (``@signal.connect``) or called (``@signal.connect(deferred=True)``).

        Arguments are those of Django's ``Signal.connect``, and with ``deferred=True`` the options of docs/options.md.
        A deferred receiver and one connected by the called decorator are held strongly, whatever ``weak`` says.
        Returns the receiver. Raises ConnectError, a TypeError.
        """
        if receiver is None:
            return functools.partial(
                self.connect, sender=sender, weak=False, dispatch_uid=dispatch_uid, deferred=deferred, **given
            )
        if deferred:
            _connect_deferred(self, receiver, sender, dispatch_uid, given)
        else:
            _only_deferred(given)
            super().connect(receiver, sender=sender, weak=weak, dispatch_uid=dispatch_uid, **given)
        return receiver


def connect(
    signal: dispatch.Signal, receiver: Receiver, sender: Any = None, *, deferred: bool = False, **given: Any
) -> Receiver:
    """Connect a receiver to any signal, Django's and third parties' too; return the receiver.

    Besides the options, ``dispatch_uid`` and, inline, ``weak`` are taken as Django does. Raises ConnectError.
    """
    if deferred:
        given.pop("weak", None)
        _connect_deferred(signal, receiver, sender, given.pop("dispatch_uid", None), given)
    else:
        _only_deferred(given)
        signal.connect(receiver, sender=sender, **given)
    return receiver


def disconnect(
    signal: dispatch.Signal, receiver: Callable[..., Any] | None = None, sender: Any = None, dispatch_uid: Any = None
) -> bool:
    """Disconnect a receiver, inline or deferred, as ``signal.disconnect`` does; return whether it was connected."""
    return signal.disconnect(receiver, sender=sender, dispatch_uid=dispatch_uid)


def receiver(
    signal: dispatch.Signal | Sequence[dispatch.Signal], *, sender: Any = None, deferred: bool = False, **given: Any
) -> Callable[[Receiver], Receiver]:
    """Connect the decorated function to a signal or to each of a list; ``django.dispatch.receiver`` and ``deferred``.

    Works with every ``django.dispatch.Signal``. The function stays a plain function. Raises ConnectError.
    """

    def decorate(function: Receiver) -> Receiver:
        for one in signal if isinstance(signal, list | tuple) else [signal]:
            connect(one, function, sender, deferred=deferred, **given)
        return function

    return decorate
