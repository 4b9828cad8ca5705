"""``manage.py prune_deliveries``."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseDriverError

from deferred_signals import conf
from deferred_signals.outbox import selection
from deferred_signals.outbox.models import State
from deferred_signals.outbox.pruning import BATCH, FINISHED, prune


class Command(BaseCommand):
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
        pruned = {}
        for alias in selection.aliases(options["database"]):
            try:
                pruned[alias] = prune(alias, older_than, states, options["batch"])
            except DatabaseDriverError as error:
                raise CommandError(f"The database {alias!r} has failed: {type(error).__name__}: {error}") from None
            if not options["json"]:
                self.stdout.write(f"{alias}: {pruned[alias]:,} rows deleted.")
        if options["json"]:
            self.stdout.write(json.dumps({"pruned": pruned}, indent=2))
