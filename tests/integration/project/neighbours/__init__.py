"""The shop in company: other packages installed beside it, and a Celery app with a task class of its own."""

from .celery import app

__all__ = ["app"]
