"""What a worker publishes in the place of a message: its retry; of a batch, members alone, or what is left of it.

A message is acknowledged only when the broker has its successors.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple, NoReturn

from celery import Task
from celery.exceptions import Reject, SoftTimeLimitExceeded
from kombu.pools import producers

from . import batch, registry
from .batch_run import Member, Publish
from .delivery import Delivery
from .envelope import Envelope, seal
from .exceptions import NotYetKnown
from .outcome import Outcome

logger = logging.getLogger("deferred_signals")

#: Seconds between the tries to publish a retry; after the last of them the message is given back.
UNPUBLISHED_PAUSES = (1, 2, 4, 8)

#: Stand where Celery would show a task's arguments, in events, logs and Flower.
REPRS: dict[str, Any] = {"argsrepr": "(<signed payload>)", "kwargsrepr": "{}"}


class Successor(NamedTuple):
    """A message of its own for a member of a batch: ``text`` is not yet signed."""

    text: str
    key: str
    receiver: str
    signal: str | None = None
    countdown: float = 0


def retry_of(delivery: Delivery | None, outcome: Outcome) -> Successor:
    """The successor of a member that is retried; of one that could not be read there is no more than its text."""
    if delivery is None:
        return Successor(outcome.text, str(uuid.uuid4()), "", countdown=outcome.countdown)
    return Successor(outcome.text, delivery.id, delivery.receiver, delivery.signal, outcome.countdown)


def member(envelope: Envelope, text: str) -> Successor:
    """The successor of a member that was not run."""
    return Successor(text, envelope.id, envelope.receiver, envelope.signal)


def of(task: Task[..., Any], request: Any) -> Publish:
    """What a batch, whose message is ``request``, may publish in its place."""
    return Publish(partial(_together, task, request), partial(_alone, task, request))


def _together(task: Task[..., Any], request: Any, members: Sequence[Member]) -> bool:
    """Publish members as a batch; False if the broker does not take it."""
    receiver = members[0].envelope.receiver
    whole = Successor(
        batch.rest_of([one.data for one in members]), str(uuid.uuid4()), f"{receiver} ({len(members)} deliveries)"
    )
    return not _publish(task, request, [whole], request.timelimit)


def _alone(task: Task[..., Any], request: Any, members: Sequence[Member]) -> bool:
    return not _publish(task, request, [member(one.envelope, one.text) for one in members])


def alone_or_not_at_all(task: Task[..., Any], request: Any, successors: Sequence[Successor]) -> None:
    """Publish members each by itself. Raises Reject, which gives the message back, if the broker does not take them."""
    left = [*successors]
    with suppress(SoftTimeLimitExceeded):
        for pause in (0, *UNPUBLISHED_PAUSES):
            if left:
                time.sleep(pause)
                left = _publish(task, request, left)
            if not left:
                return
    # Those that have left already, and those that have succeeded, run once more.
    raise Reject("members of a batch could not be published", requeue=True)


def _publish(
    task: Task[..., Any], request: Any, successors: Sequence[Successor], timelimit: Any = None
) -> list[Successor]:
    """Publish messages on the route of the one that is there; return those that the broker did not take."""
    left = [*successors]
    try:
        with confirmed(task) as how:
            while left:
                one = left[0]
                hard, soft = timelimit or _limits_of(one)
                task.signature_from_request(
                    request,
                    (seal(one.text),),
                    {},
                    task_id=one.key,
                    shadow=one.receiver or request.shadow,
                    countdown=_whole(one.countdown),
                    time_limit=hard,
                    soft_time_limit=soft,
                    retries=0,
                ).apply_async(add_to_parent=False, **how, **REPRS)
                del left[0]
    except SoftTimeLimitExceeded:
        raise
    except Exception as error:  # noqa: BLE001 - whoever asks decides what becomes of the message
        logger.warning("Members of a batch could not be published: %s: %s", type(error).__name__, error)
    return left


def _limits_of(successor: Successor) -> tuple[float | None, float | None]:
    try:
        options = registry.get(successor.receiver).options_for(successor.signal)
    except NotYetKnown:
        return None, None
    return options.time_limit, options.soft_time_limit


def again(task: Task[..., Any], payload: str, countdown: float, error: Exception | None) -> NoReturn:
    """Publish the message's successor, and have Celery acknowledge this one."""
    countdown = _whole(countdown)
    rejected: Exception = SoftTimeLimitExceeded()
    # To give it back is the last resort: it comes at once, and a Redis that is out of memory cannot take that either,
    # which ends the worker.
    with suppress(SoftTimeLimitExceeded):
        for pause in (0, *UNPUBLISHED_PAUSES):
            time.sleep(pause)
            try:
                with confirmed(task) as how:
                    raise task.retry(
                        args=(payload,), kwargs={}, countdown=countdown, exc=error, throw=False, **how, **REPRS
                    )
            except Reject as reject:
                rejected = reject
    # Celery would drop the message when its retry cannot be published; the original must come back instead.
    raise Reject(str(rejected), requeue=True) from None


@contextmanager
def confirmed(task: Task[..., Any]) -> Iterator[dict[str, Any]]:
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


def _whole(countdown: float) -> float:
    # Celery's delayed delivery, which quorum queues of RabbitMQ have, refuses what is less than a second.
    return countdown if countdown >= 1 else round(countdown)
