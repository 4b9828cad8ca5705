"""``manage.py list_receivers``."""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any

from django.core.management.base import CommandParser

from deferred_signals.doctor.findings import plain
from deferred_signals.management.map_filters import add_filters, collected, unread_note
from deferred_signals.management.terminal import TerminalCommand
from deferred_signals.signal_map import Connection

#: Options that have a word of their own in a line.
_SAID = {"queue", "name", "durable"}


class Command(TerminalCommand):
    """Who listens to what."""

    help = (
        "Lists the receivers that are connected in this process: signal, sender, receiver, inline or deferred, queue, "
        "durable, and the options that differ from their defaults. Asks neither broker nor database."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """As Django asks."""
        add_filters(parser)
        parser.add_argument("--json", action="store_true", help="Print one JSON object instead.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the connections by signal."""
        found = collected(options)
        if options["json"]:
            self.stdout.write(json.dumps(found.as_json(), indent=2))
            return
        for signal, some in groupby(found.connections, key=lambda one: one.signal):
            self._print(signal, list(some))
        self.stdout.write(_summary(found.connections))
        if note := unread_note(found):
            self.stderr.write(self.style.WARNING(note))

    def _print(self, signal: str, connections: list[Connection]) -> None:
        self.stdout.write(self.style.MIGRATE_HEADING(plain(signal)))
        senders = [plain(one.sender or "any sender") for one in connections]
        receivers = [plain(one.receiver) for one in connections]
        for one, sender, receiver in zip(connections, senders, receivers, strict=True):
            manner = self.style.SUCCESS(_manner(one)) if one.deferred else _manner(one)
            self.stdout.write(f"  {sender:<{_widest(senders)}}  {receiver:<{_widest(receivers)}}  {manner}")


def _widest(texts: list[str]) -> int:
    return max(map(len, texts))


def _manner(one: Connection) -> str:
    if not one.deferred:
        return "inline"
    words = ["deferred"]
    if one.queue:
        words.append(f"queue {one.queue}")
    if one.durable:
        words.append("durable")
    words += [f"{name}={_short(value)}" for name, value in one.options.items() if name not in _SAID]
    return plain(", ".join(words))


def _short(value: Any) -> str:
    return f"({', '.join(map(str, value))})" if isinstance(value, list) else str(value)


def _summary(connections: tuple[Connection, ...]) -> str:
    deferred = sum(one.deferred for one in connections)
    durable = sum(one.durable for one in connections)
    number = len(connections)
    if not number:
        return "No such receiver is connected in this process."
    return (
        f"{number:,} connection{'' if number == 1 else 's'}: {number - deferred:,} inline, {deferred:,} deferred, "
        f"{durable:,} of them durable."
    )
