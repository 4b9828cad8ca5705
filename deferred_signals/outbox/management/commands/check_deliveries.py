"""``manage.py check_deliveries``."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import Error as DatabaseDriverError

from deferred_signals import conf
from deferred_signals.doctor.findings import plain
from deferred_signals.management.terminal import ProgressLine, TerminalCommand
from deferred_signals.outbox import selection
from deferred_signals.outbox.inspection import Inspected, inspect_rows, number_of
from deferred_signals.outbox.relay_process import know_receivers

#: From so many on, a terminal is shown how far it is.
MANY = 500


class Command(TerminalCommand):
    """Ends with 1 where a delivery does not resolve."""

    help = (
        "Checks that every pending, running and dead delivery of the outbox still resolves in this release: payload, "
        "receiver, arguments, models, fields, types. For deployments: run it with the new release before its workers "
        "start. Runs nothing, reads no row that a delivery refers to, changes nothing."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """As Django asks."""
        selection.add_database(parser)
        parser.add_argument("--json", action="store_true", help="Print one JSON object instead.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Look at each row of each database."""
        conf.current()  # or each delivery would be said to be the one at fault
        know_receivers()
        aliases = list(selection.aliases(options["database"]))
        try:
            inspected = self._inspect(aliases)
        except DatabaseDriverError as error:
            raise CommandError(f"A database has failed: {type(error).__name__}: {error}") from None
        failing = sum(one.failing for one in inspected.values())
        if options["json"]:
            self._tell_a_machine(inspected, failing)
        else:
            self._print(inspected)
        if failing:
            does = "delivery does" if failing == 1 else "deliveries do"
            raise CommandError(f"{failing:,} {does} not resolve in this release.", returncode=1)

    def _inspect(self, aliases: list[str]) -> dict[str, Inspected]:
        total = sum(number_of(alias) for alias in aliases) if self.stderr.isatty() else 0
        progress = ProgressLine(self.stderr, total, MANY)
        return {alias: inspect_rows(alias, progress) for alias in aliases}

    def _print(self, inspected: dict[str, Inspected]) -> None:
        for alias, found in inspected.items():
            for group, met in found.by_size():
                self.stdout.write(
                    self.style.ERROR(
                        plain(f"{met.count:>9,}  {group.state}  {group.receiver}  [{alias}], as {met.example}")
                    )
                )
                self.stdout.write(plain(f"{'':>9}  {group.kind}: {group.reason}"))
            mark = self.style.SUCCESS if not found.failing else str
            self.stdout.write(
                mark(f"{alias}: {found.checked - found.failing:,} of {found.checked:,} deliveries resolve.")
            )
            if found.unopened:
                payloads = "payload" if found.unopened == 1 else "payloads"
                self.stdout.write(f"{alias}: passed over {found.unopened:,} dead {payloads} that could not be opened.")

    def _tell_a_machine(self, inspected: dict[str, Inspected], failing: int) -> None:
        groups = [
            {"database": alias, **group._asdict(), "count": met.count, "example": met.example}
            for alias, found in inspected.items()
            for group, met in found.by_size()
        ]
        told = {
            "resolves": not failing,
            "checked": sum(one.checked for one in inspected.values()),
            "failing": failing,
            "unopened": sum(one.unopened for one in inspected.values()),
            "groups": groups,
        }
        self.stdout.write(json.dumps(told, indent=2))
