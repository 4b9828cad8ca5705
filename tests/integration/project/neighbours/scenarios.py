"""What the sender's process does on command, with the neighbours installed."""

import os

from django.apps import apps
from django.db import transaction
from django.test import Client
from django.utils import translation

from . import signals

LANGUAGES = ["de", "fr", "es", "ja"]


def call_many(count):
    """Send ``count`` deliveries each to a receiver and to an async one, and to two that send to these, in turns."""
    with transaction.atomic():
        for number in range(count):
            with translation.override(LANGUAGES[number % len(LANGUAGES)]):
                signals.called.send(sender=None, number=number)
                signals.called_async.send(sender=None, number=number)
                signals.relayed.send(sender=None, number=count + number)
                signals.relayed_async.send(sender=None, number=count + number)


def call_in_children(count):
    """Send, as a server does that loads the project before it forks; then from each child, and again."""
    signals.called.send(sender=None, number=0)
    children = []
    for child in range(1, count + 1):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                signals.called.send(sender=None, number=child)
                signals.called.send(sender=None, number=child)
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    signals.called.send(sender=None, number=0)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]


def keep(secret):
    """Send to one receiver whose result is kept and to one whose result is not; return the first delivery's id."""
    signals.called.send(sender=None, number=0)
    [(_, delivery)] = signals.kept.send(sender=None, secret=secret)
    return delivery.id


def results():
    """The rows of the result backend, every column as text."""
    rows = apps.get_model("django_celery_results.TaskResult").objects.values()
    return [{name: str(value) for name, value in row.items()} for row in rows]


def schedule():
    """Have the user's task run every second."""
    interval = apps.get_model("django_celery_beat.IntervalSchedule").objects.create(every=1, period="seconds")
    task = apps.get_model("django_celery_beat.PeriodicTask")
    task.objects.create(name="tick", task="tests.integration.project.neighbours.tasks.tick", interval=interval)


def page():
    """A page with the debug toolbar in it."""
    return Client().get("/").content.decode()
