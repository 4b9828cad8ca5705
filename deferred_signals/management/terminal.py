"""What our commands do alike on a terminal: errors of the settings, an ended reader, Ctrl-C, questions, progress."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import Any

from django.core.management.base import BaseCommand, CommandError, OutputWrapper

from deferred_signals.exceptions import ConfigurationError

#: What a shell says of a program that SIGPIPE or SIGINT has ended.
PIPE_CLOSED, INTERRUPTED = 141, 130


class TerminalCommand(BaseCommand):
    """Ends without a traceback where settings are wrong, where nobody reads on (``| head``) and with Ctrl-C."""

    def run_from_argv(self, argv: list[str]) -> None:
        """Called by Django for a command line, and for nothing else."""
        out = sys.stdout
        if isinstance(out, TextIOWrapper):
            # Names and errors may hold what the terminal's encoding cannot say. As stderr does by itself.
            out.reconfigure(errors="backslashreplace")
        try:
            try:
                super().run_from_argv(argv)
            finally:
                out.flush()
        except BrokenPipeError:
            if _takes_more(out):
                raise  # it was another pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())  # or Python complains once more when it ends
            sys.exit(PIPE_CLOSED)
        except KeyboardInterrupt:
            self.stderr.write("\nBroken off. What was done until then stays done.")
            sys.exit(INTERRUPTED)

    def execute(self, *args: Any, **options: Any) -> str | None:
        """As Django does; wrong settings are an error of who has called it, and no failure of the command."""
        try:
            return super().execute(*args, **options)
        except ConfigurationError as error:
            raise CommandError(str(error)) from None


def _takes_more(out: Any) -> bool:
    try:
        out.write("\n")
        out.flush()
    except BrokenPipeError:
        return False
    return True


def is_meant(question: str) -> None:
    """Ask for a yes; raise CommandError for anything else, and where there is nobody to answer.

    Ctrl-C ends the command, as anywhere else in it.
    """
    try:
        answer = input(f"{question} [y/N] ")
    except EOFError:
        sys.stdout.write("\n")
        answer = ""
    if answer.strip().lower() not in {"y", "yes"}:
        raise CommandError("Nothing is changed. Where nobody can answer, say --no-input.")


class ProgressLine:
    """How far a command is, on a terminal, where there is much to do."""

    def __init__(self, screen: OutputWrapper, total: int, many: int) -> None:
        self._screen = screen if total > many and screen.isatty() else None
        self._total = total
        self._handled = 0

    def __call__(self, count: int) -> None:
        """So many more have been handled."""
        self._handled += count
        if self._screen is not None:
            end = "\n" if self._handled >= self._total else ""
            # ``str``: what stderr writes is red otherwise, and this is no error.
            self._screen.write(f"\r{self._handled:,} of {self._total:,}", str, ending=end)
