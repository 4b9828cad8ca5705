"""Signals, and the connecting of receivers to them."""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from django import dispatch

from . import options, registry, signals
from .deferred_receiver import MODEL_SIGNALS, DeferredReceiver
from .exceptions import ConnectError
from .signal_names import is_signal

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


def _lookup_id(target: Any) -> Any:
    """What Django's dispatcher calls the identity of a receiver or sender (``dispatcher._make_id``).

    Connecting the stand-in with this as ``dispatch_uid`` puts it under the very key that Django would have used for
    the plain function, so that ``signal.disconnect(function, sender=...)`` finds it, on Django's own signals too.
    """
    if hasattr(target, "__func__"):
        return (id(target.__self__), id(target.__func__))
    return id(target)


def _connect_deferred(
    signal: dispatch.Signal, receiver: Any, sender: Any, dispatch_uid: Any, given: dict[str, Any]
) -> None:
    """Put a stand-in for ``receiver`` among the signal's receivers. Raises ConnectError."""
    function = receiver.__func__ if isinstance(receiver, staticmethod) else receiver
    if not callable(function):
        raise ConnectError(f"A receiver must be callable; this is a {type(receiver).__name__}.")
    for module, name, reason in REFUSED:
        if is_signal(signal, module, name):
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
            raise ConnectError(
                f"{registration.name!r} is connected to this signal and sender already, with other options."
            )
    lazy = getattr(sys.modules.get(MODEL_SIGNALS), "ModelSignal", None)
    stand_in = DeferredReceiver(registration, signal, key, parsed)
    signal.connect(stand_in, sender=sender, weak=False, dispatch_uid=uid, **extra)
    connected = registry.holds(signal, stand_in)
    stand_in.pending = not connected and isinstance(sender, str) and lazy is not None and isinstance(signal, lazy)
    if not connected and not stand_in.pending:
        raise ConnectError(
            f"{registration.name!r} or its dispatch_uid is connected to this signal and sender already, inline, so "
            "Django passed this connection over. Disconnect the inline one first."
        )
    registration.connected(stand_in, signal)


def _check_inline(signal: dispatch.Signal, receiver: Any, sender: Any, given: dict[str, Any]) -> None:
    """Refuse what an inline receiver would ignore, and a connection that Django would silently pass over."""
    for name in given:
        if options.is_option(name):
            raise ConnectError(f"The option {name!r} is for deferred receivers: add deferred=True.")
        if difflib.get_close_matches(name, ["deferred"]):
            raise ConnectError(f"There is no argument {name!r}. Did you mean 'deferred'?")
    key = (given.get("dispatch_uid") or _lookup_id(receiver), _lookup_id(sender))
    for registration in registry.registrations():
        if registration.function == receiver and (signal, key) in (
            (of, one.key) for one, of in registration.connections()
        ):
            raise ConnectError(
                f"{registration.name!r} is connected to this signal and sender already, deferred, so Django would pass "
                "this inline connection over. Disconnect the deferred one first."
            )


class Signal(dispatch.Signal):
    """Django's Signal, whose ``connect`` also takes deferred receivers. The four sends are Django's own.

    ``name`` is the signal's stable name on the wire, by default the module attribute that holds it.
    ``providing_args`` is kept as documentation of what its sends provide, as Django did before 4.0.
    """

    def __init__(
        self,
        use_caching: bool = False,
        *,
        name: str | None = None,
        providing_args: Sequence[str] | None = None,
    ) -> None:
        super().__init__(use_caching)
        self.name = name
        self.providing_args = None if providing_args is None else list(providing_args)

    def connect(
        self,
        receiver: Any = None,
        sender: Any = None,
        weak: bool = True,
        dispatch_uid: Any = None,
        *,
        deferred: bool = False,
        **given: Any,
    ) -> Any:
        """Connect a receiver; also a decorator, bare (``@signal.connect``) or called (``@signal.connect(...)``).

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
            _check_inline(self, receiver, sender, {"dispatch_uid": dispatch_uid, **given})
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
        _check_inline(signal, receiver, sender, given)
        signal.connect(receiver, sender=sender, **given)
    return receiver


def disconnect(
    signal: dispatch.Signal,
    receiver: Callable[..., Any] | None = None,
    sender: Any = None,
    dispatch_uid: Any = None,
) -> bool:
    """Disconnect a receiver, inline or deferred, as ``signal.disconnect`` does; return whether it was connected."""
    return signal.disconnect(receiver, sender=sender, dispatch_uid=dispatch_uid)


def receiver(
    signal: dispatch.Signal | Sequence[dispatch.Signal],
    *,
    sender: Any = None,
    deferred: bool = False,
    **given: Any,
) -> Callable[[Receiver], Receiver]:
    """Connect the decorated function to a signal or to each of a list; ``django.dispatch.receiver`` and ``deferred``.

    Works with every ``django.dispatch.Signal``. The function stays a plain function. Raises ConnectError.
    """
    several: Sequence[Any] = signal if isinstance(signal, list | tuple) else [signal]
    for one in several:
        # Not by its class: with our Signal in the place of Django's there are two of them.
        if isinstance(one, type) or not hasattr(one, "connect"):
            raise ConnectError(
                f"@receiver takes a signal or a list of signals, as in @receiver(post_save); not {one!r}."
            )

    def decorate(function: Receiver) -> Receiver:
        for one in several:
            connect(one, function, sender, deferred=deferred, **given)
        return function

    return decorate
