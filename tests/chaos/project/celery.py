import os

from celery import Celery
from celery.signals import task_received, worker_init, worker_process_init

from tests.chaos.journal import note

app = Celery("chaos")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

#: What this process knows of itself.
here = {"main": 0}


@worker_process_init.connect
def child_begins(**kwargs):
    here["main"] = os.getppid()  # now, for an orphan has another parent


@worker_init.connect
def worker_begins(**kwargs):
    note("worker", main=os.getpid())
    if os.environ.get("CHAOS_BREAK") == "ack-early":
        app.tasks["deferred_signals.deliver"].acks_late = False


@task_received.connect
def received(request, **kwargs):
    """The broker has given a message to a worker, which has noted it as unacknowledged."""
    note("received", delivery=request.id, main=os.getpid())
