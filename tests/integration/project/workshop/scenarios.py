"""What the sender's process does on command, in processes and threads of its own."""

import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import django
from django.db import connection, transaction

from ..shop.models import Customer
from . import signals


def count(numbers):
    """Send each number in a transaction of its own, with a row that its receivers can find."""
    for number in numbers:
        with transaction.atomic():
            Customer.objects.bulk_create([Customer(name=f"number {number}")])  # no signal of its own
            signals.counted.send(sender=None, number=number)


def send(signal, **kwargs):
    getattr(signals, signal).send(sender=None, **kwargs)


def send_all(signal, numbers):
    with transaction.atomic():
        for number in numbers:
            getattr(signals, signal).send(sender=None, number=number)


def count_in_forks(children, each):
    """Fork before the first publish and after it; then parent and children send at the same time.

    Returns the numbers that were sent, and how the children ended.
    """
    ready, go = os.pipe()

    def fork(numbers):
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            os.close(go)
            os.read(ready, 1)  # returns when the parent closes the other end
            count(numbers)
            status = 0
        finally:
            os._exit(status)

    def share(child):
        return range(child * each, (child + 1) * each)

    connection.close()  # Django's own rule: no open connections over a fork
    early = [fork(share(child)) for child in range(1, children + 1)]
    count([0])
    connection.close()
    late = [fork(share(child)) for child in range(children + 1, 2 * children + 1)]
    os.close(ready)
    os.close(go)
    count(range(1, each))
    ended = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in early + late]
    return {"sent": (2 * children + 1) * each, "ended": ended}


def count_in_a_pool(method, processes, each):
    """Send from a multiprocessing pool, after this process has published, and while it publishes."""
    count([0])
    connection.close()
    shares = [range(child * each, (child + 1) * each) for child in range(1, processes + 1)]
    # A spawned process has nothing of this one's memory, so it must load the project.
    setup = django.setup if method == "spawn" else None
    with multiprocessing.get_context(method).Pool(processes, initializer=setup) as pool:
        running = pool.map_async(count, shares, chunksize=1)
        count(range(1, each))
        running.get(timeout=60)
    return (processes + 1) * each


def count_in_threads(threads, each):
    """Send from threads that start together."""
    together = threading.Barrier(threads)

    def work(thread):
        together.wait()
        try:
            count(range(thread * each, (thread + 1) * each))
        finally:
            connection.close()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    return threads * each
