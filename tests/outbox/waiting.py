"""Waiting for a condition, in the tests of the outbox that run threads and processes beside themselves."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

#: Seconds that anything may take, on a machine that is busy with something else.
DEADLINE = 60.0


def wait_until(condition: Callable[[], Any], what: str = "what was waited for") -> None:
    """Look often, and end as soon as it holds."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"not in {DEADLINE} s: {what}"
        time.sleep(0.005)
