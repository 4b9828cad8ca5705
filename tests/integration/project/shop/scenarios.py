"""What the sender's process does on command; each returns what JSON can say."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from zoneinfo import ZoneInfo

from django.core.management import call_command
from django.db import connection, transaction
from django.utils import timezone, translation
from django.utils.module_loading import import_string

from . import signals
from .models import Customer, Order


class RolledBack(Exception):
    pass


@contextmanager
def rolled_back() -> Iterator[None]:
    """A block of the database that does not come to its end."""
    try:
        with transaction.atomic():
            yield
            raise RolledBack
    except RolledBack:
        pass


def create_tables():
    call_command("migrate", run_syncdb=True, verbosity=0)
    connection.close()  # SQLite's WAL goes into the file, which is copied


def sign_up(name, count=1):
    """Sign customers up in one transaction; say how long its commit took the caller and who is there afterwards."""
    with transaction.atomic():
        for _ in range(count):
            Customer.objects.create(name=name)
        Customer.objects.filter(name=name).update(email="ada@example.com")
        committing = time.monotonic()
    return {"seconds": time.monotonic() - committing, "customers": Customer.objects.filter(name=name).count()}


def sign_up_outside_a_transaction(name):
    Customer.objects.create(name=name)


def rename(name, new):
    with transaction.atomic():
        customer = Customer.objects.get(name=name)
        customer.name = new
        customer.save()


def sign_up_abroad(name, language, zone):
    with translation.override(language), timezone.override(ZoneInfo(zone)):
        Customer.objects.create(name=name)


def sign_up_and_roll_back(name):
    with rolled_back():
        Customer.objects.create(name=name)


def sign_up_and_roll_the_savepoint_back(kept, lost):
    with transaction.atomic():
        Customer.objects.create(name=kept)
        with rolled_back():
            Customer.objects.create(name=lost)
            with transaction.atomic():
                Customer.objects.create(name=f"{lost} inside")


def sign_up_and_leave(name):
    with transaction.atomic():
        Customer.objects.create(name=name).delete()


def complete_order(name):
    with transaction.atomic():
        order = Order.objects.create(customer=Customer.objects.create(name=name), total=Decimal("9.90"))
        responses = signals.order_completed.send(sender=Order, order=order, lines=[("tea", 2), ("milk", 1)])
    return {function.__name__: getattr(response, "id", None) for function, response in responses}


def send(signal, **kwargs):
    getattr(signals, signal).send(sender=None, **kwargs)


def payload_for(signal):
    """A genuine payload that was not published."""
    with rolled_back():
        [(_, delivery)] = getattr(signals, signal).send(sender=None)
    return delivery.payload


def elsewhere(path, **arguments):
    """Run the scenario of another app, given by its dotted path."""
    return import_string(path)(**arguments)
