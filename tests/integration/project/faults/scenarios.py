"""What the sender does while its broker is broken. Each answers with what its callers have seen of that."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from celery.signals import before_task_publish
from django.db import connection, transaction

from deferred_signals.tasks import deliver

from ..journal import note
from ..shop.models import Customer
from . import signals


def _sign_up(name, count):
    """One transaction, with a commit hook of somebody else's before ours and one after it."""
    hooks = []
    started = time.monotonic()
    with transaction.atomic():
        transaction.on_commit(lambda: hooks.append("before"))
        for _ in range(count):
            Customer.objects.create(name=name)
        transaction.on_commit(lambda: hooks.append("after"))
        started = time.monotonic()
    return {"seconds": time.monotonic() - started, "hooks": hooks}


def sign_ups(name, times=1, count=1, threads=1):
    """So many transactions of so many sign-ups each: how long their commits took, and what is there afterwards."""

    def one(_):
        try:
            return _sign_up(name, count)
        finally:
            if threads > 1:
                connection.close()

    started = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        done = list(pool.map(one, range(times))) if threads > 1 else [one(None) for _ in range(times)]
    return {
        "seconds": time.monotonic() - started,
        "longest": max(each["seconds"] for each in done),
        "hooks": [each["hooks"] for each in done],
        "customers": Customer.objects.filter(name=name).count(),
    }


def slow_sign_ups(name, count, halfway):
    """One transaction whose messages leave slowly after the one at ``halfway``, so that something can happen."""
    published = 0

    def slow(**kwargs):
        nonlocal published
        published += 1
        if published == halfway:
            note("halfway")
        if published >= halfway:
            time.sleep(0.01)

    before_task_publish.connect(slow)
    try:
        return sign_ups(name, count=count)
    finally:
        before_task_publish.disconnect(slow)


def send(which, content="", times=1):
    """Send one of the signals; say how long that took, and what it raised."""
    started = time.monotonic()
    raised = ""
    try:
        for _ in range(times):
            getattr(signals, which).send(sender=None, content=content)
    except Exception as error:  # noqa: BLE001 - the test looks at it
        raised = f"{type(error).__name__}: {error}"
    return {"seconds": time.monotonic() - started, "raised": raised}


def send_much(which, megabytes):
    return send(which, content="x" * (megabytes * 1024 * 1024))


def what_is_left():
    """The threads and the sockets that this process has."""
    sockets = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the directory's own is closed by now
            sockets += str(descriptor.readlink()).startswith("socket:")
    return {"threads": [thread.name for thread in threading.enumerate()], "sockets": sockets}


def publish_again(payload, delivery, receiver):
    """What a receiver of delivery_unpublished has saved, sent once more."""
    deliver.apply_async((payload,), task_id=delivery, shadow=receiver)


def die(name, when):
    """Kill this process around its commit."""

    def kill():
        os.kill(os.getpid(), signal.SIGKILL)

    with transaction.atomic():
        if when == "between commit and publish":
            transaction.on_commit(kill)
        Customer.objects.create(name=name)
        if when == "before the commit":
            kill()
    kill()


def customers(name):
    return Customer.objects.filter(name=name).count()
