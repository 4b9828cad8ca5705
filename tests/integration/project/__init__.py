"""A small shop, run by the integration tests in processes of its own: workers, and one sender that takes commands."""

from .celery import app as celery_app

__all__ = ["celery_app"]
