"""Which deliveries a command is about, as its arguments say it."""

from __future__ import annotations

import re
import uuid
from argparse import ArgumentTypeError
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import Error as DatabaseDriverError
from django.db import connections, router
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from deferred_signals import keeping
from deferred_signals.exceptions import ConfigurationError

from .clock import DatabaseNow, DatabaseThen
from .models import OutboxDelivery, State

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGE = re.compile(r"(\d{1,9})([smhdw])")


def age(text: str) -> float:
    """Seconds, from ``90s``, ``30m``, ``12h``, ``7d`` or ``2w``. Raises ArgumentTypeError."""
    found = _AGE.fullmatch(text)
    if found is None:
        raise ArgumentTypeError(f"{text!r} is no age: a number and a unit, as in 90s, 30m, 12h, 7d or 2w")
    return int(found[1]) * _UNITS[found[2]]


def moment(text: str) -> float:
    """How many seconds ago a time was, from an age or an ISO date or time. Raises ArgumentTypeError."""
    if _AGE.fullmatch(text):
        return age(text)
    try:
        found = parse_datetime(text)  # of a date, its midnight
    except ValueError:
        found = None
    if found is None:
        raise ArgumentTypeError(f"{text!r} is no time, as in 2030-01-31T12:00, and no age, as in 12h or 7d")
    aware = timezone.make_aware(found) if timezone.is_naive(found) else found
    # Told from the database's clock by all who compare it with what it has written. Counted in UTC: between two times
    # of one zone Python counts what its clocks show, which are changed twice a year.
    return (datetime.now(UTC) - aware).total_seconds()


def add_database(parser: CommandParser) -> None:
    """Add ``--database``."""
    parser.add_argument(
        "--database",
        action="append",
        metavar="ALIAS",
        help="Only in this database; can be given several times (default: all that have the table).",
    )


def add_arguments(parser: CommandParser) -> None:
    """Add what says which deliveries, and how the command behaves."""
    parser.add_argument("ids", nargs="*", type=_id, metavar="ID", help="Ids of deliveries, as logs show them.")
    parser.add_argument("--receiver", action="append", metavar="NAME", help="Those to this receiver.")
    parser.add_argument(
        "--error-type",
        action="append",
        metavar="TYPE",
        help="Those that died of this exception, its name with or without the module.",
    )
    parser.add_argument("--since", type=moment, metavar="TIME", help="Those that died then or later: 2h, 2030-01-31.")
    parser.add_argument("--before", type=moment, metavar="TIME", help="Those that died before this time.")
    parser.add_argument("--unopened", action="store_true", help="Payloads that could not be opened, and only those.")
    parser.add_argument("--all", action="store_true", help="All, but for payloads that could not be opened.")
    add_database(parser)
    parser.add_argument("--dry-run", action="store_true", help="Only say which they are.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object instead.")
    add_no_input(parser)


def add_no_input(parser: CommandParser) -> None:
    """Add ``--no-input``, as Django's commands have it."""
    parser.add_argument("--no-input", "--noinput", action="store_false", dest="interactive", help="Do not ask.")


def _id(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not the id of a delivery, a UUID") from None


def aliases(given: list[str] | None) -> Iterator[str]:
    """The databases to look at. Raises CommandError for one that was named and has no table, or if none has."""
    outbox = keeping.required()
    found = False
    # Where the routers allow no table, one that is seen is that of another alias: of a replica.
    for alias in given or [alias for alias in connections if router.allow_migrate_model(alias, OutboxDelivery)]:
        if alias not in connections:
            raise CommandError(f"There is no database {alias!r} in DATABASES. There is {', '.join(connections)}.")
        try:
            outbox.check(alias)
        except ConfigurationError as error:
            if given:
                raise CommandError(str(error)) from None
            continue
        except DatabaseDriverError as error:
            raise CommandError(f"The database {alias!r} does not answer: {type(error).__name__}: {error}") from None
        found = True
        yield alias
    if not found:
        raise CommandError("No database has the table of the outbox. Run manage.py migrate deferred_signals_outbox.")


def selected(alias: str, state: State, options: dict[str, Any]) -> QuerySet[OutboxDelivery]:
    """The rows of one database in this state that the arguments name. Raises CommandError where they name nothing."""
    ids, unopened = options["ids"], options["unopened"]
    filters = {name: options[name] for name in ("receiver", "error_type", "since", "before")}
    if not (ids or unopened or options["all"] or any(value is not None for value in filters.values())):
        raise CommandError("Say which: ids, --receiver, --error-type, --since, --before, --unopened or --all.")
    rows = OutboxDelivery.objects.using(alias).filter(state=state)
    if ids:
        rows = rows.filter(delivery_id__in=ids)
    else:
        # Anybody who can write to the broker can make such ones, of old messages too: they are for who asks for them.
        rows = rows.filter(receiver="") if unopened else rows.exclude(receiver="")
    if filters["receiver"]:
        rows = rows.filter(receiver__in=filters["receiver"])
    if filters["error_type"]:
        kinds = Q(error_type__in=filters["error_type"])
        for kind in filters["error_type"]:
            kinds |= Q(error_type__endswith=f".{kind}")
        rows = rows.filter(kinds)
    when = _told_by(state)
    if filters["since"] is not None:
        rows = rows.filter(**{f"{when}__gte": DatabaseNow(-filters["since"])})
    if filters["before"] is not None:
        rows = rows.filter(**{f"{when}__lt": DatabaseNow(-filters["before"])})
    return rows


def as_they_are(rows: QuerySet[OutboxDelivery], state: State) -> QuerySet[OutboxDelivery]:
    """Without those that come to be in this state, or are sent, after this call."""
    return rows.filter(**{f"{_told_by(state)}__lte": DatabaseThen()})


def _told_by(state: State) -> str:
    return "finished" if state == State.DEAD else "created"


def in_other_states(databases: Iterable[str], ids: list[uuid.UUID], state: State) -> dict[uuid.UUID, str]:
    """Why deliveries that were asked for are not among those of this state, by the ids of those that have a row."""
    found = {}
    for alias in databases:
        rows = OutboxDelivery.objects.using(alias).filter(delivery_id__in=ids).exclude(state=state)
        for id_, other in rows.values_list("delivery_id", "state"):
            found[id_] = f"It is {other}, and not {state.value}. manage.py explain_delivery says more."
    return found
