"""A magazine, made with the applications that the tests are about: see INSTALLED_APPS."""

from .celery import app as celery_app

__all__ = ["celery_app"]
