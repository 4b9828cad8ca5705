"""What is left of a batch is handed on to other workers while a receiver keeps it waiting."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from django.db import connections

Item = TypeVar("Item")

logger = logging.getLogger("deferred_signals")

#: Seconds that a receiver may keep those waiting which stand behind it in its batch.
PATIENCE = 0.1


def next_of(rest: deque[Item]) -> Item | None:
    """Take the next of what is left, which two threads take from; None if nothing is."""
    try:
        return rest.popleft()
    except IndexError:
        return None


def take(rest: deque[Item]) -> list[Item]:
    """Take all that is left."""
    taken: list[Item] = []
    while (item := next_of(rest)) is not None:
        taken.append(item)
    return taken


@contextmanager
def handing_on(rest: deque[Item], count: Callable[[], int], hand_on: Callable[[list[Item]], bool]) -> Iterator[None]:
    """While the block runs, hand on what is left as soon as ``count`` has stood still for a moment.

    In two halves, for two others. What ``hand_on`` answers False for, or raises for, is there again after the block.
    """
    is_over = threading.Event()

    def watch() -> None:
        seen = -1
        while not is_over.wait(PATIENCE):
            now = count()
            if now == seen:
                _in_halves(rest, hand_on)
                break
            seen = now
        for connection in connections.all(initialized_only=True):
            connection.close()  # opened by a receiver of Celery's signals: nobody else would close it

    thread = threading.Thread(target=watch, name="deferred_signals-batch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        # The message may not be acknowledged before it is known whether the broker has its rest.
        thread.join()


def _in_halves(rest: deque[Item], hand_on: Callable[[list[Item]], bool]) -> None:
    taken = take(rest)
    half = (len(taken) + 1) // 2
    for part in (taken[:half], taken[half:]):
        try:
            is_gone = not part or hand_on(part)
        except Exception:
            logger.exception("The rest of a batch could not be handed on, and is run here")
            is_gone = False
        if not is_gone:
            rest.extend(part)
