"""What a receiver takes. Each call gives it ``sender``, ``signal`` and what was sent, by keyword."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """The signature with which a receiver is called.

    Not that of a wrapped function: its wrapper may provide some, or leave some out.
    """
    try:
        return inspect.signature(function, follow_wrapped=False)
    except ValueError:
        # functools.cache has none of its own: it takes what it wraps takes.
        return inspect.signature(function)


class Parameters:
    """The names of what a receiver takes."""

    def __init__(self, function: Callable[..., Any]) -> None:
        #: Those that it names; the others land in its ``**kwargs``.
        self.named = frozenset(
            name for name, one in inspect.signature(function).parameters.items() if one.kind != one.VAR_KEYWORD
        )
        taken = signature_of(function).parameters.values()
        asked = [one for one in taken if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
        #: Those that a send must provide besides sender and signal.
        self.required = frozenset(one.name for one in asked if one.default is one.empty) - {"sender", "signal"}
        #: All that it can be given, None for whatever is sent.
        self.possible = None if any(one.kind == one.VAR_KEYWORD for one in taken) else {one.name for one in asked}
        #: Those that a call by keyword cannot give it, though it needs them.
        self.by_position = [one.name for one in asked if one.kind == one.POSITIONAL_ONLY and one.default is one.empty]

    def check(self, receiver: str, sent: Collection[str]) -> None:
        """Raise TypeError if the receiver, of that name, lacks what was not sent or does not take what was."""
        if lacking := ", ".join(sorted(self.required.difference(sent))):
            raise TypeError(
                f"The receiver {receiver} needs arguments that the send does not have: {lacking}"
                + (" (the option changes=True would add it)" if lacking == "changes" else "")
            )
        given = {"sender", "signal", *sent}
        if self.possible is not None and (left := ", ".join(sorted(given - self.possible))):
            raise TypeError(
                f"The receiver {receiver} does not take arguments that the send has: {left}. Give it **kwargs."
            )
