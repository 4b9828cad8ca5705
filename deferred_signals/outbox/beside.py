"""Writing beside the connection of who sends: it may be in a transaction, or belong to a loop's thread."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import Future

from django.db import OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

#: Seconds beyond which nobody means to wait, and servers and timers have no numbers.
LONGEST = 3600.0

#: By vendor, how a server, or SQLite, is told not to wait for longer.
_LIMIT = {
    "postgresql": "SET LOCAL statement_timeout = {ms}",
    "mysql": "SET SESSION innodb_lock_wait_timeout = {seconds}",
    "sqlite": "PRAGMA busy_timeout = {ms}",
}


def write_beside(alias: Callable[[], str], write: Callable[[BaseDatabaseWrapper], None], patience: float) -> None:
    """Write over a connection of its own, in a transaction that is committed, or rolled back, before this returns.

    It is waited for so many seconds, for it may be the open transaction itself that keeps it from writing: on SQLite
    one that has written. Then it is rolled back, whenever it can be. Raises the database's error.
    """
    patience = min(patience, LONGEST)
    done: Future[None] = Future()
    #: Taken by whoever comes first: the commit, or who waits for it no longer.
    decision = threading.Lock()

    def work() -> None:
        try:
            connection = connections[alias()]
            with transaction.atomic(using=connection.alias):
                with connection.cursor() as cursor:
                    cursor.execute(_LIMIT[connection.vendor].format(seconds=math.ceil(patience), ms=_ms(patience)))
                write(connection)
                if not decision.acquire(blocking=False):
                    transaction.set_rollback(True, using=connection.alias)
            done.set_result(None)
        except Exception as error:  # noqa: BLE001 - raised below
            done.set_exception(error)
        finally:
            connections.close_all()

    threading.Thread(target=work, name="deferred_signals-spill", daemon=True).start()
    said = f"The database did not answer for {patience:g} s over another connection than the sender's"
    try:
        if not _is_over(done, patience) and decision.acquire(blocking=False):
            raise OperationalError(f"{said}, which is in a transaction or in a coroutine.")
        if not _is_over(done, patience):
            raise OperationalError(f"{said}, to a commit: they may be kept nevertheless.")
    finally:
        if done.done():
            done.result()


def _ms(seconds: float) -> int:
    return max(1, round(1000 * seconds))


def _is_over(done: Future[None], seconds: float) -> bool:
    try:
        done.exception(seconds)
    except TimeoutError:
        return False
    return True
