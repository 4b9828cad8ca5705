"""What the sender's process does on command."""

from . import signals


def send(signal, **kwargs):
    """Send it; return the ids of its deliveries by the names of the receivers."""
    answers = getattr(signals, signal).send(sender=None, **kwargs)
    return {function.__name__: delivery.id for function, delivery in answers if delivery is not None}
