"""The deferred receivers: a trivial one, a slow one, one that raises, one that is idempotent, an async one."""

import asyncio
import os
import re
import time

from django.db.models.signals import post_save

from deferred_signals import Retry, Signal, current_delivery, receiver
from deferred_signals.failpoints import reach
from deferred_signals.signals import delivery_finished, delivery_published, delivery_unpublished
from tests.chaos.journal import note

from .celery import here
from .models import Effect, Intent

happened = Signal()
ticked = Signal()

#: How the senders' deliveries wait for the commit. The run is broken on purpose to see that it tells.
WAIT = {"on_commit": os.environ.get("CHAOS_BREAK") != "publish-early"}


def announced_by_model(instance, **kwargs):
    return instance.kind == "model"


def started(intent):
    """Note that a run begins; return the effect that it is to have. Here is the point ``receiver``."""
    delivery = current_delivery()
    receiver = delivery.receiver.rpartition(".")[2]
    pid = os.getpid()
    note(
        "started",
        delivery=delivery.id,
        receiver=receiver,
        intent=intent,
        attempt=delivery.attempt,
        pid=pid,
        main=here["main"],
    )
    reach("receiver")
    return Effect(intent=intent, receiver=receiver, delivery=delivery.id, attempt=delivery.attempt, pid=pid)


@receiver(post_save, sender=Intent, deferred=True, when=announced_by_model, **WAIT)
def index(sender, instance, **kwargs):
    started(instance.pk).save()


@receiver(post_save, sender=Intent, deferred=True, when=announced_by_model, **WAIT)
def thumbnail(sender, instance, **kwargs):
    effect = started(instance.pk)
    time.sleep(0.005)
    effect.save()


@receiver(happened, deferred=True, retry_backoff_max=1, **WAIT)
def webhook(sender, intent, **kwargs):
    effect = started(intent)
    chance = int(intent.rpartition("-")[2]) % 20
    if effect.attempt == 1 and chance == 0:
        raise ConnectionError("nobody there")
    if effect.attempt <= 2 and chance == 1:
        raise Retry(countdown=0.2)
    effect.save()


@receiver(happened, deferred=True, **WAIT)
def invoice(sender, intent, **kwargs):
    effect = started(intent)
    effect.once = effect.delivery
    Effect.objects.bulk_create([effect], ignore_conflicts=True)


@receiver(happened, deferred=True, **WAIT)
async def notify(sender, intent, **kwargs):
    effect = started(intent)
    await asyncio.sleep(0.002)
    await effect.asave()


@receiver(ticked, deferred=True)
def tick(sender, tick, pause, **kwargs):
    time.sleep(pause)


#: Who is to be run about an intent of each kind.
RECEIVERS = {"model": ["index", "thumbnail"], "custom": ["webhook", "invoice", "notify"]}

_INTENT = re.compile(r"i\d+-\d+")


def _sent(what, delivery, **fields):
    if delivery.kept is not None:
        return  # its row tells
    # Told from the text, for the handle does not say what it is about.
    [intent] = set(_INTENT.findall(delivery.text))
    receiver = delivery.receiver.rpartition(".")[2]
    note(what, delivery=delivery.id, receiver=receiver, intent=intent, sender=intent.partition("-")[0], **fields)


def published(delivery, **kwargs):
    _sent("published", delivery)


def unpublished(delivery, error, **kwargs):
    _sent("unpublished", delivery, error=f"{type(error).__name__}: {error}")


def finished(delivery, outcome, **kwargs):
    note(
        "finished",
        delivery=delivery and delivery.id,
        attempt=delivery and delivery.attempt,
        state=outcome.state,
        reason=outcome.reason,
    )


delivery_published.connect(published)
delivery_unpublished.connect(unpublished)
delivery_finished.connect(finished)
