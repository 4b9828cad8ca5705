"""What is done to deliveries on purpose: workers that are lost, duplicates, other orders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

from django.db import DatabaseError, connections, transaction

from .. import calling

#: The point at which a worker is lost: before the receiver is called, or after its effects, before the delivery is
#: completed.
Crash = Literal["before", "after"]
CRASHES: Sequence[Crash] = ("before", "after")

#: Django 6.1 has another name for it.
_savepoint: Callable[..., str] = getattr(transaction, "savepoint_create", None) or transaction.savepoint


class WorkerKilled(BaseException):
    """The worker is lost here. Raise it where a receiver calls a fake of yours, to lose it in the midst of a receiver.

    It is no Exception, so that no receiver takes it for one. Unlike a real kill it runs ``finally`` blocks.
    """


@contextmanager
def receivers_called(crash: Crash | None = None) -> Iterator[None]:
    """While this lasts, every receiver is called in savepoints, and with ``crash`` its worker is lost.

    In the transaction of a TestCase, a receiver that the database refuses something would end all the rest of the test;
    on a worker it is in nobody's transaction. So it is undone here, and only then.
    """

    @contextmanager
    def surrounded() -> Iterator[None]:
        if crash == "before":
            raise WorkerKilled
        with ExitStack() as stack:
            for connection in connections.all(initialized_only=True):
                if connection.in_atomic_block and not connection.needs_rollback:
                    stack.enter_context(_saved(connection.alias))
            yield
        if crash == "after":
            raise WorkerKilled

    before = calling.surroundings
    calling.surroundings = surrounded
    try:
        yield
    finally:
        calling.surroundings = before


@contextmanager
def _saved(alias: str) -> Iterator[None]:
    """A savepoint to which is gone back if the block has broken the transaction, and only if so."""
    point = _savepoint(using=alias)
    try:
        yield
    finally:
        if transaction.get_rollback(using=alias):
            _go_back(alias, point)
        else:
            try:
                transaction.savepoint_commit(point, using=alias)
            except DatabaseError:
                _go_back(alias, point)


def _go_back(alias: str, point: str) -> None:
    transaction.set_rollback(False, using=alias)
    transaction.savepoint_rollback(point, using=alias)
    transaction.savepoint_commit(point, using=alias)
