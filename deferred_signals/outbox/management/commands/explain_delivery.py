"""``manage.py explain_delivery``."""

from __future__ import annotations

import json
import uuid
from datetime import datetime
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import Error as DatabaseDriverError

from deferred_signals import conf
from deferred_signals.doctor.findings import plain
from deferred_signals.management.terminal import TerminalCommand
from deferred_signals.outbox import selection
from deferred_signals.outbox.explaining import explain
from deferred_signals.outbox.explanation import Explanation

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


class Command(TerminalCommand):
    """Ends with 1 where there is no row of the delivery."""

    help = (
        "Says where a delivery of the outbox is, why it was not delivered yet, what happens next and when, and what "
        "can be done. Changes nothing."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """As Django asks."""
        parser.add_argument("id", metavar="ID", help="The id of the delivery, as send() returned it and logs show it.")
        selection.add_database(parser)
        parser.add_argument("--json", action="store_true", help="Print one JSON object instead.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Look for it in each database."""
        # What no encoding can say is no id; an argument of a terminal may hold it.
        key = options["id"].encode("utf-8", "replace").decode()
        aliases, found = [], []
        for alias in selection.aliases(options["database"]):
            aliases.append(alias)
            try:
                explained = explain(alias, key)
            except DatabaseDriverError as error:
                raise CommandError(f"The database {alias!r} has failed: {type(error).__name__}: {error}") from None
            if explained is not None:
                found.append(explained)
        if options["json"]:
            told = [one.as_json() for one in found]
            missing = {"found": False, "databases": aliases, "meanings": _meanings(key, aliases)}
            self.stdout.write(json.dumps((told[0] if len(told) == 1 else told) if told else missing, indent=2))
        if not found:
            listed = "".join(f"\n  - {one}" for one in _meanings(key, aliases))
            raise CommandError(f"There is no row of the delivery {plain(key)}. That can mean:{listed}")
        if not options["json"]:
            for one in found:
                self._print(one, options["verbosity"])

    def _print(self, one: Explanation, verbosity: int) -> None:
        row = one.row
        to = row.receiver or "(it could not be opened)"
        self._say(self.style.MIGRATE_HEADING(plain(f"Delivery {row.delivery_id} to {to}")))
        state = {"succeeded": self.style.SUCCESS, "dead": self.style.ERROR}.get(row.state, self.style.WARNING)
        self._say(f"  state:    {state(row.state)}, attempt {row.attempt}")
        self._line("signal", row.signal or "-")
        self._line("origin", f"{one.origin} [{one.database}]")
        self._line("sent", _when(row.created, one.now))
        if row.finished is not None:
            self._line("finished", _when(row.finished, one.now))
        for place, why in enumerate(one.why):
            self._line("" if place else "why", why)
        self._line("next", one.next + (f" {_when(one.at, one.now)}" if one.at is not None else ""))
        if row.traceback and verbosity > 1:
            for line in row.traceback.splitlines():
                self._say(plain(f"    {line}"))
        for cure in one.cures:
            self._say(plain(f"    -> {cure}"))

    def _line(self, what: str, text: str) -> None:
        # The text of an error may have several lines, the first of which says most.
        first = next(iter(text.splitlines()), "")
        self._say(plain(f"  {what + ':' if what else '':<9} {first}"))

    def _say(self, text: str) -> None:
        self.stdout.write(text)


def _when(moment: datetime, now: datetime) -> str:
    """A time, and how long that is from now, by the database's clock."""
    seconds = (moment - now).total_seconds()
    length = _length(abs(seconds))
    return f"{moment:%Y-%m-%d %H:%M:%S} ({f'in {length}' if seconds > 0 else f'{length} ago'})"


def _length(seconds: float) -> str:
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size), (1, "s"))
    return f"{seconds / size:.0f} {unit}"


def _meanings(key: str, aliases: list[str]) -> list[str]:
    """What it can mean that there is no row."""
    retention = conf.current().retention
    not_kept = (
        "It is not durable. The default mode keeps no row: it waits at the broker, runs, has ended, or was lost. The "
        "logs of deferred_signals and Celery, which call it by this id, say more."
    )
    meanings = [
        not_kept,
        "Its transaction is not committed yet, or was rolled back.",
        f"It was sent on another database. Looked at: {', '.join(aliases)}.",
    ]
    if retention is not None:
        meanings.insert(1, f"It has ended more than {_length(retention)} ago (RETENTION), and its row was deleted.")
    try:
        uuid.UUID(key)
    except ValueError:
        meanings.insert(0, f"'{plain(key)}' is no whole id: those that send() makes are UUIDs.")
    return meanings
