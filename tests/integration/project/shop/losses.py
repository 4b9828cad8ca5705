"""Senders that are killed, at a moment that the test chooses."""

import os
import signal

from django.db import transaction

from .models import Customer


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def sign_up_and_die_before_the_commit(name):
    with transaction.atomic():
        Customer.objects.create(name=name)
        die()


def sign_up_and_die_after_the_commit(name):
    with transaction.atomic():
        # Registered before the send, so it is called before the hook that hands the deliveries over.
        transaction.on_commit(die)
        Customer.objects.create(name=name)


def sign_up_and_die_after_publishing(name):
    with transaction.atomic():
        Customer.objects.create(name=name)
    die()


def customers(name):
    return Customer.objects.filter(name=name).count()
