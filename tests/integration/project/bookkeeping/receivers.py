"""Receivers whose deliveries must not be lost."""

import os
import time
from pathlib import Path

from deferred_signals import current_delivery, receiver

from ..journal import note
from . import signals
from .models import Booking


def _note(what, **fields):
    delivery = current_delivery()
    return note(what, delivery=delivery.id, attempt=delivery.attempt, crashes=delivery.crashes, **fields)


def _wait(seconds):
    """So many seconds, or until the test opens the gate."""
    gate = Path(os.environ["SHOP_JOURNAL"]).with_name("gate")
    end = time.monotonic() + seconds
    while time.monotonic() < end and not gate.exists():
        time.sleep(0.01)


@receiver(signals.sale, deferred=True, durable=True, atomic=True)
def book_sale(sender, number, **kwargs):
    Booking.objects.create(number=number)
    _note("book_sale", number=number)


@receiver(signals.receipt_due, deferred=True, durable=True)
def print_receipt(sender, number, **kwargs):
    _note("print_receipt", number=number)


@receiver(signals.refund_due, deferred=True, durable=True, retry_backoff=1, retry_jitter=False)
def refund(sender, number, **kwargs):
    if _note("refund", number=number) == 1:
        raise ConnectionError("the bank is busy")


@receiver(signals.audit_due, deferred=True, durable=True)
def audit(sender, number, seconds, **kwargs):
    _note("audit started", number=number)
    _wait(seconds)
    _note("audit finished", number=number)


@receiver(signals.atomic_audit_due, deferred=True, durable=True, atomic=True)
def book_audit(sender, number, seconds, **kwargs):
    Booking.objects.create(number=number)
    _note("book_audit started", number=number)
    _wait(seconds)
    _note("book_audit finished", number=number)


@receiver(signals.reminder_due, deferred=True, durable=True, countdown=1)
def remind(sender, number, **kwargs):
    _note("remind", number=number)


@receiver(signals.limit_due, deferred=True, durable=True, time_limit=1)
def run_into_the_limit(sender, number, **kwargs):
    _note("run_into_the_limit", number=number)
    _wait(60)


@receiver(signals.soft_limit_due, deferred=True, durable=True, soft_time_limit=1, max_retries=0)
def run_into_the_soft_limit(sender, number, **kwargs):
    if number == 1:
        _wait(60)
    _note("run_into_the_soft_limit", number=number)
