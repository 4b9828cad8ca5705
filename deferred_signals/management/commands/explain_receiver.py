"""``manage.py explain_receiver``."""

from __future__ import annotations

import json
from textwrap import wrap
from typing import Any

from django.core.management.base import CommandError, CommandParser

from deferred_signals.doctor.findings import plain
from deferred_signals.management.terminal import TerminalCommand
from deferred_signals.signal_map import collect
from deferred_signals.signal_map.connection import Connection
from deferred_signals.signal_map.description import Description, describe, near, resolve
from deferred_signals.signal_map.effective import Effective

#: Letters of a line of defaults.
WIDTH = 110


class Command(TerminalCommand):
    """All about one receiver."""

    help = (
        "Says all about one receiver: where it stands, what it is connected to, its options and where each comes from, "
        "its queue, what is guaranteed, and the system checks that concern it. Asks neither broker nor workers."
    )
    # They are part of what it tells, and must not keep it from telling.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """As Django asks."""
        parser.add_argument("name", metavar="NAME", help="Its name, a former one, its dotted path, or the end of it.")
        parser.add_argument("--json", action="store_true", help="Print one JSON object instead.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Find it, and tell."""
        connections = collect().connections
        found = resolve(options["name"], connections)
        if len(found) != 1:
            raise CommandError(_who(options["name"], found or near(options["name"], connections), bool(found)))
        described = describe(found[0], connections)
        if options["json"]:
            self.stdout.write(json.dumps(described.as_json(), indent=2))
            return
        self._print(described)

    def _print(self, described: Description) -> None:
        self._say(self.style.MIGRATE_HEADING(plain(described.name)))
        if described.path != described.name:
            self._line("path", described.path)
        if described.aliases:
            self._line("also called", ", ".join(described.aliases))
        self._line("stands in", described.place or "(no file)")
        if described.is_async:
            self._line("async", "it is a coroutine function")
        if not described.connections:
            self._line("connected", "not any more; what was sent to it before is delivered")
        told: list[Effective] = []
        for one, options, column in zip(described.connections, described.options, described.columns, strict=True):
            self._connection(one, column, options)
            if options and options != told:
                self._options(options)
                told = options
        for check in described.checks:
            self._say(self.style.WARNING(plain(f"  {check.id}: {check.msg}")))
            if check.hint:
                self._say(plain(f"    -> {check.hint}"))

    def _connection(self, one: Connection, column: str, options: list[Effective]) -> None:
        self._say(self.style.MIGRATE_LABEL(plain(f"  {one.signal} from {one.sender or 'any sender'}")))
        self._line("  runs", "deferred, on a worker" if one.deferred else "inline, in the sender's process")
        if one.deferred:
            source = next(option.source for option in options if option.name == "queue")
            unknown = "not known here: Celery has none, or deliveries do not go through it"
            self._line("  queue", f"{one.queue}  ({source})" if one.queue else unknown)
            self._line("  guarantees", f"those of {column!r} in the table of guarantees")

    def _options(self, options: list[Effective]) -> None:
        # The queue is told with the connection.
        chosen = [one for one in options if one.source != "default" and one.name != "queue"]
        widest = max(len(one.name) for one in chosen)
        for one in chosen:
            self._say(plain(f"    {one.name + ':':<{widest + 1}} {_value(one)}  ({one.source})"))
        rest = ", ".join(
            f"{one.name}={_value(one)}" for one in options if one.source == "default" and one.name != "queue"
        )
        for line in wrap(f"by default: {rest}", WIDTH, initial_indent="    ", subsequent_indent="      "):
            self._say(plain(line))

    def _line(self, what: str, text: str) -> None:
        self._say(plain(f"  {what + ':':<14} {text}"))

    def _say(self, text: str) -> None:
        self.stdout.write(text)


def _value(one: Effective) -> str:
    if isinstance(one.value, list):
        return f"({', '.join(map(str, one.value))})"
    return "-" if one.value is None else str(one.value)


def _who(name: str, names: list[str], are_meant: bool) -> str:
    listed = "".join(f"\n  {one}" for one in names)
    if are_meant:
        return _lines(f"{name!r} may be any of these; say which:{listed}")
    text = f"No receiver {name!r} is connected in this process."
    text += f" Did you mean one of these?{listed}\n" if names else "\n"
    return _lines(
        f"{text}manage.py list_receivers shows them all. If it should be there: is its app in INSTALLED_APPS, and does "
        "the app's AppConfig.ready() import the module?"
    )


def _lines(text: str) -> str:
    return "\n".join(map(plain, text.splitlines()))
