"""Who listens, and who of them is slow. ``deferred=True`` is all the difference."""

import json
import os
import time
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from django.conf import settings
from django.core.mail import send_mail
from django.db.models.signals import post_save

from deferred_signals import receiver

from . import journal
from .models import Book, Invoice, Order, Profile, User, Webhook
from .signals import order_completed


@receiver(post_save, sender=User)
def create_profile(sender: type[User], instance: User, created: bool, **kwargs: Any) -> None:
    """Inline: the next page needs the profile, and it must not exist without its user."""
    if created:
        Profile.objects.create(user=instance)
        journal.write("shop.receivers.create_profile")


@receiver(post_save, sender=User, deferred=True)
def send_welcome_email(sender: type[User], instance: User, created: bool, **kwargs: Any) -> None:
    """Deferred: the mail server is slow, and nobody should be welcomed whose sign-up was rolled back."""
    if created:
        send_mail("Welcome", f"Hello {instance}, good to have you here.", None, [instance.email])


# No jitter here only because the demo shows the retry: by default it keeps many failures from coming back at once.
@receiver(order_completed, deferred=True, max_retries=10, retry_backoff=1, retry_jitter=False)
def reserve_at_warehouse(sender: type[Order], order: Order, **kwargs: Any) -> None:
    """Deferred: the warehouse is often away. What urlopen raises then is retried after 1, 2, 4, ... seconds."""
    reservation = Request(f"{settings.WAREHOUSE_URL}/reservations/{order.pk}", method="PUT")  # twice is as good as once
    with urlopen(reservation, timeout=5) as answer:
        Order.objects.filter(pk=order.pk).update(shelf=answer.read().decode())


@receiver(order_completed, deferred=True)
async def count_copies_sold(sender: type[Order], order: Order, **kwargs: Any) -> None:
    """Deferred and async. Counts anew and does not add 1: a delivery can come twice."""
    copies = await Order.objects.filter(book=order.book_id).acount()
    await Book.objects.filter(pk=order.book_id).aupdate(copies_sold=copies)


@receiver(order_completed, deferred=True, durable=True, atomic=True)
def write_invoice(sender: type[Order], order: Order, **kwargs: Any) -> None:
    """Deferred and durable: an invoice must not get lost. Atomic: nor must an order have two of them."""
    Invoice.objects.create(order=order, written_by=os.getpid())
    time.sleep(1)  # the printer is slow


class WebhookRefused(Exception):
    """The publisher did not take a report. Says what was answered, and so whatever somebody else's computer says."""


# One retry after a second, only because the demo shows what is dead: by default it is tried for longer.
@receiver(order_completed, deferred=True, durable=True, max_retries=1, retry_backoff=1, retry_jitter=False)
def report_to_publisher(sender: type[Order], order: Order, **kwargs: Any) -> None:
    """Deferred and durable: dead because the webhook is broken, it is kept, and can be redelivered when it is mended.

    Says the number of the order, by which the publisher knows a report that comes twice.
    """
    report = json.dumps({"order": order.pk, "book": order.book.title}).encode()
    try:
        with urlopen(Request(Webhook.objects.get().url, report), timeout=5):
            pass
    except HTTPError as refusal:
        raise WebhookRefused(f"{refusal.status} {refusal.read().decode()[:500]}") from None
