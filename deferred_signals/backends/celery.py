"""The backend that publishes Celery messages, by threads of its own that nobody waits for longer than allowed.

A publish can hang for as long as the broker likes (frozen, over its memory limit, behind a firewall that drops packets),
and no timeout of the client libraries bounds all of it. So each hand-over is done by a *lane*, a thread with a
connection of its own, and the caller waits as long as there is progress. A lane that makes none is left behind. The
connection is the lane's, so nothing of it is shared with other threads or, after a fork, with the parent process.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextvars import Context, copy_context
from queue import SimpleQueue
from typing import Any

from celery import Celery, current_app, current_task
from django.db import connections
from kombu.exceptions import OperationalError

from .. import conf
from ..delivery import Delivery
from ..exceptions import ConfigurationError, PublishError
from ..tasks import ARGSREPR, KWARGSREPR, deliver
from .base import Backend, Failure

#: A stale connection is replaced at once and a refused one tried again; the caller's patience bounds the whole.
RETRY_POLICY = {"max_retries": 3, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.3}


class Job:
    """One hand-over: deliveries in, failures out, progress visible to whoever waits."""

    def __init__(self, deliveries: Sequence[Delivery], ancestry: dict[str, Any]) -> None:
        self.deliveries = deliveries
        self.ancestry = ancestry
        self.context: Context = copy_context()
        self.failures: list[Failure] = []
        self.done = 0
        self.finished = threading.Event()
        self.abandoned = False
        self._claim = threading.Lock()

    def settle(self) -> bool:
        """Called once by either side, lane and caller: True for the one that comes first."""
        return self._claim.acquire(blocking=False)

    def wait(self, patience: float) -> bool:
        """Wait until it is finished, True, or until nothing has moved for ``patience`` seconds, False."""
        seen, since = 0, time.monotonic()
        while not self.finished.wait(patience / 4):
            if self.done != seen:
                seen, since = self.done, time.monotonic()
            elif time.monotonic() - since >= patience and self.settle():
                self.abandoned = True
                return False
        return True


class Lane:
    """A thread that publishes jobs over a broker connection of its own."""

    def __init__(self, app: Celery) -> None:
        # RabbitMQ confirms each message unless the project says otherwise: without, a broken connection loses them silently.
        options = {"confirm_publish": True, **app.conf.broker_transport_options}
        self.connection = app.connection_for_write(transport_options=options)
        self.producer = app.amqp.Producer(self.connection, auto_declare=False)
        self.jobs: SimpleQueue[Job | None] = SimpleQueue()
        threading.Thread(target=self._work, name="deferred_signals-publish", daemon=True).start()

    def _work(self) -> None:
        while (job := self.jobs.get()) is not None:
            # In the caller's context: instrumentation of Celery finds its trace and request there.
            job.context.run(self._publish, job)
            for connection in connections.all(initialized_only=True):
                connection.close()  # opened by a receiver of before_task_publish: nobody else would close it
            in_time = job.settle()
            job.finished.set()
            if not in_time:
                break
            del job
        self.connection.release()

    def _publish(self, job: Job) -> None:
        for delivery in job.deliveries:
            if job.abandoned:
                return
            try:
                self._publish_one(delivery, job.ancestry)
            except Exception as error:
                job.failures.append((delivery, error))
                if isinstance(error, OperationalError) and not self.connection.connected:
                    # The broker is away: the others would fail as slowly, one after another.
                    job.failures += [(other, error) for other in job.deliveries[job.done + 1 :]]
                    job.done = len(job.deliveries)
                    return
            job.done += 1

    def _publish_one(self, delivery: Delivery, ancestry: dict[str, Any]) -> None:
        deliver.apply_async(
            (delivery.payload,),
            task_id=delivery.id,
            producer=self.producer,
            shadow=delivery.receiver,
            argsrepr=ARGSREPR,
            kwargsrepr=KWARGSREPR,
            retry=True,
            retry_policy=RETRY_POLICY,
            add_to_parent=False,
            **ancestry,
            **delivery.options.message,
        )


class CeleryBackend(Backend):
    """Publishes through the current Celery app, its routes and its broker settings."""

    def __init__(self) -> None:
        self._free: deque[Lane] = deque()
        self._for: Any = None
        # For ever: a connection that is collected in a forked child shuts its parent's socket down.
        self._all: list[Lane] = []

    @property
    def inline(self) -> bool:
        """True with Celery's ``task_always_eager``."""
        return bool(_app().conf.task_always_eager)

    def check(self) -> None:
        """Raise ConfigurationError when this process has no Celery app of its project."""
        app = _app()
        # Celery makes up an app named "default" where none was made; its broker would be anybody's on localhost.
        if app.main == "default" and not app.conf.broker_url:
            raise ConfigurationError(
                "This process has no Celery app, so deliveries cannot be published. Create one as in Celery's 'First steps "
                "with Django' (proj/celery.py) and import it in your project's __init__.py: from .celery import app as "
                "celery_app. In tests you can set DEFERRED_SIGNALS = {'BACKEND': 'immediate'}."
            )

    def publish(self, deliveries: Sequence[Delivery]) -> list[Failure]:
        """Publish a message each; return those that the broker did not take in time."""
        app = _app()
        if app.conf.task_always_eager:
            return _run_eagerly(deliveries)
        lane = self._take(app)
        job = Job(deliveries, _ancestry())
        lane.jobs.put(job)
        patience = conf.current().publish_timeout
        if job.wait(patience):
            self._free.append(lane)
            return job.failures
        self._all.remove(lane)
        error = PublishError(f"The broker did not answer for {patience:g} s.")
        return [*job.failures, *((delivery, error) for delivery in deliveries[job.done :])]

    def _take(self, app: Celery) -> Lane:
        """A lane that is free, or a new one; not one of the parent process or of other broker settings."""
        key = (os.getpid(), app, app.conf.broker_write_url)
        if self._for != key:
            if self._for and self._for[0] == key[0]:
                for lane in self._free:
                    lane.jobs.put(None)
            self._free, self._for = deque(), key
        try:
            return self._free.pop()
        except IndexError:
            lane = Lane(app)
            self._all.append(lane)
            return lane


def _app() -> Celery:
    return current_app._get_current_object()  # type: ignore[no-any-return,attr-defined]  # documented, not in the stubs


def _run_eagerly(deliveries: Sequence[Delivery]) -> list[Failure]:
    """What ``task_always_eager`` asks for, in the caller's thread; with ``task_eager_propagates`` the first error."""
    errors = []
    for delivery in deliveries:
        try:
            deliver.apply_async((delivery.payload,), task_id=delivery.id, shadow=delivery.receiver)
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return []


def _ancestry() -> dict[str, Any]:
    """What Celery would write down of the task that is running here; in the lane's thread it could not see it."""
    if not current_task:
        return {}
    return {"root_id": current_task.request.root_id or current_task.request.id, "parent_id": current_task.request.id}
