"""``manage.py signal_map``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from deferred_signals.management.map_filters import add_filters, collected, unread_note
from deferred_signals.management.terminal import TerminalCommand


class Command(TerminalCommand):
    """The map of signals as a drawing."""

    help = (
        "Draws who sends, who listens, inline or deferred, on which queue, durable or not, of what is connected in "
        "this process: as Mermaid, or as SVG. Asks neither broker nor database."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """As Django asks."""
        parser.add_argument(
            "--format", choices=("mermaid", "svg"), default="mermaid", help="The kind of drawing (default: mermaid)."
        )
        parser.add_argument("--json", action="store_true", help="What would be drawn, as one JSON object.")
        parser.add_argument("--output", metavar="FILE", help="Write it there, and not to the terminal.")
        add_filters(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Draw."""
        found = collected(options)
        if options["json"]:
            text = json.dumps(found.as_json(), indent=2) + "\n"
        else:
            text = found.svg() if options["format"] == "svg" else found.mermaid()
        if not found.connections and not options["json"]:
            self.stderr.write(self.style.WARNING("No such receiver is connected in this process: the map is empty."))
        if note := unread_note(found):
            self.stderr.write(self.style.WARNING(note))
        if not options["output"]:
            self.stdout.write(text, ending="")
            return
        try:
            Path(options["output"]).write_text(text, encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{options['output']} cannot be written: {error.strerror or error}") from None
        if options["verbosity"]:
            number = len(found.connections)
            self.stdout.write(f"{options['output']}: {number:,} connection{'' if number == 1 else 's'}.")
