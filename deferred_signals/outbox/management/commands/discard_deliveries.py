"""``manage.py discard_deliveries``."""

from __future__ import annotations

from django.core.management.base import CommandParser

from deferred_signals.outbox.management.on_selected import OnSelected
from deferred_signals.outbox.models import State
from deferred_signals.outbox.redelivery import discard


class Command(OnSelected):
    """Ends deliveries without running them."""

    help = (
        "Discards dead deliveries, or with --state pending those that wait. They are not run; their rows stay until "
        "they are pruned. What runs just now is left alone."
    )
    order, done = "Discard", "Discarded"
    act = staticmethod(discard)
    unasked = 0

    def add_arguments(self, parser: CommandParser) -> None:
        """As Django asks."""
        super().add_arguments(parser)
        parser.add_argument(
            "--state",
            choices=(State.DEAD.value, State.PENDING.value),
            default=State.DEAD.value,
            help="Dead ones (the default), or those that wait to run, or to run again.",
        )
