"""``manage.py redeliver``."""

from __future__ import annotations

from deferred_signals.outbox.management.on_selected import OnSelected
from deferred_signals.outbox.redelivery import redeliver


class Command(OnSelected):
    """Runs dead deliveries again."""

    help = (
        "Has dead deliveries run again, as if for the first time. One whose payload cannot be verified, or whose "
        "expires has passed, is left as it is."
    )
    order, done = "Redeliver", "Redelivered"
    act = staticmethod(redeliver)
    unasked = 100
