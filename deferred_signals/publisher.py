"""Between the send and the hand-over: deliveries wait for the commit of their database and leave together.

Each savepoint frame of a transaction that has deliveries registers one commit hook, and the hook alone owns the
frame. When Django drops the hook, because the savepoint or the transaction was rolled back, the frame and its
deliveries are gone with it. The first hook that runs after a commit hands over all frames that are left, in send order.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

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
    """The deliveries of one savepoint frame; alive while its commit hook is."""

    __slots__ = ("__weakref__", "buffer", "deliveries")

    def __init__(self, buffer: Buffer | None) -> None:
        self.buffer = buffer
        self.deliveries: list[tuple[int, Delivery]] = []

    def on_commit(self) -> None:
        """The commit hook: hand over all that is left of the transaction; in a TestCase only what it is for."""
        frames = [self] if self.buffer is None else self.buffer.take()
        waiting = [entry for frame in frames for entry in frame.deliveries]
        self.deliveries = []
        if waiting:
            waiting.sort(key=lambda entry: entry[0])
            hand_over([delivery for _, delivery in waiting])


class Buffer:
    """The frames of one database connection, found by their place in its transaction."""

    def __init__(self) -> None:
        self.frames: WeakValueDictionary[Any, Frame] = WeakValueDictionary()

    def hold(self, delivery: Delivery, connection: BaseDatabaseWrapper) -> None:
        """Keep a delivery until the transaction that is open on the connection commits."""
        place = _place(connection)
        frame = None if place is None else self.frames.get(place)
        if frame is None:
            frame = Frame(None if place is None else self)
            connection.on_commit(frame.on_commit)
            if place is not None:
                self.frames[place] = frame
        frame.deliveries.append((next(_order), delivery))

    def take(self) -> list[Frame]:
        """The frames that are left, which are not found again: what is sent from now on is of another transaction."""
        frames = list(self.frames.values())
        self.frames.clear()
        return frames


def _place(connection: BaseDatabaseWrapper) -> Any:
    """What tells the present savepoint frame of this transaction from others; None in a TestCase.

    Uses three attributes of the connection that Django does not document (test_publisher fails when they move),
    because nothing public tells savepoints and transactions apart. ``run_on_commit`` is another list in every
    transaction, so that a hook which opens a transaction of its own does not find the frames of the one before. Inside
    a TestCase each delivery gets its own hook, for ``captureOnCommitCallbacks`` must see it.
    """
    if connection.atomic_blocks and getattr(connection.atomic_blocks[0], "_from_testcase", False):
        return None
    return (id(connection.run_on_commit), *(sid for sid in connection.savepoint_ids if sid is not None))


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
