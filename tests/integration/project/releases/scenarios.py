"""What a sender's process does on command. Each answers with the ids of the deliveries, by their receivers' names."""

import uuid

from django.apps import apps
from django.core.management import call_command
from django.db import connection, transaction

from deferred_signals.signals import delivery_published

from . import receivers, release, routes, signals, tenants, values
from .models import Coupon, Voucher


def create_tables():
    call_command("migrate", run_syncdb=True, verbosity=0)
    connection.close()


def _ids(responses):
    return {function.__name__: delivery.id for function, delivery in responses}


def send(queue, signal, **kwargs):
    routes.queue = queue
    found = receivers.returned if signal == "returned" else getattr(signals, signal)
    return _ids(found.send(sender=None, **kwargs))


def send_for_tenant(queue, signal, tenant):
    tenants._tenant.set(tenant)
    return send(queue, signal)


def spend_voucher(queue):
    return send(queue, "voucher_spent", voucher=Voucher(code="V1"))


def spend_coupon(queue):
    return send(queue, "coupon_spent", coupon=Coupon(code="C1", **{} if release.NEW else {"remark": "gift"}))


def set_price(queue, cents):
    return send(queue, "price_set", price=values.Money(cents))


def save(queue, model):
    """Save a Depot or a Van, whatever it is called by now; their signals are Django's own."""
    routes.queue = queue
    published = []

    def note(sender, delivery, **kwargs):
        published.append((delivery.function, delivery))

    delivery_published.connect(note)
    try:
        with transaction.atomic():
            getattr(receivers, model).objects.create(name="Graz")
    finally:
        delivery_published.disconnect(note)
    return _ids(published)


def rows_of_the_specimens():
    shop = apps.get_app_config("shop")
    shop.get_model("Customer").objects.create(pk=42, name="Anna")
    shop.get_model("Line").objects.create(order_id=uuid.UUID(int=7), number=3)
    shop.get_model("Ticket").objects.create(code=shop.get_model("Ticket")._meta.pk.to_python("T1"))
