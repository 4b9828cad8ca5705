"""The one Celery task, through which every delivery enters the worker."""

from __future__ import annotations

from typing import Any

from celery import Task, shared_task
from celery.exceptions import Reject

from .attempt import run
from .envelope import seal
from .exceptions import DeferredSignalsError

#: Stand where Celery would show a task's arguments, in events, logs and Flower.
REPRS: dict[str, Any] = {"argsrepr": "(<signed payload>)", "kwargsrepr": "{}"}


@shared_task(
    bind=True,
    name="deferred_signals.deliver",
    # A delivery whose worker is killed comes back, whatever the project's own defaults are.
    acks_late=True,
    reject_on_worker_lost=True,
    # The receiver's own options decide, see ``outcome``.
    max_retries=None,
    # Neither may a base Task of the project decide: what has ended dead must not be run again.
    autoretry_for=(),
    ignore_result=True,
    # It would be stored with the arguments (result_extended) before our code can take them out.
    track_started=False,
    serializer="json",
    # What is dead for our reasons is said in one line of our own, without a traceback of our code.
    throws=(DeferredSignalsError,),
)
def deliver(self: Task[..., Any], payload: str) -> str | None:
    """Run one payload and tell Celery how it ended: it returned, it is retried, or it failed."""
    request = self.request
    # What the message asks to be called next is not ours: only names in the registry are ever called.
    request.callbacks = request.errbacks = request.chain = request.chord = None
    # A result backend that stores the arguments gets what logs and events get.
    request.args = (REPRS["argsrepr"],)
    _, outcome = run(payload)
    if outcome.state == "retry":
        try:
            raise self.retry(
                args=(seal(outcome.text),),
                kwargs={},
                countdown=outcome.countdown,
                exc=outcome.error,
                throw=False,
                **REPRS,
            )
        except Reject as reject:
            # Celery would drop the message when its retry cannot be published; the original must come back instead.
            raise Reject(str(reject), requeue=True) from None
    if outcome.state == "dead":
        raise outcome.error  # type: ignore[misc]  # nothing dies without an error
    return None if outcome.state == "succeeded" else outcome.state
