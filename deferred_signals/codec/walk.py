"""Where an encoder is on its walk over the arguments of a send: how deep, how far, and what it has written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .. import conf
from ..exceptions import EncodeError, TooLarge
from ..references import type_name

T = TypeVar("T")


def told(value: Any, ask: Callable[[Any], T], problem: str) -> T:
    """What code that is not ours says about a value. Raises EncodeError if it raises, with its type in ``problem``."""
    try:
        return ask(value)
    except EncodeError:
        raise
    except Exception as error:
        raise EncodeError(problem.format(type(error).__name__), type_name(value)) from error


class Walk:
    """The limits of one argument, and what of it is undone when it turns out that it cannot travel."""

    # On the class, for most sends change none of these, and a walk is made for each send.
    depth = 0
    #: Whether the receiver names the argument: only then it may cost a query.
    asked = True
    max_depth = 0  # not read yet
    left = 0
    #: By the object's id, the objects that travel as snapshots and what was made of them, in the order of the wire.
    snapshots: dict[int, tuple[Any, dict[str, Any]]]

    def down(self, value: Any) -> None:
        """Enter a container: one level deeper. Its codec takes the level back when it is through."""
        self.depth += 1
        if self.depth > self.max_depth:
            self._look_at_the_limit(value)

    def _look_at_the_limit(self, value: Any) -> None:
        if not self.max_depth:
            # Only now, for most arguments have no depth and no size to speak of.
            settings = conf.current()
            self.max_depth, self.left = settings.max_depth, settings.max_size
        if self.depth > self.max_depth:
            raise EncodeError(
                f"it is nested more than {self.max_depth} levels deep, or contains itself. Send less of it, or raise "
                "DEFERRED_SIGNALS['MAX_DEPTH'].",
                type_name(value),
            )

    def count(self, number: int) -> None:
        """Note that ``number`` values follow in the container that was entered; each is a byte at least.

        Stops before what is too large is made.
        """
        self.left -= number
        if self.left < 0:
            raise TooLarge("it has more values than MAX_SIZE has bytes. Send what identifies the data instead.")

    def position(self) -> tuple[int, int]:
        """Where the walk is, for ``back_to``."""
        return self.depth, len(self.snapshots)

    def back_to(self, position: tuple[int, int]) -> None:
        """Forget what was written since: it does not travel, so nothing may refer to it."""
        self.depth, number = position
        while len(self.snapshots) > number:
            self.snapshots.popitem()

    def restart(self, kept: int = 0) -> None:
        """Begin with another argument, after one that cannot travel; ``kept`` snapshots are of those before it."""
        self.back_to((0, kept))
        self.max_depth = 0
