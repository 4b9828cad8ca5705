"""What the sender's process does on command."""

from django.db import transaction

from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.models import Lock, OutboxDelivery

from . import signals
from .models import Booking


def send(signal, first=1, count=1, **kwargs):
    """Send it with ``number`` from ``first`` on, in one transaction; return the ids of its deliveries."""
    with transaction.atomic():
        answers = [
            answer
            for number in range(first, first + count)
            for answer in getattr(signals, signal).send(sender=None, number=number, **kwargs)
        ]
    return [delivery.id for _, delivery in answers]


def rows(*columns, **filters):
    """The rows of the outbox as they are now, in the order of their numbers: what JSON can say of the columns."""
    columns = columns or ("state", "attempt", "crashes", "rings", "worker", "loss")
    found = OutboxDelivery.objects.filter(**filters).order_by("number").values(*columns)
    return [{name: value if isinstance(value, int) else str(value) for name, value in row.items()} for row in found]


def due():
    """How many rows the relay may ring for now."""
    return OutboxDelivery.objects.filter(ring_at__lte=DatabaseNow()).count()


def kept(columns, **filters):
    """The same of these columns."""
    return rows(*columns, **filters)


def states():
    """How many rows there are in each state."""
    counts = {}
    for state in OutboxDelivery.objects.values_list("state", flat=True):
        counts[state] = counts.get(state, 0) + 1
    return counts


def errors():
    """What dead rows tell of their ends."""
    return list(OutboxDelivery.objects.filter(state="dead").order_by("number").values_list("error", flat=True))


def rings():
    """How often the relay has rung for a row: the different numbers."""
    return sorted(set(OutboxDelivery.objects.values_list("rings", flat=True)))


def leader():
    """Which relay leads."""
    return Lock.objects.get(name="relay").holder


def bookings():
    """The numbers that were booked, in order."""
    return list(Booking.objects.order_by("number").values_list("number", flat=True))
