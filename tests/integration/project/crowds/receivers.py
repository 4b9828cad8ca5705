"""Receivers whose deliveries share messages."""

import os
import signal

from deferred_signals import current_delivery, receiver

from ..journal import note
from ..shop.models import Customer
from .signals import crowd_came, kept_crowd_came


def _welcome(what, guest, number, poison, failing):
    delivery = current_delivery()
    note(
        what,
        number=number,
        name=guest.name if guest else None,
        delivery=delivery.id,
        attempt=delivery.attempt,
        crashes=delivery.crashes,
    )
    if number == poison:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == failing and delivery.attempt == 1:
        raise ValueError("it fails once")


@receiver(crowd_came, deferred=True, batch_size=50, retry_backoff=0.1)
def welcome(sender, number, guest=None, poison=None, failing=None, **kwargs):
    _welcome("welcome", guest, number, poison, failing)
    if guest:
        Customer.objects.filter(pk=guest.pk).update(email="welcome@example.com")


@receiver(kept_crowd_came, deferred=True, durable=True, batch_size=50, retry_backoff=0.1)
def welcome_for_sure(sender, number, poison=None, failing=None, **kwargs):
    _welcome("welcome_for_sure", None, number, poison, failing)
