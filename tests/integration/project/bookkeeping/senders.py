"""Senders that are killed at a named point, that fork, and that have threads."""

import os
import signal
import threading
from contextlib import ExitStack

from django.db import connection, connections, transaction

from deferred_signals import failpoints
from deferred_signals.outbox import together
from deferred_signals.outbox.models import OutboxDelivery

from ..shop.models import Customer
from . import signals


def sell(number, *, in_bulk=False):
    """Write a customer and send a receipt of this number, in one transaction."""
    with together() if in_bulk else transaction.atomic():
        Customer.objects.create(name=f"customer {number}")
        signals.receipt_due.send(sender=None, number=number)


def sell_and_die(at, number, in_bulk):
    """The same, killed at a failpoint."""
    failpoints.actions[at] = lambda: os.kill(os.getpid(), signal.SIGKILL)
    sell(number, in_bulk=in_bulk)


def sell_in_forks(numbers):
    """In this process, in two children of it, and in this process again."""
    first, *others, last = numbers
    sell(first)
    connection.close()  # as everybody who forks must
    children = []
    for number in others:
        child = os.fork()
        if not child:
            try:
                sell(number)
                connection.close()
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    sell(last)


def sell_in_threads(numbers):
    """At once in as many threads; every second one rolls back."""
    barrier = threading.Barrier(len(numbers))

    def work(number):
        with ExitStack() as ending:
            ending.callback(connections.close_all)
            with transaction.atomic():
                sell(number)
                barrier.wait(30)
                transaction.set_rollback(bool(number % 2))

    threads = [threading.Thread(target=work, args=[number]) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def customers_and_rows():
    """How many there are of each; rows of durable deliveries, for Customer has other receivers too."""
    return [Customer.objects.count(), OutboxDelivery.objects.filter(origin="durable").count()]
