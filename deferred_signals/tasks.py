"""The one Celery task, through which every delivery enters the worker."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from billiard.exceptions import Terminated
from celery import Task, shared_task
from celery.exceptions import (
    Reject,
    SoftTimeLimitExceeded,
    TaskPredicate,
    TimeLimitExceeded,
    WorkerLostError,
    WorkerShutdown,
    WorkerTerminate,
)
from kombu.pools import producers

from .attempt import run
from .calling import everything
from .envelope import seal
from .exceptions import (
    ConfigurationError,
    DecodeError,
    InstanceMissing,
    NotYetKnown,
    OpenError,
    ReceiverInterrupted,
    TooDeep,
    WorkerLost,
)
from .greenlets import is_for_the_greenlet

logger = logging.getLogger("deferred_signals")

#: Seconds until a delivery is tried again that came to a worker whose settings are wrong.
UNCONFIGURED_PAUSE = 60
#: Seconds between the tries to publish a retry; after the last of them the message is given back.
UNPUBLISHED_PAUSES = (1, 2, 4, 8)

#: Stand where Celery would show a task's arguments, in events, logs and Flower.
REPRS: dict[str, Any] = {"argsrepr": "(<signed payload>)", "kwargsrepr": "{}"}

#: Set in the request by ``worker_request``: the message came back to a worker before its time to run.
NOT_BEGUN = "deferred_signals_not_begun"

#: What Celery obeys when it comes out of a task, instead of taking it for a failure: it would end the worker, run the
#: task again, or say nothing. Of a receiver it means no more than that it has raised.
_OBEYED = (MemoryError, TaskPredicate, Terminated, TimeLimitExceeded, WorkerLostError)

#: Codes of the SystemExit that billiard raises in a child of the pool for a signal: 256 below zero, plus its number.
_STOPPED = range(-255, -255 + 64)

#: What deliveries rely on of our task; a check finds what a project's annotations change of it.
RELIED_ON: dict[str, Any] = {
    # A delivery whose worker is killed comes back, whatever the project's own defaults are.
    "acks_late": True,
    "reject_on_worker_lost": True,
    # Celery 5.7 can retry by itself what has lost its worker. That would neither be counted nor signed anew.
    "retry_on_worker_lost": False,
    # The receiver's own options decide, see ``outcome``.
    "max_retries": None,
    # Neither may a base Task of the project decide: what has ended dead must not be run again.
    "autoretry_for": (),
    "ignore_result": True,
    # It would be stored with the arguments (result_extended) before our code can take them out.
    "track_started": False,
    "serializer": "json",
    # Workers refuse what is compressed, and Celery drops without an outcome what has expired.
    "compression": None,
    "expires": None,
}
#: The same, of classes of ours.
OURS: dict[str, Any] = {
    "Request": "deferred_signals.worker_request:DeliveryRequest",
    "Strategy": "deferred_signals.worker_guard:guarded",
}


def _is_for_the_worker(error: BaseException) -> bool:
    """Whether what came out of a receiver was said to the worker by Celery or its pool, and is no receiver's."""
    stopped = isinstance(error, SystemExit) and error.code in _STOPPED
    return stopped or isinstance(error, WorkerShutdown | WorkerTerminate) or is_for_the_greenlet(error)


@shared_task(
    bind=True,
    name="deferred_signals.deliver",
    # What is dead for our reasons is said in one line of our own, without a traceback of our code.
    throws=(OpenError, DecodeError, NotYetKnown, InstanceMissing, TooDeep, WorkerLost),
    **RELIED_ON,
    **OURS,
)
def deliver(self: Task[..., Any], payload: str) -> str | None:
    """Run one payload and tell Celery how it ended: it returned, it is retried, or it failed."""
    request = self.request
    # What the message asks to be called next is not ours: only names in the registry are ever called.
    request.callbacks = request.errbacks = request.chain = request.chord = None
    # A result backend that stores the arguments gets what logs and events get.
    request.args = (REPRS["argsrepr"],)
    try:
        _, outcome = run(
            payload,
            redelivered=bool((request.delivery_info or {}).get("redelivered") and not request.get(NOT_BEGUN)),
            # With task_always_eager this is the sender's process.
            passes=everything if request.is_eager else _is_for_the_worker,
        )
    except ConfigurationError as error:
        if request.is_eager:
            raise
        # The settings of this worker are wrong, not the delivery: it waits for a worker whose settings are right.
        logger.error("A delivery waits, for this worker cannot run any: %s", error)  # noqa: TRY400 - no crash
        _again(self, payload, UNCONFIGURED_PAUSE, error)
    if outcome.state == "retry":
        _again(self, seal(outcome.text), outcome.countdown, outcome.error)
    if outcome.state == "dead":
        if isinstance(outcome.error, _OBEYED):
            raise ReceiverInterrupted(f"The receiver raised {type(outcome.error).__name__}.") from outcome.error
        raise outcome.error  # type: ignore[misc]  # nothing dies without an error
    return None if outcome.state == "succeeded" else outcome.state


def _again(task: Task[..., Any], payload: str, countdown: float, error: Exception | None) -> NoReturn:
    """Publish the message's successor, and have Celery acknowledge this one."""
    # Celery's delayed delivery, which quorum queues of RabbitMQ have, refuses what is less than a second.
    countdown = countdown if countdown >= 1 else round(countdown)
    rejected: Exception = SoftTimeLimitExceeded()
    # To give it back is the last resort: it comes at once, and a Redis that is out of memory cannot take that either,
    # which ends the worker.
    with suppress(SoftTimeLimitExceeded):
        for pause in (0, *UNPUBLISHED_PAUSES):
            time.sleep(pause)
            try:
                with _confirmed(task) as how:
                    raise task.retry(
                        args=(payload,), kwargs={}, countdown=countdown, exc=error, throw=False, **how, **REPRS
                    )
            except Reject as reject:
                rejected = reject
    # Celery would drop the message when its retry cannot be published; the original must come back instead.
    raise Reject(str(rejected), requeue=True) from None


@contextmanager
def _confirmed(task: Task[..., Any]) -> Iterator[dict[str, Any]]:
    """What a retry is published with: on RabbitMQ, a producer that waits until the broker has taken the message.

    Celery does not wait, and acknowledges the original over another connection. Under an alarm, or when the connection
    breaks, that one would be gone and the retry not there. ``confirm_publish`` of the project's own is left alone.
    """
    connection = task.app.connection_for_write()
    options = dict(connection.transport_options or {})
    if task.request.is_eager or "confirm_publish" in options or connection.transport.driver_name != "py-amqp":
        yield {}
        return
    connection.transport_options = {**options, "confirm_publish": True}
    # A pool of its own: Celery's own has the connections of what else this process publishes.
    with producers[connection].acquire(block=True) as producer:
        yield {"producer": producer}
