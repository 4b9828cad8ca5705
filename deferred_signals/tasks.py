"""The one Celery task, through which every delivery enters the worker."""

from __future__ import annotations

import logging
from typing import Any

from billiard.exceptions import Terminated
from celery import Task, shared_task
from celery.exceptions import (
    TaskPredicate,
    TimeLimitExceeded,
    WorkerLostError,
    WorkerShutdown,
    WorkerTerminate,
)

from . import successors
from .batch import is_batch
from .batch_run import run_all
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
from .outcome import summary
from .successors import REPRS as REPRS  # noqa: PLC0414 - a part of what the task is

logger = logging.getLogger("deferred_signals")

#: Seconds until a delivery is tried again that came to a worker whose settings are wrong.
UNCONFIGURED_PAUSE = 60
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
    came_back = bool((request.delivery_info or {}).get("redelivered") and not request.get(NOT_BEGUN))
    try:
        ended = run_all(
            payload,
            redelivered=came_back,
            # With task_always_eager this is the sender's process.
            passes=everything if request.is_eager else _is_for_the_worker,
            publish=None if request.is_eager else successors.of(self, request),
        )
    except ConfigurationError as error:
        if request.is_eager:
            raise
        # The settings of this worker are wrong, not the delivery: it waits for a worker whose settings are right.
        logger.error("A delivery waits, for this worker cannot run any: %s", error)  # noqa: TRY400 - no crash
        successors.again(self, payload, UNCONFIGURED_PAUSE, error)
    except Exception:
        if came_back or request.is_eager or not is_batch(payload):
            raise
        # A time limit of the project's own between two receivers, or an error of ours: as if the worker had been lost.
        logger.exception("A batch could not be run to its end, so its members are published anew, each by itself")
        ended = run_all(payload, redelivered=True)
    if is_batch(payload):
        retries = [run for run in ended if run[1].state == "retry"]
        successors.alone_or_not_at_all(self, request, [successors.retry_of(*run) for run in retries])
        outcome = summary([end for _, end in ended])
    else:
        [(_, outcome)] = ended
        if outcome.state == "retry":
            successors.again(self, seal(outcome.text), outcome.countdown, outcome.error)
    if outcome.state == "dead":
        if isinstance(outcome.error, _OBEYED):
            raise ReceiverInterrupted(f"The receiver raised {type(outcome.error).__name__}.") from outcome.error
        raise outcome.error  # type: ignore[misc]  # nothing dies without an error
    return None if outcome.state == "succeeded" else outcome.state
