"""Calling a receiver, async or not, from a thread that waits for it."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import copy_context
from importlib import import_module
from typing import Any, cast

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.db import connections

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

    run = async_to_sync(awaited)
    try:
        if _among_greenlets():
            _over_the_loop_of_the_process(run)
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


# Under gevent all threads are greenlets of one thread, also those in which asgiref runs event loops and database calls.
# A thread can run one loop only, and while it does, Django refuses the database to everybody in that thread, to other
# receivers too. So there the process has one loop for all async receivers, in a thread that is a thread.


def _among_greenlets() -> bool:
    """Whether gevent's monkey patches are in force, as in ``celery worker --pool gevent``."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and monkey.is_module_patched("threading")


class _Caller(Executor):
    """Runs the one call that it gets in the thread, or greenlet, that waits for it."""

    def __init__(self) -> None:
        self.given: Future[Callable[[], Any]] = Future()
        self.done: Future[Any] = Future()

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.given.set_result(functools.partial(call, *args, **kwargs))
        return self.done

    def serve(self) -> None:
        self.done.set_result(self.given.result()())


def _over_the_loop_of_the_process(run: Callable[[], None]) -> None:
    """Let asgiref find the process's loop for the receiver, and this greenlet for its database calls."""
    caller = _Caller()
    raised: list[BaseException] = []

    def kept() -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - raised below: a future would take a cancellation for its own
            raised.append(error)

    # What is called through sync_to_async has its async_to_sync sent to the loop that called it.
    there = sync_to_async(kept, thread_sensitive=False, executor=cast("ThreadPoolExecutor", caller))
    ended = asyncio.run_coroutine_threadsafe(there(), _loop_of_the_process())
    caller.serve()
    ended.result()
    for error in raised:
        raise error


_lock = threading.Lock()
#: The loop by process, and what keeps its thread.
_loops: dict[int, tuple[asyncio.AbstractEventLoop, Any]] = {}


def _loop_of_the_process() -> asyncio.AbstractEventLoop:
    with _lock:
        if os.getpid() not in _loops:
            started: Future[asyncio.AbstractEventLoop] = Future()

            async def for_ever() -> None:
                started.set_result(asyncio.get_running_loop())
                await asyncio.Event().wait()

            pool = import_module("gevent.threadpool").ThreadPool(1)
            pool.spawn(lambda: asyncio.run(for_ever()))
            _loops[os.getpid()] = (started.result(), pool)
        return _loops[os.getpid()][0]
