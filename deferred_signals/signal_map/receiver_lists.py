"""Who is connected to a signal inline: the one place that reads what Django keeps to itself.

Nothing public lists the receivers of a signal: ``has_listeners`` says only whether there is one. So this reads
``Signal.receivers``, as django-debug-toolbar does. Its entries begin with the key ``(receiver's, sender's id)`` and the
receiver, or a weak reference to it, in every release so far; what follows has changed (in Django 6 the sender, weakly).
Only that beginning is relied upon. An entry of another shape is counted as unread and told, and never an error: a list
for people must not break a project. A test connects receivers of all kinds and fails when the shape moves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple
from weakref import ReferenceType

from django.dispatch import Signal

#: The part of a key that stands for any sender.
ANY = id(None)


class Entry(NamedTuple):
    """One receiver of a signal, and the id of the sender that it is connected for."""

    receiver: Any
    sender_id: int
    #: The sender itself, where Django has it; else None.
    sender: Any


def entries(signal: Signal) -> Iterator[Entry | None]:
    """What is connected to a signal and still alive; None for an entry that cannot be read."""
    for entry in list(signal.receivers):
        try:
            (_, sender_id), held, *rest = entry
        except (TypeError, ValueError):
            yield None
            continue
        receiver = held() if isinstance(held, ReferenceType) else held
        if receiver is None:
            continue  # collected, and Django has not tidied up yet
        if not callable(receiver) or type(sender_id) is not int:
            yield None
            continue
        senders = [part() for part in rest if isinstance(part, ReferenceType)]
        yield Entry(receiver, sender_id, senders[0] if senders else None)
