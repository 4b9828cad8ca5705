import os

from django.conf import settings

from deferred_signals import receiver
from deferred_signals.signals import delivery_unpublished

from ..journal import note
from . import signals

QUEUE = settings.CELERY_TASK_DEFAULT_QUEUE


@receiver(signals.parcel_sent, deferred=True)
def to_the_default_queue(sender, content, **kwargs): ...


@receiver(signals.topic_sent, deferred=True, queue=f"{QUEUE}-topic", routing_key="parcels.small")
def to_a_queue_by_topic(sender, content, **kwargs): ...


@receiver(signals.binding_sent, deferred=True, exchange=f"{QUEUE}-topic", routing_key="parcels.large")
def to_an_exchange(sender, content, **kwargs): ...


@receiver(signals.nowhere_sent, deferred=True, exchange="nowhere", routing_key="void")
def to_an_exchange_that_is_not_there(sender, content, **kwargs): ...


@receiver(signals.unbound_sent, deferred=True, exchange=f"{QUEUE}-topic", routing_key="letters.small")
def to_a_routing_key_that_leads_nowhere(sender, content, **kwargs): ...


@receiver(signals.full_sent, deferred=True, queue=f"{QUEUE}-full")
def to_a_queue_that_is_full(sender, content, **kwargs): ...


@receiver(delivery_unpublished)
def save(sender, delivery, **kwargs):
    """What a team would write into a table."""
    if "FAULTS_SAVE" in os.environ:
        note("saved", delivery=delivery.id, receiver=delivery.receiver, payload=delivery.payload)
