"""Calling a receiver, async or not, from a thread that waits for it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from asgiref.sync import async_to_sync, iscoroutinefunction

from .exceptions import ReceiverCancelled


def call(function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Call a receiver and wait until it is through. Raises what it raises, and ReceiverCancelled."""
    if iscoroutinefunction(function):
        _wait_for(lambda: function(**arguments))
        return
    made = function(**arguments)
    if inspect.isawaitable(made):
        # An async receiver behind a plain decorator: not awaited, it would be lost without a word.
        _wait_for(lambda: made)


def _wait_for(make: Callable[[], Awaitable[Any]]) -> None:
    async def awaited() -> None:
        await make()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        run: Callable[[], Any] = async_to_sync(awaited)
    else:
        # Sent in a coroutine and run at once: this thread's loop waits for us, so the receiver gets another one.
        def run() -> Any:
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(copy_context().run, async_to_sync(awaited)).result()

    try:
        run()
    except asyncio.CancelledError as error:
        # Not an Exception: Celery would acknowledge the message, or stop.
        raise ReceiverCancelled("The receiver was cancelled, or awaited what was.") from error
    except BaseExceptionGroup as error:
        if error.split(asyncio.CancelledError)[1] is not None:
            raise
        raise ReceiverCancelled("The receiver was cancelled, or awaited what was.") from error
