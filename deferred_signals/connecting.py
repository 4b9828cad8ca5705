"""What happens when a receiver is connected: the stand-in for a deferred one, and all that is refused."""

from __future__ import annotations

import difflib
import sys
from typing import Any

from django import dispatch

from . import changes, django_signals, options, registry
from .deferred_receiver import DeferredReceiver
from .exceptions import ConnectError
from .references import model_by_label


def _lookup_id(target: Any) -> Any:
    """What Django's dispatcher calls the identity of a receiver or sender (``dispatcher._make_id``).

    Connecting the stand-in with this as ``dispatch_uid`` puts it under the very key that Django would have used for
    the plain function, so that ``signal.disconnect(function, sender=...)`` finds it, on Django's own signals too.
    """
    if hasattr(target, "__func__"):
        return (id(target.__self__), id(target.__func__))
    return id(target)


def connect_deferred(
    signal: dispatch.Signal, receiver: Any, sender: Any, dispatch_uid: Any, given: dict[str, Any]
) -> None:
    """Put a stand-in for ``receiver`` among the signal's receivers. Raises ConnectError."""
    function = receiver.__func__ if isinstance(receiver, staticmethod) else receiver
    if isinstance(function, classmethod):
        raise ConnectError("A class method is connected when its class is there: connect(signal, Class.method, ...).")
    if not callable(function):
        raise ConnectError(f"A receiver must be callable; this is a {type(receiver).__name__}.")
    if refusal := django_signals.refusal(signal):
        raise ConnectError(refusal)
    extra = {"apps": given.pop("apps")} if "apps" in given else {}
    parsed = options.parse(given)
    if parsed.changes and not django_signals.is_post_save(signal):
        raise ConnectError("The option 'changes' is for django.db.models.signals.post_save: only a save has changes.")
    registration = _registration(function, parsed)
    if any(one is not signal and _same_name(one, signal) for one in registration.signals):
        raise ConnectError(
            f"{registration.name!r} listens to another signal of the same name= already. Rename one of them."
        )
    lazy = False
    if isinstance(sender, str) and isinstance(
        signal, getattr(sys.modules.get(django_signals.MODELS), "ModelSignal", ())
    ):
        loaded = None if extra else model_by_label(sender)
        lazy, sender = loaded is None, loaded or sender
    uid = dispatch_uid or _lookup_id(function)
    key = (uid, _lookup_id(sender))
    other = registration.connection(signal, key)
    if other is not None:
        if other.options == parsed:
            return  # a repetition, which Django too passes over
        raise ConnectError(
            f"{registration.name!r} is connected to this signal and sender already, with other options. Disconnect it "
            "first, or give this connection a dispatch_uid of its own."
        )
    if (other := registry.connection_of(signal, key)) is not None:
        raise ConnectError(
            f"{registration.name!r} or its dispatch_uid is connected to this signal and sender already, deferred, as "
            f"{other.registration.name!r}. Disconnect that one first, or give this one a dispatch_uid of its own."
        )
    stand_in = DeferredReceiver(registration, signal, sender, key, parsed)
    signal.connect(stand_in, sender=sender, weak=False, dispatch_uid=uid, **extra)
    stand_in.pending = lazy and not registry.holds(signal, stand_in)
    if not stand_in.pending and not registry.holds(signal, stand_in):
        raise ConnectError(
            f"{registration.name!r} or its dispatch_uid is connected to this signal and sender already, inline, so "
            "Django passed this connection over. Disconnect the inline one first, or give this one a dispatch_uid."
        )
    registry.register(registration)
    registration.connected(stand_in, signal)
    if parsed.changes:
        changes.watch(stand_in, sys.modules[django_signals.MODELS].pre_save)


def _registration(function: Any, parsed: options.Options) -> registry.Registration:
    made = registry.candidate(function, parsed)
    if (length := len(made.name)) > registry.LONGEST_NAME:
        raise ConnectError(
            f"{made.name!r} has {length} characters, and a name may have {registry.LONGEST_NAME}. Give it a name=."
        )
    if by_position := made.takes.by_position:
        raise ConnectError(
            f"{made.name!r} takes {', '.join(by_position)} by position only, and a signal gives all arguments "
            "by keyword. Take the '/' out of its parameters."
        )
    return made


def _same_name(one: dispatch.Signal, other: dispatch.Signal) -> bool:
    name = getattr(one, "name", None)
    return isinstance(name, str) and name == getattr(other, "name", None)


def check_inline(signal: dispatch.Signal, receiver: Any, sender: Any, given: dict[str, Any]) -> None:
    """Refuse what an inline receiver would ignore, and a connection that Django would silently pass over."""
    for name in given:
        if options.is_option(name):
            raise ConnectError(f"The option {name!r} is for deferred receivers: add deferred=True.")
        if difflib.get_close_matches(name, ["deferred"]):
            raise ConnectError(f"There is no argument {name!r}. Did you mean 'deferred'?")
    key = (given.get("dispatch_uid") or _lookup_id(receiver), _lookup_id(sender))
    if (other := registry.connection_of(signal, key)) is not None:
        raise ConnectError(
            f"{getattr(receiver, '__qualname__', receiver)!r} or its dispatch_uid is connected to this signal and "
            f"sender already, as {other.registration.name!r}, deferred, so Django would pass this inline connection "
            "over. Disconnect the deferred one first, or give this one a dispatch_uid of its own."
        )
