"""Writing down what has happened, though the database may be away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from celery.exceptions import SoftTimeLimitExceeded
from django.db import Error as DatabaseDriverError

from deferred_signals.outage import database_is_away

logger = logging.getLogger("deferred_signals")

Result = TypeVar("Result")

#: Longest pause between two tries, in seconds.
PAUSE = 1.0


def persist(write: Callable[[], Result], what: str, seconds: float) -> Result | None:
    """Try to write for so many seconds, and return what came of it; None, and a line in the log, if nothing did.

    A soft time limit comes once, and too late here.
    """
    until = time.monotonic() + seconds
    pause = 0.0
    while True:
        try:
            if pause:
                database_is_away()  # for what it mends
                time.sleep(pause)
            return write()
        except (DatabaseDriverError, SoftTimeLimitExceeded) as error:
            if time.monotonic() > until:
                logger.error(  # noqa: TRY400 - no crash
                    "%s could not be written down, so it will run again: %s: %s", what, type(error).__name__, error
                )
                return None
            pause = min(2 * pause + 0.05, PAUSE)
