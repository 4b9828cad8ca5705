"""System checks of the databases under deliveries: connections that are made anew, SQLite written from two sides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from celery import Celery
from django.core import checks
from django.db import connections

from .messages import warning

#: How many tasks a connection to the database may serve; each process of a worker counts by itself.
_REUSE = 1000
#: Where in a SQLite file it says that it is in WAL mode: https://sqlite.org/fileformat.html#file_format_version_numbers
_SQLITE_HEADER, _FORMAT_VERSION, _WAL = 20, 18, 2


def databases(app: Celery) -> Iterator[checks.CheckMessage]:
    """W202 and W204."""
    others = [alias for alias in connections if connections[alias].vendor not in {"sqlite", "unknown"}]
    # Asked as Celery's Django fixup asks; it is no setting that Celery itself knows.
    if others and not app.conf.get("CELERY_DB_REUSE_MAX"):
        yield warning(
            "deferred_signals.W202",
            "CELERY_DB_REUSE_MAX is not set: Celery closes the database connection before and after every task, "
            "whatever CONN_MAX_AGE says, so each delivery connects anew.",
            f"CELERY_DB_REUSE_MAX = {_REUSE}",
        )
    for alias in connections:
        if connections[alias].vendor == "sqlite":
            yield from _sqlite(alias, connections[alias].settings_dict)


def _sqlite(alias: str, database: dict[str, Any]) -> Iterator[checks.CheckMessage]:
    name, options = str(database["NAME"]), database.get("OPTIONS", {})
    if name == ":memory:" or "mode=memory" in name:
        return
    wal = "wal" in str(options.get("init_command", "")).lower() or _is_wal(Path(name))
    if not wal or str(options.get("transaction_mode")).upper() != "IMMEDIATE":
        yield warning(
            "deferred_signals.W204",
            f"The SQLite database {alias!r} is written by web processes and workers side by side: without WAL and "
            'immediate transactions many of them fail with "database is locked".',
            f'DATABASES["{alias}"]["OPTIONS"] = {{"init_command": "PRAGMA journal_mode=WAL", '
            '"transaction_mode": "IMMEDIATE", "timeout": 20}',
        )


def _is_wal(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(_SQLITE_HEADER)
    except OSError:
        return False
    return len(head) == _SQLITE_HEADER and head[_FORMAT_VERSION] == _WAL
