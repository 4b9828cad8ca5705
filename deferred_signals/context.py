"""The context that travels beside the kwargs: captured at send, restored around the receiver, by carriers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any, NamedTuple

from . import localisation
from .exceptions import ConnectError, UnknownName


class Carrier(NamedTuple):
    """How one part of the context travels: ``capture`` returns its value, ``restore`` of that enters it again."""

    capture: Callable[[], Any]
    restore: Callable[[Any], AbstractContextManager[Any]]


#: Django's own, captured together.
_DJANGO: dict[str, Callable[[Any], None]] = {
    "language": localisation.enter_language,
    "timezone": localisation.enter_zone,
}
#: Parts of which no receiver's work depends: a worker that has no carrier for them runs without.
DISPENSABLE = frozenset({"opentelemetry"})
#: The users' own, in the order in which they are captured and entered.
_carriers: dict[str, Carrier] = {}


def register_carrier(
    name: str, *, capture: Callable[[], Any], restore: Callable[[Any], AbstractContextManager[Any]]
) -> None:
    """Let a part of the context of yours travel with every delivery: a tenant, a request's id, a trace.

    ``capture()`` is called at each send to a deferred receiver and returns a value that can travel, also None.
    ``restore(value)`` returns a context manager, which is entered on the worker before the arguments are decoded, and
    left after the receiver. Carriers are entered in the order in which they were registered, so register what others
    need first. Sender and worker must both have registered it, so call it where both come by: your AppConfig's
    ``ready()``. ``restore`` may raise Discard and Retry as a receiver may; anything else counts as raised by the
    receiver. Raises ConnectError for a name that is taken.
    """
    if not isinstance(name, str) or not name:
        raise ConnectError(f"A carrier's name is a non-empty string, not {name!r}.")
    if not callable(capture) or not callable(restore):
        raise ConnectError(f"The carrier {name!r} needs two functions, capture= and restore=.")
    taken = _carriers.get(name)
    # Again is all right where it is the same: a module may be reloaded, ready() called twice.
    if name in _DJANGO or (taken is not None and _origin(taken.capture) != _origin(capture)):
        raise ConnectError(f"There is a context carrier {name!r} already. Choose another name.")
    _carriers[name] = Carrier(capture, restore)


#: Characters of a context's name that an error message shows.
_SHOWN = 100


def _origin(function: Any) -> tuple[Any, Any]:
    return getattr(function, "__module__", None), getattr(function, "__qualname__", None)


def unregister_carrier(name: str) -> None:
    """Forget a carrier: for tests. Raises KeyError when there is none of that name."""
    del _carriers[name]


def capture(encode: Callable[[str, Any], Any]) -> dict[str, Any]:
    """The context of this moment; ``encode(name, value)`` makes JSON of what the users' carriers captured."""
    captured, _ = localisation.capture()
    if not _carriers:
        return captured
    return captured | {name: encode(name, carrier.capture()) for name, carrier in _carriers.items()}


def text() -> str | None:
    """The JSON text of the context of this moment, the same object as long as it is the same.

    None where the users' carriers have a part in it.
    """
    return None if _carriers else localisation.capture()[1]


def enter_djangos(captured: Mapping[str, Any]) -> None:
    """Enter what of a captured context is Django's own, for the rest of the context of this call."""
    now, _ = localisation.capture()
    for name, activate in _DJANGO.items():
        # To see that it is so already takes a tenth of the time.
        if name in captured and ((value := captured[name]) is None or value != now[name]):
            activate(value)


def enter(captured: Mapping[str, Any], decode: Callable[[Any], Any], stack: ExitStack) -> None:
    """Enter a captured context, in a context of its own. Each value is decoded inside of those before it: a user may
    live in a tenant.

    Raises UnknownName for a carrier that this process does not have: without its tenant, a receiver could do harm.
    """
    check_names(captured)
    enter_djangos(captured)
    for name, carrier in list(_carriers.items()):
        if name in captured:
            stack.enter_context(carrier.restore(decode(captured[name])))


def check_names(captured: Mapping[str, Any]) -> None:
    """Raise UnknownName for a carrier that this process does not have."""
    for name in captured:
        if name not in _DJANGO and name not in _carriers and name not in DISPENSABLE:
            raise UnknownName(
                f"The payload has a context {name[:_SHOWN]!r} that this process does not know: is register_carrier() "
                "called on the worker too, or does a newer release send it?"
            )


def only_djangos(captured: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What of a captured context is Django's own; None if a carrier of the users' own has a part in it.

    Of what is dispensable no row depends.
    """
    if captured.keys() == _DJANGO.keys():
        return captured
    if not captured.keys() <= _DJANGO.keys() | DISPENSABLE:
        return None
    return {name: captured[name] for name in captured if name in _DJANGO}


def is_djangos(name: str) -> bool:
    """Whether a part of the context is Django's own, and no value of the codec."""
    return name in _DJANGO
