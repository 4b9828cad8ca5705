"""Deliveries for what sends no signal: bulk operations, raw SQL, rows that were there before the receiver was.

Inline receivers are not run: whoever writes in bulk does so in order not to wait for them.
"""

from .companions import bulk_create, bulk_update, update
from .sending import send_for

__all__ = ["bulk_create", "bulk_update", "send_for", "update"]
