"""Seeing sends, while at least one request has the panel.

Inline receivers are timed by public means: ``Signal.send`` and its three companions are replaced by functions that take
the time and call them, and what was spent in deferred receivers is subtracted. Django tells nobody how long each
receiver of one send took, so those of one send are timed together. When the last request with the panel is over, the
methods are put back.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.dispatch import Signal

from ..deferred_receiver import DeferredReceiver
from ..delivery import Delivery
from ..signal_names import signal_name
from ..signals import delivery_published, delivery_unpublished
from .recording import PUBLISHED, UNPUBLISHED, Recording, Send, Sent, shapes_of, size_of

#: Of the request that is being answered here; None where it has no panel.
_current: ContextVar[Recording | None] = ContextVar("deferred_signals_panel", default=None)
#: Seconds spent in deferred receivers, of the send that is being made here.
_deferred: ContextVar[list[float] | None] = ContextVar("deferred_signals_panel_deferred", default=None)

_lock = threading.Lock()
_watching: set[Recording] = set()
#: What was replaced.
_replaced: dict[tuple[type, str], Any] = {}


def begin(recording: Recording) -> None:
    """Watch what this context sends."""
    _current.set(recording)
    with _lock:
        if not _watching:
            _replace()
        _watching.add(recording)


def end(recording: Recording) -> None:
    """Watch no more."""
    _current.set(None)
    recording.is_over = True
    with _lock:
        _watching.discard(recording)
        if not _watching:
            _put_back()


def _replace() -> None:
    for name in ("send", "send_robust"):
        _replace_one(Signal, name, _timed)
    for name in ("asend", "asend_robust"):
        _replace_one(Signal, name, _timed_async)
    _replace_one(DeferredReceiver, "__call__", _noted)
    delivery_published.connect(_published, weak=False, dispatch_uid=__name__)
    delivery_unpublished.connect(_unpublished, weak=False, dispatch_uid=__name__)


def _replace_one(kind: type, name: str, made: Callable[[Any], Any]) -> None:
    _replaced[kind, name] = vars(kind)[name]
    setattr(kind, name, made(vars(kind)[name]))


def _put_back() -> None:
    for (kind, name), method in _replaced.items():
        setattr(kind, name, method)
    _replaced.clear()
    delivery_published.disconnect(dispatch_uid=__name__)
    delivery_unpublished.disconnect(dispatch_uid=__name__)


@contextmanager
def _timing() -> Iterator[Callable[[], float]]:
    """What tells, after the block, how many seconds it took without those spent in deferred receivers."""
    spent: list[float] = []
    took = 0.0
    token = _deferred.set(spent)
    began = time.perf_counter()
    try:
        yield lambda: took - sum(spent)
    finally:
        took = time.perf_counter() - began
        _deferred.reset(token)


def _timed(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def send(self: Signal, *args: Any, **named: Any) -> Any:
        recording = _current.get()
        if recording is None:
            return method(self, *args, **named)
        with _timing() as inline_seconds:
            answers = method(self, *args, **named)
        _note_inline(recording, self, args, named, answers, inline_seconds())
        return answers

    return send


def _timed_async(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def asend(self: Signal, *args: Any, **named: Any) -> Any:
        recording = _current.get()
        if recording is None:
            return await method(self, *args, **named)
        with _timing() as inline_seconds:
            answers = await method(self, *args, **named)
        _note_inline(recording, self, args, named, answers, inline_seconds())
        return answers

    return asend


def _note_inline(
    recording: Recording, signal: Signal, args: Any, named: Any, answers: Iterable[tuple[Any, Any]], seconds: float
) -> None:
    inline = [receiver for receiver, _ in answers if not _is_ours(receiver)]
    if inline:
        sender = args[0] if args else named.get("sender")
        receivers = [_name_of(receiver) for receiver in inline]
        recording.inline.append(Send(_signal(signal), _name_of(sender), receivers, seconds * 1000))


def _is_ours(receiver: Any) -> bool:
    """Whether it is no inline receiver of the project's."""
    return isinstance(receiver, DeferredReceiver) or receiver is _published or receiver is _unpublished


def _noted(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: DeferredReceiver, /, signal: Signal, sender: Any, **named: Any) -> Any:
        recording = _current.get()
        if recording is None:
            return method(self, signal=signal, sender=sender, **named)
        delivery, error = None, ""
        began = time.perf_counter()
        try:
            delivery = answer = method(self, signal=signal, sender=sender, **named)
        except Exception as raised:
            error = type(raised).__name__
            raise
        finally:
            seconds = time.perf_counter() - began
            if (spent := _deferred.get()) is not None:
                spent.append(seconds)
            recording.add(_sent(self, signal, named, delivery, seconds * 1000, error))
        return answer

    return call


def _sent(
    stand_in: DeferredReceiver, signal: Signal, named: Any, delivery: Delivery | None, took: float, error: str
) -> Sent:
    shapes, name = shapes_of(named), stand_in.registration.name
    if delivery is None:
        return Sent(name, _signal(signal), shapes, took, None, None, False, error)
    return Sent(name, _signal(signal), shapes, took, delivery.id, size_of(delivery), delivery.kept is not None)


def _published(delivery: Delivery, **kwargs: Any) -> None:
    _hear(delivery, PUBLISHED)


def _unpublished(delivery: Delivery | None, **kwargs: Any) -> None:
    if delivery is not None:
        _hear(delivery, UNPUBLISHED)


def _hear(delivery: Delivery, state: str) -> None:
    if (recording := _current.get()) is not None:
        recording.heard[delivery.id] = state


def _signal(signal: Signal) -> str:
    return signal_name(signal) or "a signal without a name"


def _name_of(thing: Any) -> str:
    """Of a receiver or a sender: of what has no name of its own, its type's; never a value."""
    if thing is None:
        return "None"
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}.{named.__qualname__}"
