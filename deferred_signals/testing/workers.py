"""Deliveries through Celery to a worker in a thread of this process, and waiting for them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery.signals import task_postrun
from django.db import connections
from django.dispatch import Signal

from ..backends.base import StandIn, stand_ins
from ..backends.celery import CeleryBackend
from ..delivery import Delivery
from ..outcome import Outcome
from ..signals import delivery_finished, delivery_published, delivery_unpublished

#: Seconds that a test waits for its deliveries.
TIMEOUT = 10.0


class ThroughCelery(CeleryBackend, StandIn):
    """The backend that the project has at work, whatever the settings of its tests say."""

    def after_send(self) -> None:
        """Do nothing: a real commit is waited for."""


class WorkerDeliveries:
    """What was published since the block began, and how it has ended on the worker."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.published: list[Delivery] = []
        #: How each delivery has ended that has, by its id.
        self.outcomes: dict[str, Outcome] = {}
        self._raised: set[str] = set()
        self._changed = threading.Condition()
        self._thread = threading.get_ident()

    def _on_published(self, delivery: Delivery, **kwargs: Any) -> None:
        with self._changed:
            self.published.append(delivery)

    def _on_unpublished(self, delivery: Delivery | None, error: Exception, **kwargs: Any) -> None:
        if delivery is not None:
            with self._changed:
                self.published.append(delivery)
                self.outcomes[delivery.id] = Outcome("dead", error, "it could not be published")

    def _on_finished(self, delivery: Delivery | None, outcome: Outcome, **kwargs: Any) -> None:
        if delivery is not None and outcome.state != "retry":
            with self._changed:
                self.outcomes[delivery.id] = outcome
                self._changed.notify_all()

    def _on_postrun(self, **kwargs: Any) -> None:
        """Close what the worker's thread has opened: the test database could not be removed."""
        if threading.get_ident() != self._thread:
            for connection in connections.all(initialized_only=True):
                connection.close()

    def running(self) -> list[Delivery]:
        """Those that have not ended."""
        with self._changed:
            return [one for one in self.published if one.id not in self.outcomes]

    def wait(self, timeout: float | None = None, *, raises: bool = True) -> None:
        """Wait until all have ended, also those that were sent on the worker; raise what a dead one has died of.

        Raises AssertionError when that takes too long, or when the transaction is open in which they were sent.
        """
        timeout = self.timeout if timeout is None else timeout
        if open_on := [one.alias for one in connections.all(initialized_only=True) if one.in_atomic_block]:
            raise AssertionError(
                f"A transaction is open on {', '.join(open_on)}, so its deliveries are not published, and a worker "
                "does not see its rows. Use TransactionTestCase, or @pytest.mark.django_db(transaction=True)."
            )
        with self._changed:
            done = self._changed.wait_for(lambda: all(one.id in self.outcomes for one in self.published), timeout)
        if not done:
            names = ", ".join(one.receiver for one in self.running())
            raise AssertionError(f"Not ended after {timeout} s: {names}. Does the worker consume their queues?")
        for one in self.published:
            end = self.outcomes[one.id]
            if raises and end.state == "dead" and end.error is not None and one.id not in self._raised:
                self._raised.add(one.id)  # once, and not again at the end of the block
                end.error.add_note(f"So died the delivery {one.id} to {one.receiver}: {end.reason}")
                raise end.error


@contextmanager
def celery_deliveries(*, timeout: float = TIMEOUT, raises: bool = True) -> Iterator[WorkerDeliveries]:
    """Publish through the current Celery app in this block, and wait at its end for the worker that is a thread here.

    It is the one of ``celery.contrib.pytest`` (``celery_worker``) or ``celery.contrib.testing.worker.start_worker``.
    """
    deliveries, backend = WorkerDeliveries(timeout), ThroughCelery()
    observers: dict[Signal, Any] = {
        delivery_published: deliveries._on_published,  # noqa: SLF001
        delivery_unpublished: deliveries._on_unpublished,  # noqa: SLF001
        delivery_finished: deliveries._on_finished,  # noqa: SLF001
    }
    for signal, observer in observers.items():
        signal.connect(observer, weak=False)
    task_postrun.connect(deliveries._on_postrun, weak=False)  # noqa: SLF001
    stand_ins.append(backend)
    try:
        yield deliveries
        deliveries.wait(raises=raises)
    finally:
        stand_ins.remove(backend)
        task_postrun.disconnect(deliveries._on_postrun)  # noqa: SLF001
        for signal, observer in observers.items():
            signal.disconnect(observer)
