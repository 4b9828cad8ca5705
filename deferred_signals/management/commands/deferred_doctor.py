"""``manage.py deferred_doctor``."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError, CommandParser

from deferred_signals.doctor import Finding, examine
from deferred_signals.doctor.findings import plain
from deferred_signals.management.terminal import TerminalCommand


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= 3600:  # noqa: PLR2004 - an hour is more patience than anybody has
        raise ArgumentTypeError(f"{text!r} is no number of seconds between 0 and 3600")
    return seconds


class Command(TerminalCommand):
    """Ends with 1 where there is a problem."""

    help = (
        "Examines what deferred receivers depend on: settings, the broker, the workers and their queues. Says what is "
        "wrong and what to do about it. Changes nothing."
    )
    # They are part of what it looks at, and must not keep it from looking.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """As Django asks."""
        parser.add_argument(
            "--timeout",
            type=_seconds,
            default=2.0,
            metavar="SECONDS",
            help="How long each question to the broker or the workers may take (default: 2).",
        )
        parser.add_argument("--json", action="store_true", help="Print one JSON object instead.")
        parser.add_argument(
            "--fail-level",
            choices=("problem", "warning"),
            default="problem",
            help="What makes the command end with 1 (default: problem).",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the sections as they come."""
        counts = {"ok": 0, "note": 0, "warning": 0, "problem": 0}
        sections = []
        for section in examine(options["timeout"]):
            for finding in section.findings:
                counts[finding.mark] += 1
            if options["json"]:
                sections.append(asdict(section))
            else:
                self._print(section.title, section.findings, options["verbosity"])
        failed = counts["problem"] + (counts["warning"] if options["fail_level"] == "warning" else 0)
        if options["json"]:
            self.stdout.write(json.dumps({"healthy": not failed, "counts": counts, "sections": sections}, indent=2))
        elif not failed:
            self.stdout.write(self.style.SUCCESS(f"\nHealthy, with {_number(counts, 'warning')}."))
        if failed:
            raise CommandError(f"{_number(counts, 'problem')}, {_number(counts, 'warning')}.", returncode=1)

    def _print(self, title: str, findings: list[Finding], verbosity: int) -> None:
        shown = [one for one in findings if verbosity or one.mark in {"warning", "problem"}]
        if not shown:
            return
        self.stdout.write(self.style.MIGRATE_HEADING(title))
        styles = {"ok": self.style.SUCCESS, "warning": self.style.WARNING, "problem": self.style.ERROR}
        for one in shown:
            mark = styles.get(one.mark, str)(f"{one.mark:<8}")
            self.stdout.write(f"  {mark} {plain(one.text)}{f' [{one.id}]' if one.id else ''}")
            if one.cure:
                self.stdout.write(f"{'':11}-> {plain(one.cure)}")
        self.stdout.flush()


def _number(counts: dict[str, int], mark: str) -> str:
    return f"{counts[mark]} {mark}{'' if counts[mark] == 1 else 's'}"
