"""Which captured deliveries a test means, and what a failed assertion says of them.

Values are shown, shortened: they are a test's own. What is meant to stay secret at work does not belong in tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from django.dispatch import Signal

from .. import registry
from ..exceptions import ConnectError
from ..references import path_of
from ..signal_names import is_called, signal_name
from .captured import CapturedDelivery, _shown

#: Asked of each captured delivery.
Where = Callable[[CapturedDelivery], Any]

#: Deliveries that a failed assertion shows.
MOST_SHOWN = 20


def _names(receiver: Any) -> set[str]:
    """The names of a receiver. Raises ValueError for what no deferred receiver is."""
    names = registry.names_of(receiver)
    if not names and not isinstance(receiver, str):
        # What another decorator hides stands under the same path.
        with suppress(ConnectError, AttributeError):
            names = registry.names_of(registry.name_of(receiver))
    if not names:
        raise ValueError(
            f"{receiver!r} is neither a receiver nor the name of one: nothing of that name was connected with "
            "deferred=True in this process."
        )
    return names


def matching(
    captured: Iterable[CapturedDelivery],
    receiver: Any,
    sender: Any,
    signal: Any,
    where: Where | None,
    kwargs: dict[str, Any],
) -> list[CapturedDelivery]:
    """Those that fit all that is said; ``...`` stands for any sender, None for any receiver or signal."""
    names = None if receiver is None else _names(receiver)
    found = [one for one in captured if names is None or one.receiver in names]
    if signal is not None:
        found = [one for one in found if _is_of(one, signal)]
    if sender is not ... or kwargs:
        found = [one for one in found if _has(one, sender, kwargs)]
    return found if where is None else [one for one in found if where(one)]


def _is_of(one: CapturedDelivery, signal: Any) -> bool:
    if isinstance(signal, Signal):
        return one.signal is not None and is_called(signal, one.signal)
    return bool(one.signal == signal)


def _has(one: CapturedDelivery, sender: Any, kwargs: dict[str, Any]) -> bool:
    sent_by, arguments = one.comparable()
    if sender is not ... and not bool(sent_by == sender):
        return False
    return all(name in arguments and bool(arguments[name] == value) for name, value in kwargs.items())


def in_none(captured: Iterable[CapturedDelivery], kwargs: Iterable[str]) -> list[str]:
    """Those of the names of arguments that none of the deliveries has; none where there are no deliveries."""
    sent = [one.comparable()[1] for one in captured]
    return [name for name in kwargs if sent and not any(name in arguments for arguments in sent)]


def named(receiver: Any, sender: Any, signal: Any, where: Where | None, kwargs: dict[str, Any]) -> str:
    """What a test has asked for, in words."""
    to = receiver if isinstance(receiver, str) or receiver is None else path_of(receiver)
    conditions = [f"{name}={_shown(value)}" for name, value in kwargs.items()]
    if sender is not ...:
        conditions.insert(0, f"sender={_shown(sender)}")
    if where is not None:
        conditions.append("where= true")
    parts = [
        f"to {to}" if to else "",
        f"from {signal_name(signal) if isinstance(signal, Signal) else signal}" if signal is not None else "",
        f"with {', '.join(conditions)}" if conditions else "",
    ]
    return " ".join(part for part in parts if part)


def told(captured: Sequence[CapturedDelivery], waiting: Sequence[str]) -> str:
    """What was captured instead, and what waits for the end of a block."""
    lines = [f"{len(captured)} captured:" if captured else "Nothing was captured."]
    lines += [f"  {place}. {one.describe()}" for place, one in enumerate(captured[:MOST_SHOWN], 1)]
    if len(captured) > MOST_SHOWN:
        lines.append(f"  and {len(captured) - MOST_SHOWN} more")
    if waiting:
        counts = ", ".join(f"{name} ({count})" for name, count in Counter(waiting).items())
        lines.append(f"Not published yet, for a transaction is open: {counts}")
    return "\n".join(lines)
