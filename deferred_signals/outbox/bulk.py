"""Writing the durable deliveries of a block together, in few statements instead of one each.

Django has no hook before a commit, so rows that wait in memory could be parted from their transaction, everywhere but
in a block that ends inside a transaction of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db import Error as DatabaseDriverError
from django.db.backends.base.base import BaseDatabaseWrapper

from .giving_way import has_undone_all

if TYPE_CHECKING:
    from contextlib import _GeneratorContextManager  # the type of what is both, a block and a decorator

#: Rows, and characters of their payloads, that wait until they are written: MySQL takes 16 MB in one statement.
MOST = 500
LARGEST = 1_000_000

#: What writes rows; the models are not imported here, for ``together`` is imported by apps that are being loaded.
Insert = Callable[[BaseDatabaseWrapper, Sequence[Any]], None]

_SAVEPOINT = re.compile(r"\s*(SAVEPOINT|ROLLBACK)\b", re.IGNORECASE)


class Batch:
    """The rows of a block that wait: all of them were sent after the last savepoint was begun.

    So to whichever savepoint is rolled back, all of them go; and a savepoint that is released changes nothing for them.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection
        #: By the deliveries' ids.
        self.rows: dict[str, Any] = {}
        self.size = 0
        self._insert: Insert | None = None

    def add(self, key: str, row: Any, size: int, insert: Insert, *, at_end: bool = False) -> None:
        """Have a row wait; one of the same id is replaced, in its place or ``at_end``."""
        if at_end:
            self.rows.pop(key, None)
        self.rows[key] = row
        self.size += size
        self._insert = insert
        if len(self.rows) >= MOST or self.size >= LARGEST:
            self.flush()

    def forget(self) -> None:
        """Let nothing wait any more."""
        self.rows, self.size = {}, 0

    def flush(self) -> None:
        """Write what waits. If that fails, the block must not commit, whoever gets the error and swallows it."""
        if not self.rows or self._insert is None:
            return
        rows = list(self.rows.values())
        self.forget()
        try:
            self._insert(self.connection, rows)
        except BaseException:
            self.connection.set_rollback(True)
            raise

    def before(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Around each statement on the connection."""
        if self.rows and isinstance(sql, str) and (found := _SAVEPOINT.match(sql)) is not None:
            if found[1].upper() == "ROLLBACK":
                self.forget()
            else:
                self.flush()
        try:
            return execute(sql, params, many, context)
        except DatabaseDriverError as error:
            if has_undone_all(self.connection, error):
                self.forget()
            raise


_batches: WeakKeyDictionary[BaseDatabaseWrapper, Batch] = WeakKeyDictionary()

#: The batch of the block that is open on a connection, None if there is none.
batch_on = _batches.get


def together(using: str = DEFAULT_DB_ALIAS) -> _GeneratorContextManager[None]:
    """Run a block in ``transaction.atomic(using)`` and write its durable deliveries on that alias in bulk.

    They are written at the end of the block, before each savepoint, and whenever there are 500 of them or a million
    characters, so what a rollback takes along is the same as without. Raises the database's error if they cannot be
    written; the block is rolled back then. Also usable as a decorator, ``@together()``.
    Raises TypeError for what is no alias.
    """
    if not isinstance(using, str):
        raise TypeError(f"together() takes the alias of a database; as a decorator it is @together(), not {using!r}.")
    return _together(using)


@contextmanager
def _together(using: str) -> Iterator[None]:
    connection = connections[using]
    with transaction.atomic(using=using):
        if connection in _batches:
            yield  # the outer one writes them
            return
        batch = _batches[connection] = Batch(connection)
        try:
            with connection.execute_wrapper(batch.before):
                yield
                if not connection.get_rollback():
                    batch.flush()
        finally:
            del _batches[connection]
