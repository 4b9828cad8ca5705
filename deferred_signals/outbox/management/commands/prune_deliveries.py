"""``manage.py prune_deliveries``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, TypeVar

from django.core.management.base import CommandError, CommandParser
from django.db import Error as DatabaseDriverError

from deferred_signals import conf
from deferred_signals.management.terminal import ProgressLine, TerminalCommand, is_meant
from deferred_signals.outbox import selection
from deferred_signals.outbox.models import State
from deferred_signals.outbox.pruning import BATCH, FINISHED, prune, to_prune

Result = TypeVar("Result")


class Command(TerminalCommand):
    """Deletes rows of finished deliveries; the relay does so by itself, by the setting RETENTION."""

    help = (
        "Deletes the rows of deliveries that have succeeded or were discarded, some time after that; dead ones only "
        "with --dead. In batches, so that nobody waits for it."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """As Django asks."""
        parser.add_argument(
            "--older-than", type=selection.age, metavar="AGE", help="As in 12h or 7d (default: the setting RETENTION)."
        )
        parser.add_argument("--dead", action="store_true", help="Dead ones, too. Nobody can redeliver them then.")
        parser.add_argument("--batch", type=int, default=BATCH, metavar="ROWS", help=f"In one transaction ({BATCH}).")
        selection.add_database(parser)
        selection.add_no_input(parser)
        parser.add_argument("--json", action="store_true", help="Print one JSON object instead.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Prune each database."""
        given, retention = options["older_than"], conf.current().retention
        older_than = retention if given is None else given
        if older_than is None:
            raise CommandError("Say --older-than, for the setting RETENTION is None.")
        if options["batch"] < 1:
            raise CommandError("--batch must be 1 or more.")
        states = (*FINISHED, State.DEAD) if options["dead"] else FINISHED
        aliases = list(dict.fromkeys(selection.aliases(options["database"])))
        total = 0
        if options["interactive"] or self.stderr.isatty():
            found = {alias: _named(alias, to_prune, older_than, states) for alias in aliases}
            total = sum(sum(numbers.values()) for numbers in found.values())
            counted = time.monotonic()
            if total and options["interactive"]:
                self._ask(found, total, as_json=options["json"])
            # What has grown old enough since the question, nobody has said yes to.
            older_than += time.monotonic() - counted
        progress = ProgressLine(self.stderr, total, options["batch"])
        pruned = {}
        for alias in aliases:
            pruned[alias] = _named(alias, prune, older_than, states, options["batch"], progress=progress)
            if not options["json"]:
                self.stdout.write(f"{alias}: {_rows(pruned[alias])} deleted.")
        if options["json"]:
            self.stdout.write(json.dumps({"pruned": pruned}, indent=2))

    def _ask(self, found: dict[str, dict[str, int]], total: int, *, as_json: bool) -> None:
        if as_json:
            raise CommandError(f"It is about {_rows(total)}. Say --no-input if you mean it.")
        for alias, numbers in found.items():
            for state, number in numbers.items():
                self.stdout.write(f"{number:>9,}  {state}  [{alias}]")
        is_meant(f"Delete {_rows(total)} of the database {', '.join(alias for alias in found if found[alias])}?")


def _named(alias: str, act: Callable[..., Result], *args: Any, **options: Any) -> Result:
    """Do it, and name the database if it fails."""
    try:
        return act(alias, *args, **options)
    except DatabaseDriverError as error:
        raise CommandError(f"The database {alias!r} has failed: {type(error).__name__}: {error}") from None


def _rows(number: int) -> str:
    return f"{number:,} row{'' if number == 1 else 's'}"
