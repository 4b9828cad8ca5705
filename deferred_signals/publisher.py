"""Between the send and the hand-over: at once, or after the commit of the right database."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import TransactionManagementError

from .delivery import Delivery
from .frames import Buffer
from .handover import hand_over

_buffers: WeakKeyDictionary[BaseDatabaseWrapper, Buffer] = WeakKeyDictionary()


def publish(delivery: Delivery, alias: str) -> Delivery:
    """Hand a delivery over after the commit on ``alias``, at once where no transaction is open; return it.

    Never raises for the broker. Raises TransactionManagementError where autocommit is off and nothing tells when the
    commit is.
    """
    connection = connections[alias]
    if connection.in_atomic_block:
        buffer = _buffers.get(connection)
        if buffer is None:
            buffer = _buffers[connection] = Buffer()
        return buffer.hold(delivery, connection)
    if connection.connection is not None and not connection.autocommit:
        raise TransactionManagementError(
            f"The delivery to {delivery.receiver} cannot wait for the commit on {alias!r}: autocommit is off. Use "
            "transaction.atomic(), or on_commit=False to publish at once."
        )
    hand_over([delivery])
    return delivery
