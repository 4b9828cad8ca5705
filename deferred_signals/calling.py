"""Calling a receiver, async or not, from a thread that waits for it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from contextvars import copy_context
from typing import Any

from asgiref.sync import async_to_sync, iscoroutinefunction
from django.db import connections

from .exceptions import ReceiverCancelled, ReceiverInterrupted
from .greenlets import among_greenlets, over_the_loop_of_the_process

#: Tells of an exception that is no Exception whether it is for somebody above, and not what the receiver has raised.
Passes = Callable[[BaseException], bool]


def everything(error: BaseException) -> bool:
    """Say that whatever is no Exception is for somebody above: Ctrl-C in a shell, the end of a test run."""
    return True


class contain:  # noqa: N801 - a block, as those of contextlib
    """Make a ReceiverInterrupted of what is no Exception, unless ``passes`` says that it is not the receiver's."""

    def __init__(self, passes: Passes) -> None:
        self._passes = passes

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None and not isinstance(error, Exception) and not self._passes(error):
            raise ReceiverInterrupted(f"The receiver raised {type(error).__name__}.") from error


#: What a test has every call of a receiver made in; at work, nothing.
surroundings: Callable[[], AbstractContextManager[None]] | None = None


def call(function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Call a receiver and wait until it is through. Raises what it raises, and ReceiverCancelled."""
    if surroundings is None:
        _call(function, arguments)
        return
    with surroundings():
        _call(function, arguments)


def _call(function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    if iscoroutinefunction(function):
        _wait_for(lambda: function(**arguments))
        return
    made = function(**arguments)
    if made is not None and inspect.isawaitable(made):
        # An async receiver behind a plain decorator: not awaited, it would be lost without a word.
        _wait_for(lambda: made)


def _wait_for(make: Callable[[], Awaitable[Any]]) -> None:
    async def awaited() -> None:
        await make()

    run = async_to_sync(awaited)
    try:
        if among_greenlets():
            over_the_loop_of_the_process(run)
        elif _in_a_coroutine():
            # Sent in a coroutine and run at once: this thread's loop waits for us, so the receiver gets another one.
            with ThreadPoolExecutor(1) as pool:
                pool.submit(copy_context().run, _closing_connections, run).result()
        else:
            run()
    except asyncio.CancelledError as error:
        # Not an Exception: Celery would acknowledge the message, or stop.
        raise ReceiverCancelled("The receiver was cancelled, or awaited what was.") from error
    except BaseExceptionGroup as error:
        if error.split(asyncio.CancelledError)[1] is not None:
            raise
        raise ReceiverCancelled("The receiver was cancelled, or awaited what was.") from error


def _in_a_coroutine() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _closing_connections(run: Callable[[], None]) -> None:
    """The thread ends with this call, and its connections would be left open."""
    try:
        run()
    finally:
        for connection in connections.all(initialized_only=True):
            connection.close()
