"""Telling a process to die, or to stop, at a named point; ``project/points.py`` does what is said here."""

from __future__ import annotations

from pathlib import Path

#: Where a run's processes find the directory of the arms.
VARIABLE = "CHAOS_ARMS"

SENDER = ("sender.before_row", "sender.after_row", "sender.after_commit", "sender.after_doorbell")
#: ``receiver`` is the project's own: in each receiver, before its effect.
WORKER = (
    "worker.before_claim",
    "worker.after_claim",
    "receiver",
    "worker.before_completion",
    "worker.after_completion",
)
RELAY = ("relay.before_mark", "relay.after_mark", "relay.after_ring")
POINTS = (*SENDER, *WORKER, *RELAY)


class Arms:
    """The directory: a file with a point's name says what the next process does there."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir()

    def set(self, point: str, how: str) -> None:
        """``how``: ``child`` has that process die, ``group`` its worker as a whole, ``stop`` has it stop."""
        written = self.home / "written"
        written.write_text(how)
        written.replace(self.home / point)  # at once, for somebody may be reading

    def is_set(self, point: str) -> bool:
        """Whether no process has come there yet."""
        return (self.home / point).exists()

    def take(self, point: str) -> bool:
        """Take it back; False if a process has come there."""
        try:
            (self.home / point).unlink()
        except FileNotFoundError:
            return False
        return True
