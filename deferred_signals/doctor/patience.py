"""Questions that may be left without an answer: a broker that is frozen answers nothing and refuses nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class NoAnswer(Exception):
    """There was none in time."""


def within(seconds: float, question: Callable[[], Answer]) -> Answer:
    """What the question returns or raises; NoAnswer after that time. Its thread is left behind, and ends with us.

    No timeout of the client libraries bounds all that a broker can do to them.
    """
    answers: SimpleQueue[tuple[Any, Exception | None]] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put((question(), None))
        except Exception as error:  # noqa: BLE001 - raised where it was asked
            answers.put((None, error))

    threading.Thread(target=ask, name="deferred_signals-doctor", daemon=True).start()
    try:
        answer, error = answers.get(timeout=seconds)
    except Empty:
        raise NoAnswer(f"no answer within {seconds:g} s") from None
    if error is not None:
        raise error
    found: Answer = answer
    return found
