import os
import time
from contextlib import nullcontext
from pathlib import Path

from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection, transaction

from deferred_signals import Discard, current_delivery, receiver

from ..journal import note
from ..shop.models import Customer
from . import signals

A_MILLENNIUM = 1000 * 365 * 24 * 3600


def _wait_for(gate):
    """Until the test makes this file."""
    path = Path(os.environ["SHOP_JOURNAL"]).with_name(gate)
    while not path.exists():
        time.sleep(0.01)


@receiver(signals.counted, deferred=True)
def count(sender, number, **kwargs):
    note("count", number=number, delivery=current_delivery().id)


@receiver(signals.counted, deferred=True)
async def count_async(sender, number, **kwargs):
    customer = await Customer.objects.filter(name=f"number {number}").afirst()
    note("count_async", number=number, customer=customer and customer.name)


@receiver(signals.held, deferred=True, max_retries=0)
def hold(sender, number, **kwargs):
    """Works until the test opens the gate; may not be retried."""
    note("hold started", number=number, delivery=current_delivery().id, attempt=current_delivery().attempt)
    _wait_for("gate")
    note("hold finished", number=number, delivery=current_delivery().id)


@receiver(signals.held_patiently, deferred=True, retry_backoff_max=1)
def hold_patiently(sender, number, **kwargs):
    """The same, and may be retried."""
    note("hold_patiently started", number=number, attempt=current_delivery().attempt)
    _wait_for("gate")
    note("hold_patiently finished", number=number)


@receiver(signals.later, deferred=True, countdown=5)
def remind(sender, number, **kwargs):
    note("remind", number=number, delivery=current_delivery().id)


@receiver(signals.in_the_year_3000, deferred=True, countdown=A_MILLENNIUM)
def celebrate(sender, **kwargs):
    note("celebrate")


@receiver(signals.failing, deferred=True, retry_backoff_max=1)
def fail_once(sender, number, **kwargs):
    note("fail_once", number=number, attempt=current_delivery().attempt, customers=Customer.objects.count())
    if current_delivery().attempt == 1:
        raise ConnectionError("the bank is busy")


@receiver(signals.failing, deferred=True, max_retries=1, retry_backoff_max=1)
async def fail_always(sender, number, **kwargs):
    note("fail_always", number=number, customers=await Customer.objects.acount())
    raise ConnectionError("nobody there")


@receiver(signals.failing, deferred=True)
def give_up(sender, number, **kwargs):
    raise Discard("unsubscribed")


@receiver(signals.stubborn, deferred=True, max_retries=None, retry_backoff_max=1)
def never_learn(sender, **kwargs):
    """Fails, and is retried, for as long as the test runs."""
    note("never_learn")
    raise ConnectionError("and again")


@receiver(signals.telling, deferred=True, max_retries=1, retry_backoff_max=1)
def tell_in_a_transaction(sender, number, **kwargs):
    """Sends in a transaction that it does not commit in its first attempt."""
    attempt = current_delivery().attempt
    with transaction.atomic():
        signals.counted.send(sender=None, number=number + attempt)
        if attempt == 1:
            raise ConnectionError("before the commit")


@receiver(signals.telling_at_once, deferred=True, max_retries=1, retry_backoff_max=1)
def tell_and_fail(sender, number, **kwargs):
    """Sends outside a transaction, and fails afterwards in its first attempt."""
    attempt = current_delivery().attempt
    signals.counted.send(sender=None, number=number + attempt)
    if attempt == 1:
        raise ConnectionError("after the send")


@receiver(signals.limited, deferred=True, soft_time_limit=1, max_retries=1, retry_backoff_max=1)
def take_long(sender, **kwargs):
    """Longer than it may, in its first attempt."""
    attempt = current_delivery().attempt
    note("take_long started", attempt=attempt)
    if attempt == 1:
        try:
            for _ in range(250):
                time.sleep(0.01)
        except SoftTimeLimitExceeded:
            note("take_long was interrupted", attempt=attempt)
            raise
    note("take_long finished", attempt=attempt)


@receiver(signals.querying, deferred=True, max_retries=1)
def query_twice(sender, number, in_a_transaction, **kwargs):
    """Uses its connection before and after the test opens the gate."""
    with transaction.atomic() if in_a_transaction else nullcontext():
        note("query_twice started", number=number, session=_session(), attempt=current_delivery().attempt)
        _wait_for("gate")
        note("query_twice finished", number=number, session=_session())


def _session():
    """The number of the connection on the server's side."""
    asked = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT CONNECTION_ID()"}
    with connection.cursor() as cursor:
        cursor.execute(asked[connection.vendor])
        return cursor.fetchone()[0]
