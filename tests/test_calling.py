"""Calling receivers from threads and greenlets of all kinds; a real gevent worker is in integration/test_works_with."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections

from deferred_signals import calling
from deferred_signals.calling import call
from deferred_signals.exceptions import ReceiverCancelled

word = contextvars.ContextVar("word", default="")


async def explore(found: dict[str, Any]) -> None:
    found["word"] = word.get()
    found["loop"], found["thread"] = asyncio.get_running_loop(), threading.get_ident()
    found["database"] = await sync_to_async(lambda: (threading.get_ident(), connection.connection))()


async def fail() -> None:
    raise LookupError("not here")


async def cancelled() -> None:
    raise asyncio.CancelledError


@pytest.fixture
def _among_greenlets(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under gevent, for what decides by it; without the patches, which would change this whole process."""
    monkeypatch.setattr(calling, "among_greenlets", lambda: True)


@pytest.mark.django_db
class TestThreads:
    def test_an_async_receiver_has_the_context_and_the_database_of_its_caller(self):
        found: dict[str, Any] = {}
        token = word.set("mine")
        call(explore, {"found": found})
        word.reset(token)
        connection.ensure_connection()
        assert found["word"] == "mine"
        assert found["database"] == (threading.get_ident(), connection.connection)

    async def test_where_a_loop_runs_the_receiver_gets_another_and_leaves_no_connection_open(self):
        closed: list[int] = []

        def use() -> None:
            mine = connections["other"]
            mine.close = lambda: closed.append(threading.get_ident())  # type: ignore[method-assign]

        async def reads() -> None:
            await sync_to_async(use)()
            assert not closed

        call(reads, {})
        assert closed
        assert closed != [threading.get_ident()]


@pytest.mark.usefixtures("_among_greenlets")
@pytest.mark.django_db
class TestGreenlets:
    def test_all_async_receivers_share_a_loop_in_a_thread_of_its_own(self):
        one: dict[str, Any] = {}
        two: dict[str, Any] = {}
        call(explore, {"found": one})
        call(explore, {"found": two})
        assert one["loop"] is two["loop"]
        assert one["thread"] == two["thread"] != threading.get_ident()

    def test_the_context_and_the_database_are_those_of_the_caller(self):
        found: dict[str, Any] = {}
        token = word.set("mine")
        call(explore, {"found": found})
        word.reset(token)
        connection.ensure_connection()
        assert found["word"] == "mine"
        assert found["database"] == (threading.get_ident(), connection.connection)

    def test_what_the_receiver_raises_is_raised(self):
        with pytest.raises(LookupError, match="not here"):
            call(fail, {})
        with pytest.raises(ReceiverCancelled):
            call(cancelled, {})


GREENLETS = """
import gevent.monkey
gevent.monkey.patch_all()
import asyncio
import django
django.setup()
import gevent
from asgiref.sync import sync_to_async
from django.db import connection
from django.utils import translation
from deferred_signals.calling import call

together, most = 0, 0

def ask():
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")

async def receive(language):
    global together, most
    together += 1
    most = max(most, together)
    await sync_to_async(ask)()
    while most < 10:
        await asyncio.sleep(0.001)
    assert translation.get_language() == language
    together -= 1

def deliver(language):
    with translation.override(language):
        call(receive, {"language": language})
        ask()

greenlets = [gevent.spawn(deliver, ["de", "fr"][number % 2]) for number in range(10)]
gevent.joinall(greenlets, raise_error=True)
print("all", len(greenlets))
"""


def test_ten_async_receivers_run_side_by_side_in_the_greenlets_of_a_patched_process():
    # On SQLite always: a process that pytest does not set up would ask PostgreSQL for a database that is not there.
    env = {name: value for name, value in os.environ.items() if name != "TEST_DATABASE"}
    done = subprocess.run(
        [sys.executable, "-c", GREENLETS], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "all 10\n"), done.stderr
