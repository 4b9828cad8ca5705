"""``manage.py relay_outbox``: ring for the deliveries of the outbox that nobody has finished."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future
from threading import Thread
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, OperationalError, connections
from django.db import Error as DatabaseDriverError

from deferred_signals import backends
from deferred_signals.management.terminal import TerminalCommand
from deferred_signals.outbox.batch import drain
from deferred_signals.outbox.relay import Relay
from deferred_signals.outbox.relay_process import aliases_for_the_outbox, know_receivers, run
from deferred_signals.outbox.tables import has_table

#: Seconds that a database has to answer before the others are begun with.
PATIENCE = 10.0


class Command(TerminalCommand):
    """Runs the relay in a process of its own; Celery's workers do the same by themselves (the setting RELAY)."""

    help = (
        "Ring for the deliveries of the outbox that wait for a worker: those whose doorbell was lost, whose retry is "
        "due, whose worker was lost, or which could not be published. Runs until SIGTERM or Ctrl-C. Celery's workers "
        "run one unless DEFERRED_SIGNALS['RELAY'] is False; of several relays of a database one is at work."
    )
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        """Called by Django."""
        parser.add_argument("--once", action="store_true", help="Ring for what is due now, say how many, and end.")
        parser.add_argument("--json", action="store_true", help="With --once: print one JSON object instead.")
        parser.add_argument(
            "--database",
            action="append",
            dest="databases",
            metavar="ALIAS",
            help="A database whose outbox it is for; may be given several times. Default: all that have one.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Called by Django."""
        if options["json"] and not options["once"]:
            raise CommandError("--json is for --once: without it the relay does not end.")
        aliases = self._aliases(options["databases"])
        backends.current().check()
        know_receivers()
        if options["once"]:
            self._once(aliases, as_json=options["json"])
            return
        self._say(f"Relay of {', '.join(aliases)}. Ctrl-C ends it.")
        self._shown = {}
        run(aliases, report=self._report)
        if self._is_terminal:
            self.stdout.write("")
        self._say("The relay has ended.")

    def _aliases(self, asked: Sequence[str] | None) -> list[str]:
        if asked and (unknown := [alias for alias in asked if alias not in connections]):
            raise CommandError(f"There is no database {unknown[0]!r} in DATABASES. There is {', '.join(connections)}.")
        found = []
        for alias in asked or aliases_for_the_outbox():
            try:
                if _has_table_in_time(alias):
                    found.append(alias)
                elif asked:
                    raise CommandError(self._missing(alias))
            except DatabaseDriverError as error:
                if asked:
                    raise CommandError(f"The database {alias!r} does not answer: {error}") from None
                self.stderr.write(f"The database {alias!r} does not answer, and is waited for: {error}")
                found.append(alias)
        if not found:
            raise CommandError(self._missing(DEFAULT_DB_ALIAS))
        return list(dict.fromkeys(found))

    def _missing(self, alias: str) -> str:
        return (
            f"The database {alias!r} has no outbox. Run manage.py migrate --database={alias} deferred_signals_outbox."
        )

    def _once(self, aliases: Sequence[str], *, as_json: bool) -> None:
        try:
            done = drain(aliases)
        except DatabaseDriverError as error:
            raise CommandError(f"A database does not answer: {error}") from None
        outage: Exception | None = None
        for alias, batch in done.items():
            if not as_json:
                self._say(f"{alias}: rung for {batch.rung} of {batch.due} deliveries that are due")
            outage = batch.outage or outage
        if as_json:
            rung = {alias: {"due": batch.due, "rung": batch.rung} for alias, batch in done.items()}
            self._say(json.dumps({"databases": rung, "outage": _text(outage)}, indent=2))
        if outage is not None:
            raise CommandError(f"The broker does not take doorbells: {_text(outage)}")

    @property
    def _is_terminal(self) -> bool:
        return bool(self.stdout.isatty())

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()

    #: What was shown last, by alias.
    _shown: dict[str, tuple[int, bool]]

    def _report(self, relays: Sequence[Relay]) -> None:
        now = {relay.alias: (relay.rung, relay.leadership.leads) for relay in relays}
        if now == self._shown:
            return
        if self._is_terminal:
            said = "  ".join(_state(alias, *state) for alias, state in now.items())
            self.stdout.write(f"\r\x1b[K{said}", ending="")
            self.stdout.flush()
        else:
            for alias, state in now.items():
                if state != self._shown.get(alias):
                    self._say(_state(alias, *state))
        self._shown = now


def _has_table_in_time(alias: str) -> bool:
    """As ``has_table``; a database that hangs keeps a thread, and does not keep the others waiting."""
    found: Future[bool] = Future()

    def ask() -> None:
        try:
            found.set_result(has_table(alias))
        except Exception as error:  # noqa: BLE001 - raised below
            found.set_exception(error)
        finally:
            connections[alias].close()

    Thread(target=ask, name=f"relay-look-{alias}", daemon=True).start()
    try:
        return found.result(PATIENCE)
    except TimeoutError:
        raise OperationalError(f"it has said nothing for {PATIENCE:g} s") from None


def _text(outage: Exception | None) -> str | None:
    return None if outage is None else f"{type(outage).__name__}: {outage}"


def _state(alias: str, rung: int, leads: bool) -> str:
    return f"{alias}: rung for {rung:,} deliveries" + ("" if leads else ", not leading")
