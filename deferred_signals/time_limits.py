"""Time limits of one receiver among several in a message, where Celery's are for the message.

A timer of the process interrupts its main thread. So they can be had in the main thread of a process that runs nothing
beside it, as the children of Celery's prefork pool do; not where receivers are threads or greenlets.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from .greenlets import among_greenlets

logger = logging.getLogger("deferred_signals")


def can_be_had() -> bool:
    """Whether this thread can be interrupted by a timer."""
    return threading.current_thread() is threading.main_thread() and not among_greenlets()


@contextmanager
def limited(soft: float | None, hard: float | None) -> Iterator[None]:
    """Raise SoftTimeLimitExceeded in the block after ``soft`` seconds; end the process after ``hard`` ones.

    The process, as Celery does it: nothing else ends a receiver that does not listen. Its message comes back.
    """

    def end(*args: Any) -> None:
        logger.error("A receiver ran into its hard time limit (%s s): its process is ended", hard)
        os.kill(os.getpid(), signal.SIGKILL)

    def warn(*args: Any) -> None:
        if hard is not None:
            signal.signal(signal.SIGALRM, end)
            signal.setitimer(signal.ITIMER_REAL, max(hard - (soft or 0), 0.001))
        raise SoftTimeLimitExceeded

    first, handler = (hard, end) if soft is None else (soft, warn)
    if first is None:
        yield
        return
    before = signal.signal(signal.SIGALRM, handler)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, first)
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        # Once more: an alarm in the last moment has set the next one, which is not for other receivers.
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
