"""The testing kit: deliveries through Celery to a worker that is a thread of this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from celery import Celery
from celery.app import app_or_default
from celery.contrib.testing.worker import start_worker
from celery.signals import setup_logging, task_postrun
from django.db import connections, transaction
from django.test import TestCase
from kombu.exceptions import OperationalError
from kombu.transport.memory import Transport

from deferred_signals import Signal, backends
from deferred_signals.signals import delivery_finished, delivery_published, delivery_unpublished
from deferred_signals.testing import celery_deliveries
from tests import receivers
from tests.shop.models import Customer

ordered, paid = Signal(), Signal()

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def celery_app(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    # Celery's worker would run Django's system checks, some of which ask the database.
    monkeypatch.setenv("CELERY_SKIP_CHECKS", "1")
    # So that it looks often whether it shall end.
    drain = Transport.drain_events
    monkeypatch.setattr(Transport, "drain_events", lambda self, connection, timeout=None: drain(self, connection, 0.02))
    before = app_or_default()
    app = Celery("project", set_as_current=False)
    app.conf.update(broker_url="memory://", task_default_queue=request.node.name)
    app.conf.broker_transport_options = {"polling_interval": 0.01}
    app.set_current()
    yield app
    before.set_current()


@pytest.fixture
def celery_worker(celery_app: Celery) -> Iterator[None]:
    setup_logging.connect(_no_logging)
    with start_worker(celery_app, pool="solo", perform_ping_check=False):
        yield
    setup_logging.disconnect(_no_logging)


def _no_logging(**kwargs: object) -> None:
    """Keep Celery from giving the root logger handlers."""


def test_the_end_of_the_block_is_when_all_is_delivered(link, calls, celery_worker):
    link(ordered, receivers.curious)
    link(paid, receivers.first)
    threads: list[int] = []

    def pay(**kwargs: object) -> None:
        threads.append(threading.get_ident())
        paid.send(None)

    receivers.inquiries.append(pay)
    with celery_deliveries() as deliveries:
        with transaction.atomic():
            ordered.send(None, number=1)
            assert deliveries.published == []
    assert [name for name, *_ in calls] == ["curious", "first"]
    assert threads != [threading.get_ident()]
    assert [one.receiver for one in deliveries.published] == ["tests.receivers.curious", "tests.receivers.first"]
    assert [end.state for end in deliveries.outcomes.values()] == ["succeeded"] * 2
    assert deliveries.running() == []


def test_a_row_that_is_committed_is_there(link, celery_worker):
    link(ordered, receivers.on_instance)
    with celery_deliveries() as deliveries:
        customer = Customer.objects.create(name="Ada")
        ordered.send(None, instance=customer)
        deliveries.wait()
        ((_, _, kwargs),) = receivers.calls
        assert kwargs["instance"] == customer


def test_the_workers_connections_are_closed(link, celery_worker):
    link(ordered, receivers.curious)
    opened: list[object] = []
    receivers.inquiries.append(lambda **_: opened.append(Customer.objects.count() or connections["default"]))
    closed: list[bool] = []

    def look(**kwargs: object) -> None:
        closed.extend(one.connection is None or one.vendor == "sqlite" for one in opened)  # type: ignore[attr-defined]

    with celery_deliveries():
        task_postrun.connect(look, weak=False)
        ordered.send(None)
    task_postrun.disconnect(look)
    assert len(opened) == 1
    assert all(closed)


def test_retries_are_waited_for(link, calls, celery_worker):
    link(ordered, receivers.troubled, retry_backoff=1, retry_backoff_max=0.001)
    receivers.troubles[:] = [LookupError("one")]
    with celery_deliveries():
        ordered.send(None)
    assert [kwargs["attempt"] for *_, kwargs in calls] == [1, 2]


def test_what_a_receiver_has_died_of_is_raised(link, celery_worker):
    link(ordered, receivers.troubled, max_retries=0)
    receivers.troubles[:] = [LookupError("gone")]
    with pytest.raises(LookupError, match="gone") as raised:
        with celery_deliveries():
            ordered.send(None)
    assert "So died the delivery" in raised.value.__notes__[0]


def test_once_and_not_again_at_the_end(link, celery_worker):
    link(ordered, receivers.troubled, max_retries=0)
    receivers.troubles[:] = [LookupError("gone")]
    with celery_deliveries() as deliveries:
        ordered.send(None)
        with pytest.raises(LookupError, match="gone"):
            deliveries.wait()


def test_or_only_told(link, celery_worker):
    link(ordered, receivers.troubled, max_retries=0)
    receivers.troubles[:] = [LookupError("gone")]
    with celery_deliveries(raises=False) as deliveries:
        ordered.send(None)
    assert [end.state for end in deliveries.outcomes.values()] == ["dead"]


def test_who_waits_in_vain_is_told_for_whom(link, celery_app):
    link(ordered, receivers.first, queue="nobody-consumes-this")
    with pytest.raises(AssertionError, match=r"^Not ended after 0\.01 s: tests\.receivers\.first\. Does the worker"):
        with celery_deliveries(timeout=0.01):
            ordered.send(None)


def test_what_could_not_be_published_is_not_waited_for(link, celery_app):
    celery_app.conf.broker_url = "redis://127.0.0.1:1/"
    link(ordered, receivers.first)
    with pytest.raises(OperationalError) as raised:
        with celery_deliveries():
            ordered.send(None)
    assert raised.value.__notes__[0].endswith("to tests.receivers.first: it could not be published")


def test_what_was_not_even_made_is_nothing_to_wait_for(link, celery_app):
    with celery_deliveries() as deliveries:
        delivery_unpublished.send(sender=None, delivery=None, error=ValueError())
        delivery_finished.send(sender=None, delivery=None, outcome=None)
    assert deliveries.published == []


def test_an_eager_app_runs_them_here(link, celery_app):
    celery_app.conf.task_always_eager = True
    link(ordered, receivers.curious)
    receivers.inquiries.append(lambda **_: Customer.objects.create(name="Ada"))
    with celery_deliveries():
        ordered.send(None)
        assert connections["default"].connection is not None
    assert Customer.objects.count() == 1


def test_nothing_is_left_behind(celery_app):
    with celery_deliveries():
        assert len(backends.base.stand_ins) == 1
        assert delivery_published.has_listeners()
    assert backends.base.stand_ins == []
    assert not delivery_published.has_listeners()


class InATestCase(TestCase):
    def test_nothing_is_published_which_is_said(self):
        with pytest.raises(AssertionError, match=r"^A transaction is open on default.*Use TransactionTestCase"):
            with celery_deliveries():
                pass
