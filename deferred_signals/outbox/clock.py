"""The database's clock, by which leases and due times are told: the clocks of hosts differ."""

from __future__ import annotations

import time
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import DateTimeField, FloatField, Func

from deferred_signals.exceptions import ConfigurationError
from deferred_signals.option_checks import LONGEST_DURATION as LONGEST


class DatabaseNow(Func):
    """The time of the database's clock at this statement, plus so many seconds, of which a thousand years are the most.

    Django's ``Now`` is the session's local time on MariaDB and has no fraction of a second on SQLite.
    """

    output_field = DateTimeField()

    def __init__(self, seconds: float = 0, **extra: Any) -> None:
        self.seconds = seconds
        super().__init__(**extra)

    def as_sql(self, compiler: Any, connection: BaseDatabaseWrapper, **extra: Any) -> Any:  # type: ignore[override]
        """The expression in the database's own words. Raises ConfigurationError for a database without any."""
        return now_sql(connection, self.seconds), []


class DatabaseThen(DatabaseNow):
    """The time of the database's clock at the moment when this was made, whenever a statement asks for it."""

    def __init__(self, **extra: Any) -> None:
        self._made = time.monotonic()
        super().__init__(**extra)

    def as_sql(self, compiler: Any, connection: BaseDatabaseWrapper, **extra: Any) -> Any:  # type: ignore[override]
        """The expression in the database's own words."""
        return now_sql(connection, self._made - time.monotonic()), []


class SecondsFromNow(Func):
    """In how many seconds the time of a column is, less than 0 if it has passed; None where it is NULL.

    Told by the database: two times of one zone Python takes for what their clocks show, and in the hour that there is
    twice at the end of summer time that is an hour too much or too little (PostgreSQL with a ``TIME_ZONE`` of its own,
    or without ``USE_TZ``).
    """

    output_field = FloatField()
    arity = 1

    def as_sql(self, compiler: Any, connection: BaseDatabaseWrapper, **extra: Any) -> Any:  # type: ignore[override]
        """The expression in the database's own words."""
        return super().as_sql(compiler, connection, template=_SQL[connection.vendor][2], **extra)


#: By vendor, the words for now, for so many seconds, or microseconds, from now, and for in how many seconds a time is.
#: PostgreSQL's function for the second, MAKE_INTERVAL, takes a tenth of the time of a whole INSERT for each time that
#: it stands there.
_SQL = {
    "postgresql": (
        "STATEMENT_TIMESTAMP()",
        "(STATEMENT_TIMESTAMP() + INTERVAL '{seconds:f} s')",
        "EXTRACT(EPOCH FROM %(expressions)s - STATEMENT_TIMESTAMP())",
    ),
    "mysql": (
        "UTC_TIMESTAMP(6)",
        "TIMESTAMPADD(MICROSECOND, {micro}, UTC_TIMESTAMP(6))",
        "(TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(6), %(expressions)s) / 1000000)",
    ),
    "sqlite": (
        "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'now')",
        "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'now', '{seconds:+f} seconds')",
        "((JULIANDAY(%(expressions)s) - JULIANDAY('now')) * 86400)",
    ),
}


def now_sql(connection: BaseDatabaseWrapper, seconds: float = 0) -> str:
    """The SQL of a time so many seconds from now; it has no parameters. Raises ConfigurationError.

    What is longer than any countdown can only be a setting, and then it means never. Databases cannot tell such times,
    each of them fails in another way.
    """
    seconds = max(-LONGEST, min(seconds, LONGEST))
    try:
        now, later, _ = _SQL[connection.vendor]
    except KeyError:
        raise ConfigurationError(
            f"The outbox does not know the clock of {connection.vendor!r}, the database {connection.alias!r}. It knows "
            "PostgreSQL, MySQL, MariaDB and SQLite."
        ) from None
    return later.format(seconds=float(seconds), micro=round(seconds * 1_000_000)) if seconds else now
