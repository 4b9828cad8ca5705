"""A project that has the library from its wheel; see tests/wheel.py."""

from celery import Celery

app = Celery("office", broker="memory://")
app.config_from_object("django.conf:settings", namespace="CELERY")
