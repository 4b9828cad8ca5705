"""Between the send and the hand-over: deliveries wait for the commit of their database and leave together.

Each savepoint frame of a transaction that has deliveries registers one commit hook. Whether a frame has committed is
read off the one place where Django says so, its list of hooks: a rollback takes hooks out of it, a commit takes them
from it one by one. The first hook that runs hands over the frames of all that are left there, in send order.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import TransactionManagementError

from . import backends
from .delivery import Delivery
from .exceptions import PublishError
from .signals import announce, delivery_published, delivery_unpublished

logger = logging.getLogger("deferred_signals")

_order = itertools.count()


class Frame:
    """The deliveries of one savepoint frame, and the list in which its commit hook stands (None in a TestCase)."""

    __slots__ = ("deliveries", "hooks", "place")

    def __init__(self, place: Any, hooks: list[Any] | None) -> None:
        self.place = place
        self.hooks = hooks
        self.deliveries: list[tuple[int, Delivery]] = []

    def on_commit(self) -> None:
        """The commit hook."""
        if not self.deliveries:
            return  # an earlier one has handed them over; looking through the list for each would be quadratic
        frames = [self]
        others = frames_in(self.hooks or [])
        # Django has taken this hook out of the list: it is committing, and what is left in the list commits too. A hook
        # that still stands in it was called by somebody else (captureOnCommitCallbacks), or from the list that Django
        # made when a savepoint was rolled back: then this frame is all that is known to be committed.
        if self not in others:
            frames += others
        waiting = [entry for frame in frames for entry in frame.deliveries]
        for frame in frames:
            frame.deliveries = []
        waiting.sort(key=lambda entry: entry[0])
        hand_over([delivery for _, delivery in waiting])


def frames_in(hooks: list[Any]) -> list[Frame]:
    """The frames whose hooks stand in one of Django's lists, whatever else its entries hold."""
    owners = (getattr(part, "__self__", None) for entry in hooks for part in entry)
    return [owner for owner in owners if isinstance(owner, Frame)]


class Buffer:
    """The frames of the transaction that is open on one database connection, by their place in it."""

    def __init__(self) -> None:
        self.hooks: list[Any] | None = None
        self.frames: dict[Any, Frame] = {}

    def hold(self, delivery: Delivery, connection: BaseDatabaseWrapper) -> None:
        """Keep a delivery until the transaction that is open on the connection commits.

        Uses three attributes of the connection that Django does not document (test_publisher fails when they move),
        because nothing public tells savepoints and transactions apart.
        """
        if connection.atomic_blocks and getattr(connection.atomic_blocks[0], "_from_testcase", False):
            # The transaction of a TestCase never commits. Each delivery gets a hook, for captureOnCommitCallbacks shows
            # a test those that were registered inside its block.
            frame = Frame(None, None)
            connection.on_commit(frame.on_commit)
        else:
            if self.hooks is not connection.run_on_commit:
                # Another transaction, or the list that Django made when a savepoint was rolled back.
                self.hooks = connection.run_on_commit
                self.frames = {frame.place: frame for frame in frames_in(self.hooks)}
                for frame in self.frames.values():
                    frame.hooks = self.hooks
            place = tuple(sid for sid in connection.savepoint_ids if sid is not None)
            found = self.frames.get(place)
            if found is None:
                found = self.frames[place] = Frame(place, self.hooks)
                connection.on_commit(found.on_commit)
            frame = found
        frame.deliveries.append((next(_order), delivery))


_buffers: WeakKeyDictionary[BaseDatabaseWrapper, Buffer] = WeakKeyDictionary()


def publish(delivery: Delivery, alias: str) -> None:
    """Hand a delivery over after the commit on ``alias``, at once where no transaction is open.

    Never raises for the broker. Raises TransactionManagementError where autocommit is off and nothing tells when the
    commit is.
    """
    connection = connections[alias]
    if connection.in_atomic_block:
        buffer = _buffers.get(connection)
        if buffer is None:
            buffer = _buffers[connection] = Buffer()
        buffer.hold(delivery, connection)
    elif connection.connection is not None and not connection.autocommit:
        raise TransactionManagementError(
            f"The delivery to {delivery.receiver} cannot wait for the commit on {alias!r}: autocommit is off. Use "
            "transaction.atomic(), or on_commit=False to publish at once."
        )
    else:
        hand_over([delivery])


def publish_at_once(delivery: Delivery) -> None:
    """Hand a delivery over without waiting for a commit. Raises PublishError when the broker does not take it."""
    failures = hand_over([delivery])
    if failures:
        raise PublishError(f"The delivery to {delivery.receiver} could not be published.") from failures[0][1]


def hand_over(deliveries: Sequence[Delivery]) -> list[backends.Failure]:
    """Give deliveries to the backend and tell observers; what could not be handed over is logged and returned."""
    backend = backends.current()
    try:
        failures = backend.publish(deliveries)
    except backend.interruptions:
        raise
    except Exception as raised:
        # After the commit nothing may reach the caller, whatever a backend does; where it runs the receivers itself and
        # the project asked for their exceptions (Celery's task_eager_propagates), they are the caller's.
        if backend.inline:
            raise
        failures = [(delivery, raised) for delivery in deliveries]
    failed = {id(delivery) for delivery, _ in failures}
    for delivery in deliveries:
        if id(delivery) not in failed:
            announce(delivery_published, delivery.function, delivery=delivery)
    if failures:
        _log(failures)
        for delivery, error in failures:
            announce(delivery_unpublished, delivery.function, delivery=delivery, error=error)
    return failures


def _log(failures: Sequence[backends.Failure]) -> None:
    receivers = Counter(delivery.receiver for delivery, _ in failures)
    logger.error(
        "Could not be published, and lost unless a receiver of delivery_unpublished keeps them: deliveries to %s. "
        "The last error: %s: %s",
        ", ".join(f"{name} ({count})" for name, count in receivers.items()),
        type(failures[-1][1]).__name__,
        failures[-1][1],
    )
