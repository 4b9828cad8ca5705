"""Django signals whose slow receivers run on Celery workers.

``@receiver(post_save, sender=User, deferred=True)`` is the whole change. Importing this package needs no settings and
imports neither Celery nor models.
"""

from .codec import NotCarried, register_codec
from .context import register_carrier
from .delivery import Delivery, current_delivery
from .dispatch import Signal, connect, disconnect, receiver
from .exceptions import Discard, Retry
from .handover import publish_again
from .suppression import suppress

__version__ = "0.1.0.dev0"

__all__ = [
    "Delivery",
    "Discard",
    "NotCarried",
    "Retry",
    "Signal",
    "connect",
    "current_delivery",
    "disconnect",
    "publish_again",
    "receiver",
    "register_carrier",
    "register_codec",
    "suppress",
]
