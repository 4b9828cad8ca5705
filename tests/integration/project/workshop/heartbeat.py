"""A coroutine that ticks, and how long it was kept from it."""

import asyncio
import time

_tasks = set()
_pauses = [0.0]


async def _beat():
    last = time.monotonic()
    while True:
        await asyncio.sleep(0.01)
        now = time.monotonic()
        _pauses.append(now - last)
        last = now


def start():
    """In the running loop, once."""
    if not _tasks:
        _tasks.add(asyncio.create_task(_beat()))


def longest_pause():
    longest = max(_pauses)
    _pauses[:] = [0.0]
    return longest
