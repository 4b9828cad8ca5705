"""The receivers whose deliveries are kept in the outbox: durable ones, ``atomic`` ones, and some that run in order."""

import asyncio
import time

from django.db.models.signals import post_save

from deferred_signals import Retry, Signal, receiver
from tests.chaos.programs import key_of

from .models import Effect, Intent
from .receivers import started

durably = Signal()
atomically = Signal()
in_order = Signal()

DURABLE = {"deferred": True, "durable": True, "retry_backoff_max": 1}
ATOMIC = {**DURABLE, "atomic": True}

#: The signal of each kind of intent that is not announced by its own post_save.
SIGNALS = {"durable custom": durably, "atomic custom": atomically, "ordered": in_order}


def about_durable(instance, **kwargs):
    return instance.kind == "durable model"


def about_atomic(instance, **kwargs):
    return instance.kind == "atomic model"


def key(sender, intent, **kwargs):
    return key_of(intent)


def slowly(effect):
    time.sleep(0.005)
    effect.save()


def unreliably(effect):
    chance = int(effect.intent.rpartition("-")[2]) % 20
    if effect.attempt == 1 and chance == 0:
        raise ConnectionError("nobody there")
    if effect.attempt <= 2 and chance == 1:
        raise Retry(countdown=0.2)
    effect.save()


def once(effect):
    effect.once = effect.delivery
    Effect.objects.bulk_create([effect], ignore_conflicts=True)


async def asynchronously(effect):
    await asyncio.sleep(0.002)
    await effect.asave()


@receiver(post_save, sender=Intent, when=about_durable, **DURABLE)
def index_durably(sender, instance, **kwargs):
    started(instance.pk).save()


@receiver(post_save, sender=Intent, when=about_durable, **DURABLE)
def thumbnail_durably(sender, instance, **kwargs):
    slowly(started(instance.pk))


@receiver(durably, **DURABLE)
def webhook_durably(sender, intent, **kwargs):
    unreliably(started(intent))


@receiver(durably, **DURABLE)
def invoice_durably(sender, intent, **kwargs):
    once(started(intent))


@receiver(durably, **DURABLE)
async def notify_durably(sender, intent, **kwargs):
    await asynchronously(started(intent))


@receiver(post_save, sender=Intent, when=about_atomic, **ATOMIC)
def index_atomic(sender, instance, **kwargs):
    started(instance.pk).save()


@receiver(post_save, sender=Intent, when=about_atomic, **ATOMIC)
def thumbnail_atomic(sender, instance, **kwargs):
    slowly(started(instance.pk))


@receiver(atomically, **ATOMIC)
def webhook_atomic(sender, intent, **kwargs):
    unreliably(started(intent))


@receiver(atomically, **ATOMIC)
def account_atomic(sender, intent, **kwargs):
    started(intent).save()


@receiver(atomically, **ATOMIC)
async def notify_atomic(sender, intent, **kwargs):
    await asynchronously(started(intent))


@receiver(in_order, order_by=key, **DURABLE)
def post_in_order(sender, intent, **kwargs):
    unreliably(started(intent))


@receiver(in_order, order_by=key, **ATOMIC)
def book_in_order(sender, intent, **kwargs):
    unreliably(started(intent))


#: By mode, who is to be run about an intent of each kind.
MODES = {
    "durable": {
        "durable model": ["index_durably", "thumbnail_durably"],
        "durable custom": ["webhook_durably", "invoice_durably", "notify_durably"],
    },
    "atomic": {
        "atomic model": ["index_atomic", "thumbnail_atomic"],
        "atomic custom": ["webhook_atomic", "account_atomic", "notify_atomic"],
    },
    "ordered": {"ordered": ["post_in_order", "book_in_order"]},
}
#: The receivers that write in one transaction with the completion.
ATOMIC_RECEIVERS = [*MODES["atomic"]["atomic model"], *MODES["atomic"]["atomic custom"], "book_in_order"]

RECEIVERS = {kind: names for kinds in MODES.values() for kind, names in kinds.items()}
