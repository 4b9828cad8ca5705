"""Signals, and the connecting of receivers to them."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from django import dispatch

from .connecting import check_inline, connect_deferred
from .exceptions import ConnectError

#: Django's own class, also where a test suite puts ours in its place.
_Base = dispatch.Signal

Receiver = TypeVar("Receiver", bound=Callable[..., Any])


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
        #: Where it was made, as named tuples know it: others that import the signal are not asked for its name.
        self.module = sys._getframe(1).f_globals.get("__name__")  # noqa: SLF001
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
            connect_deferred(self, receiver, sender, dispatch_uid, given)
        else:
            check_inline(self, receiver, sender, {"dispatch_uid": dispatch_uid, **given})
            super().connect(receiver, sender=sender, weak=weak, dispatch_uid=dispatch_uid, **given)
        return receiver


def connect(
    signal: dispatch.Signal, receiver: Receiver, sender: Any = None, *, deferred: bool = False, **given: Any
) -> Receiver:
    """Connect a receiver to any signal, Django's and third parties' too; return the receiver.

    Besides the options, ``dispatch_uid`` and, inline, ``weak`` are taken as Django does. Raises ConnectError.
    """
    if not isinstance(signal, _Base):
        raise ConnectError(f"connect() takes a signal, as in connect(post_save, receiver); not {signal!r}.")
    if deferred:
        given.pop("weak", None)
        connect_deferred(signal, receiver, sender, given.pop("dispatch_uid", None), given)
    else:
        check_inline(signal, receiver, sender, given)
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
        if not isinstance(one, _Base):
            raise ConnectError(
                f"@receiver takes a signal or a list of signals, as in @receiver(post_save); not {one!r}."
            )

    def decorate(function: Receiver) -> Receiver:
        for one in several:
            connect(one, function, sender, deferred=deferred, **given)
        return function

    return decorate
