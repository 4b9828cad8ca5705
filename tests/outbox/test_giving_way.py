"""Transactions that the database undoes because of another one, while who is in them swallows the error."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from django.db import DatabaseError, OperationalError, connection, connections, transaction

from deferred_signals.outbox import bulk, custody, together
from deferred_signals.outbox.giving_way import has_undone_all
from deferred_signals.outbox.models import OutboxDelivery
from tests import receivers
from tests.receivers import curious, first
from tests.shop.models import Customer

from .holding import expire, once, parcel_sent, ring, send, states

pytestmark = pytest.mark.django_db(transaction=True)

#: What a receiver, or a sender, does in a transaction that the database undoes.
Swallow = Callable[[], None]


@contextmanager
def deadlock() -> Iterator[Swallow]:
    """What runs into a deadlock, as the one that gives way, and swallows the error."""
    Customer.objects.bulk_create([Customer(pk=pk, name="x") for pk in range(1000, 1100)])
    waits, has_locked = threading.Event(), threading.Event()

    def other() -> None:
        try:
            with transaction.atomic():
                Customer.objects.filter(pk__gt=1001).update(name="y")  # who has written most goes on
                has_locked.set()
                waits.wait(60)
                Customer.objects.filter(pk=1000).update(name="y")
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:

        def swallow() -> None:
            list(Customer.objects.select_for_update().filter(pk=1000))
            beside = pool.submit(other)
            assert has_locked.wait(60)
            waits.set()
            with pytest.raises(OperationalError):
                while not beside.done():
                    list(Customer.objects.select_for_update().filter(pk=1099))

        yield swallow


ON_MYSQL = pytest.mark.skipif(connection.vendor != "mysql", reason="about MySQL and MariaDB")


@pytest.fixture(params=["said", pytest.param("real", marks=ON_MYSQL)])
def undone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Swallow]:
    """A deadlock on MySQL and MariaDB; elsewhere a statement that fails, of which that is only said."""
    if request.param == "real":
        with deadlock() as swallow:
            yield swallow
        return

    def swallow_another() -> None:
        for module in (bulk, custody):
            monkeypatch.setattr(module, "has_undone_all", lambda *about: True)
        with pytest.raises(DatabaseError), connection.cursor() as cursor:
            cursor.execute("SELECT nothing FROM nowhere")
        monkeypatch.undo()

    yield swallow_another


def test_an_atomic_receiver_is_not_completed_without_what_it_had_written(link, undone):
    link(parcel_sent, curious, durable=True, atomic=True)

    def write(**kwargs: object) -> None:
        Customer.objects.create(pk=1, name="effect")
        swallow()

    swallow = once(undone)
    receivers.inquiries.append(write)
    send()
    assert states(ring()) == ["retry"]
    assert not Customer.objects.filter(pk=1).exists()
    row = OutboxDelivery.objects.get()
    assert row.attempt == 1, "it uses up no retry"
    assert "had to give way" in row.error
    expire()
    assert states(ring()) == ["succeeded"]
    assert Customer.objects.filter(pk=1).exists()


def test_what_was_sent_together_before_it_is_not_there_without_what_it_tells_of(link, undone, rows):
    link(parcel_sent, first, durable=True)
    with together():
        parcel_sent.send(sender=None, number=1)
        undone()
    assert rows("number") == []


@ON_MYSQL
@pytest.mark.parametrize("durable", [True, False])
def test_a_durable_delivery_that_was_sent_before_it_is_gone_and_another_is_not(link, memory, durable):
    """Nothing tells Django of it, so it calls the hooks of the commit."""
    link(parcel_sent, first, durable=durable)
    with deadlock() as swallow, transaction.atomic():
        parcel_sent.send(sender=None, number=1)
        swallow()
    memory.deliver()
    assert [kwargs["number"] for _, _, kwargs in receivers.calls] == ([] if durable else [1])


@pytest.mark.parametrize("code", [1213, 1020])
def test_mysql_and_mariadb_undo_all_by_these_errors(monkeypatch, code):
    error = OperationalError("gave way")
    assert not has_undone_all(connection, error)
    error.__cause__ = Exception(code, "gave way")
    monkeypatch.setattr(connection, "vendor", "mysql")
    assert has_undone_all(connection, error)
    error.__cause__ = Exception(1048, "a column cannot be null")
    assert not has_undone_all(connection, error)


@pytest.mark.parametrize("answer", [0, 1])
def test_a_lock_wait_timeout_undoes_all_where_the_server_says_so(answer):
    error = OperationalError("waited for too long")
    error.__cause__ = Exception(1205, "waited for too long")
    cursor = MagicMock()
    cursor.__enter__.return_value.fetchone.return_value = (answer,)
    found: Any = SimpleNamespace(vendor="mysql", cursor=lambda: cursor)
    assert has_undone_all(found, error) is bool(answer)


@ON_MYSQL
def test_by_default_a_lock_wait_timeout_undoes_one_statement():
    error = OperationalError("waited for too long")
    error.__cause__ = Exception(1205, "waited for too long")
    assert not has_undone_all(connection, error)
