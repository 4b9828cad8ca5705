"""The outbox: deliveries kept in the databases from which they are sent, until they are finished.

``INSTALLED_APPS = [..., "deferred_signals", "deferred_signals.outbox"]``; see docs/outbox.md.
"""

from .bulk import together

__all__ = ["together"]
