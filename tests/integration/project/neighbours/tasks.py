from celery import shared_task

from . import signals


@shared_task
def tick():
    """Run on a schedule."""
    signals.called.send(sender=None, number=0)
