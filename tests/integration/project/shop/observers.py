"""Inline observers of deliveries: what a team would count in its metrics, the tests read in the journal."""

from django.dispatch import receiver

from deferred_signals.signals import delivery_finished, delivery_published, delivery_unpublished

from ..journal import note


def _short(delivery):
    return delivery and delivery.receiver.rpartition(".")[2]


@receiver(delivery_published)
def published(sender, delivery, **kwargs):
    note("published", receiver=_short(delivery), delivery=delivery.id)


@receiver(delivery_unpublished)
def unpublished(sender, delivery, error, **kwargs):
    note("unpublished", receiver=_short(delivery), delivery=delivery.id, error=repr(error))


@receiver(delivery_finished)
def finished(sender, delivery, outcome, **kwargs):
    note(outcome.state, receiver=_short(delivery), delivery=delivery and delivery.id, reason=outcome.reason)
