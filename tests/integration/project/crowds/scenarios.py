"""What the sender's process does on command."""

from django.db import transaction

from ..shop.models import Customer
from . import signals


def send(count, signal="crowd_came", guests=False, **kwargs):
    """Send so often in one transaction; return the ids of the deliveries."""
    with transaction.atomic():
        found = [Customer(name=f"guest {number}") for number in range(count)] if guests else [None] * count
        if guests:
            Customer.objects.bulk_create(found)
            found = list(Customer.objects.filter(name__startswith="guest").order_by("pk"))
        return [
            getattr(signals, signal)
            .send(sender=None, number=number, **({"guest": guest} if guest else {}), **kwargs)[0][1]
            .id
            for number, guest in enumerate(found)
        ]


def welcomed():
    return Customer.objects.filter(email="welcome@example.com").count()
