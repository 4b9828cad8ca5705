"""What the ledger test runs: senders that write what they intend, receivers that write what they did."""

from .celery import app as celery_app

__all__ = ["celery_app"]
