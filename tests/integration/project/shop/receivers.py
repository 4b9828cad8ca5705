import os
import time
from pathlib import Path

from django.db.models.signals import post_save
from django.utils import timezone, translation

from deferred_signals import Discard, current_delivery, receiver

from ..journal import note
from .models import Customer
from .signals import invoice_due, newsletter_due, order_completed, payment_due, webhook_due


@receiver(post_save, sender=Customer)
def greet(sender, instance, **kwargs):
    note("greet", name=instance.name)


@receiver(post_save, sender=Customer, deferred=True)
def send_welcome_email(sender, instance, created, **kwargs):
    note(
        "send_welcome_email",
        name=instance.name,
        email=instance.email,
        created=created,
        language=translation.get_language(),
        timezone=timezone.get_current_timezone_name(),
        delivery=current_delivery().id,
    )


@receiver(order_completed)
def thank(sender, order, **kwargs):
    note("thank", order=order.pk)


@receiver(order_completed, deferred=True)
def take_from_stock(sender, order, lines, **kwargs):
    note("take_from_stock", order=order.pk, total=str(order.total), lines=lines, sender=sender.__name__)


@receiver(order_completed, deferred=True)
async def tell_warehouse(sender, order, **kwargs):
    customer = await Customer.objects.aget(pk=order.customer_id)
    note("tell_warehouse", order=order.pk, customer=customer.name)


@receiver(payment_due, deferred=True)
def charge_card(sender, **kwargs):
    if note("charge_card") == 1:
        raise ConnectionError("the bank is busy")


@receiver(webhook_due, deferred=True, max_retries=1)
def call_webhook(sender, **kwargs):
    note("call_webhook")
    raise ConnectionError("nobody there")


@receiver(newsletter_due, deferred=True)
def send_newsletter(sender, **kwargs):
    note("send_newsletter")
    raise Discard("unsubscribed")


@receiver(invoice_due, deferred=True)
def render_invoice(sender, number, **kwargs):
    """Works until the test opens the gate."""
    note("render_invoice started", number=number)
    gate = Path(os.environ["SHOP_JOURNAL"]).with_name("gate")
    while not gate.exists():
        time.sleep(0.01)
    note("render_invoice finished", number=number)
