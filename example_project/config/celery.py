"""The Celery app, as in Celery's "First steps with Django". Deferred receivers need nothing more."""

import os

from celery import Celery

from . import liveness  # noqa: F401 - connects itself; see deploy/

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("book_shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
