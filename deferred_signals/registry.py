"""Which receivers a worker may call, by name. A name from the wire is a key here, never an import."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, ModuleType
from typing import Any
from weakref import ReferenceType, ref

from django.dispatch import Signal

from .exceptions import ConnectError, UnknownReceiver
from .options import Options
from .parameters import Parameters
from .references import look_up, path_of
from .signal_names import is_called

Function = Callable[..., Any]
#: Characters of a receiver's name that the outbox can keep; by a part of it nobody would find the options.
LONGEST_NAME = 255


class Registration:
    """One deferred receiver of this process: its name, its function, how a worker runs it.

    It outlives its connections: what was sent while the receiver was connected is delivered to it.
    """

    def __init__(self, name: str, function: Function, options: Options) -> None:
        self.name = name
        self.function = function
        self.options = options
        #: Every signal that it was ever connected to, and the largest ``batch_size`` that it ever had.
        self.signals: list[Signal] = []
        self.batch_size = 1
        self._stand_ins: dict[Any, tuple[ReferenceType[Any], Signal]] = {}

    @functools.cached_property
    def takes(self) -> Parameters:
        """What the receiver takes."""
        return Parameters(self.function)

    def connected(self, stand_in: Any, signal: Signal) -> None:
        """Note that ``stand_in`` stands in the receivers of ``signal``, which hold it."""
        self._stand_ins[id(signal), stand_in.key] = (ref(stand_in), signal)
        self.batch_size = max(self.batch_size, stand_in.options.batch_size)
        if not any(one is signal for one in self.signals):
            self.signals.append(signal)

    def connection(self, signal: Signal, key: Any) -> Any:
        """The stand-in that is connected to the signal under a key of Django's now, or None."""
        held, _ = self._stand_ins.get((id(signal), key), (None, None))
        stand_in = held() if held is not None else None
        # Asks the signal, for Django's DEBUG checks keep a stand-in alive in an lru_cache after it was disconnected.
        return stand_in if stand_in is not None and (stand_in.pending or holds(signal, stand_in)) else None

    def connections(self) -> list[Any]:
        """All the stand-ins that are connected now."""
        found = [self.connection(signal, key) for (_, key), (_, signal) in list(self._stand_ins.items())]
        return [stand_in for stand_in in found if stand_in is not None]

    def options_for(self, signal: str | None) -> Options:
        """The options of its connection to a signal, by name; of another one, if it is not connected to that here."""
        found = sorted(self.connections(), key=lambda one: not is_called(one.signal, signal or ""))
        return found[0].options if found else self.options

    def listening(self) -> list[Signal]:
        """The signals that the receiver listens to now; when it is disconnected, those it ever listened to."""
        now = {id(stand_in.signal) for stand_in in self.connections()}
        return [signal for signal in self.signals if not now or id(signal) in now]


def holds(signal: Signal, receiver: Any) -> bool:
    """Whether the object stands among the signal's receivers.

    ``Signal.receivers`` is not documented and the shape of its entries has changed between releases; that an entry
    contains its receiver has not. Nothing public tells a connect that Django silently took for a repetition.
    """
    # From its end, where the newest stand.
    return any(part is receiver for entry in reversed(signal.receivers) for part in entry)


_lock = threading.Lock()
_by_name: dict[str, Registration] = {}


def name_of(function: Function) -> str:
    """The dotted path under which a worker finds ``function``. Raises ConnectError for what it could not find."""
    if isinstance(function, functools.partial | functools.partialmethod):
        raise ConnectError(
            "A functools.partial cannot be deferred: it has no dotted path by which a worker could find it. "
            "Write a function at module level that makes the call."
        )
    owner = getattr(function, "__self__", None)
    if owner is not None and not isinstance(owner, type | ModuleType):
        raise ConnectError(
            f"The method {function.__name__!r} of an instance of {type(owner).__qualname__} cannot be deferred: a "
            "worker has no such instance. Use a module-level function, a static method or a class method."
        )
    if isinstance(function, type | BuiltinFunctionType):
        raise ConnectError(f"{function!r} cannot be deferred: a receiver is a function, static method or class method.")
    path = path_of(function)
    if isinstance(owner, type):
        path = (owner_path := path_of(owner)) and f"{owner_path}.{function.__name__}"
    if path is None:
        what = getattr(function, "__qualname__", None) or f"an object of type {type(function).__qualname__}"
        raise ConnectError(
            f"{what!r} cannot be deferred: lambdas, functions inside functions and callable objects have no dotted "
            "path by which a worker could find them. Write a function at module level."
        )
    if path.startswith("__main__."):
        raise ConnectError(
            f"{path!r} cannot be deferred: a worker has another __main__. Move the receiver to a module that the web "
            "process and the worker both import."
        )
    return path


def candidate(function: Function, options: Options) -> Registration:
    """The registration of ``function`` under its name: the one there is, or one that ``register`` will put there.

    Raises ConnectError when the name is taken.
    """
    path = name_of(function)
    name = options.name or path
    with _lock:
        found = _by_name.get(name)
        if found is not None and found.function == function and found.options.on_worker == options.on_worker:
            return found
        for taken in (name, *options.aliases):
            other = _by_name.get(taken)
            if other is None or not other.connections():
                continue
            if other.function == function and other.name == name:
                raise ConnectError(
                    f"{name!r} is connected already with other options for the worker (retries, missing, aliases). A "
                    "worker looks them up by name: use the same, or give this connection a name= of its own."
                )
            if other.function != function and path_of(other.function) == path:
                raise ConnectError(f"Two functions have the dotted path {path!r}. Rename one of them.")
            if other.function != function:
                raise ConnectError(
                    f"The name {taken!r} belongs to {path_of(other.function)!r} already, so {path!r} cannot have it. "
                    "Give one of them a name= of its own."
                )
    return Registration(name, function, options)


def register(registration: Registration) -> None:
    """Let its name and aliases lead to it, now that it is connected: a connection that is refused leaves no name."""
    with _lock:
        for key in (registration.name, *registration.options.aliases):
            _by_name[key] = registration


def get(name: str) -> Registration:
    """The registration of a receiver's name or alias. Raises UnknownReceiver."""
    found = _by_name.get(name)
    if found is None:
        raise UnknownReceiver(
            "No receiver of the name that the payload gives is connected in this process. Is the app in "
            "INSTALLED_APPS, and does its AppConfig.ready() import the module?"
        )
    return found


def registrations(where: Callable[[Registration], bool] = bool) -> Iterator[Registration]:
    """Every deferred receiver that is connected in this process, by name; or those of which ``where`` is true."""
    found = {one.name: one for one in list(_by_name.values()) if where(one) and one.connections()}
    return iter([found[name] for name in sorted(found)])


def names_of(receiver: Function | str) -> set[str]:
    """The names under which a function, or the receiver of that name or path, was ever connected in this process."""
    found = [one for key, one in list(_by_name.items()) if receiver in (key, one.function)]
    return {one.name for one in found}


def connection_of(signal: Signal, key: Any) -> Any:
    """The stand-in that is connected to a signal under a key of Django's, of whichever receiver; or None."""
    found = (one.connection(signal, key) for one in list(_by_name.values()))
    return next((stand_in for stand_in in found if stand_in is not None), None)


def signal_for(name: str | None, registration: Registration) -> Signal:
    """The signal that a payload names. Raises UnknownReceiver when this process has none of that name."""
    for signal in registration.signals:
        if name is not None and is_called(signal, name):
            return signal
    found: Any = look_up(name) if name is not None else None
    # Not isinstance: the wire has named it, and a lazy object in a module would be evaluated to answer.
    if issubclass(type(found), Signal):
        return found  # type: ignore[no-any-return]  # a Signal
    if len(listening := registration.listening()) == 1:
        return listening[0]
    raise UnknownReceiver(f"No signal of the name that the payload gives is known here for {registration.name!r}.")
