"""One event loop for all async receivers of a process whose threads are greenlets.

Under gevent all threads are greenlets of one thread, also those in which asgiref runs event loops and database calls.
A thread can run one loop only, and while it does, Django refuses the database to everybody in that thread, to other
receivers too. So the loop runs in a thread that is a thread, and what a receiver asks of the database runs in the
greenlet that waits for the receiver.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from typing import Any, cast

from asgiref.sync import sync_to_async


def among_greenlets() -> bool:
    """Whether gevent's monkey patches are in force, as in ``celery worker --pool gevent``."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and monkey.is_module_patched("threading")


def is_for_the_greenlet(error: BaseException) -> bool:
    """Whether it is what ends a greenlet: somebody has killed it, or it ran into a limit of Celery's gevent pool."""
    kinds = (("greenlet", "GreenletExit"), ("gevent", "Timeout"))
    return any(isinstance(error, getattr(sys.modules.get(module), name, ())) for module, name in kinds)


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


def over_the_loop_of_the_process(run: Callable[[], None]) -> None:
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

            def for_ever() -> None:
                loop = asyncio.new_event_loop()
                loop.call_soon(started.set_result, loop)
                while True:
                    # SystemExit and KeyboardInterrupt of a task also come out of the loop. Who waits for that task has
                    # them already; the other receivers go on.
                    with suppress(SystemExit, KeyboardInterrupt):
                        loop.run_forever()

            pool = import_module("gevent.threadpool").ThreadPool(1)
            pool.spawn(for_ever)
            _loops[os.getpid()] = (started.result(), pool)
        return _loops[os.getpid()][0]
