"""Deferred receivers that work side by side, and some that listen to all models."""

import asyncio
import time
from contextlib import contextmanager

from django.db.models.signals import post_save
from django.utils import translation

from deferred_signals import receiver

from ..journal import note
from ..shop.models import Customer
from .signals import called, called_async, kept, relayed, relayed_async

#: The numbers that are at work in this process.
_running = []


@contextmanager
def _noted(what, number):
    """Note the language before and after, and how many receivers there were in this process at most."""
    before = translation.get_language()
    _running.append(number)
    together = len(_running)
    yield
    _running.remove(number)
    note(what, number=number, languages=[before, translation.get_language()], together=together)


@receiver(called, deferred=True)
def inward(sender, number, **kwargs):
    """Reads the database and waits, so that others come between."""
    with _noted("inward", number):
        Customer.objects.count()
        time.sleep(0.02)
        Customer.objects.count()


@receiver(called_async, deferred=True)
async def inward_async(sender, number, **kwargs):
    with _noted("inward_async", number):
        await Customer.objects.acount()
        await asyncio.sleep(0.02)
        await Customer.objects.acount()


@receiver(kept, deferred=True, ignore_result=False)
def keep_result(sender, secret, **kwargs):
    note("keep_result", length=len(secret))


@receiver(post_save, deferred=True)
def any_row(sender, instance, created, **kwargs):
    """Without a sender: every model's rows, those of other packages included."""
    note("any_row", model=sender._meta.label, created=created)


@receiver(relayed, deferred=True)
def relay(sender, number, **kwargs):
    called.send(sender=None, number=number)


@receiver(relayed_async, deferred=True)
async def relay_async(sender, number, **kwargs):
    await called_async.asend(sender=None, number=number)
