"""Between the send and the hand-over: at once, or after the commit of the right database."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from weakref import WeakKeyDictionary

from django.core.exceptions import SynchronousOnlyOperation
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import TransactionManagementError

from . import conf, keeping
from .coalescing import merged
from .delivery import Delivery
from .frame import Frame
from .frames import Buffer
from .handover import hand_over

logger = logging.getLogger("deferred_signals")

_buffers: WeakKeyDictionary[BaseDatabaseWrapper, Buffer] = WeakKeyDictionary()


class _Last(threading.local):
    """The connection over which this thread has sent last in a transaction, and its buffer."""

    held: tuple[BaseDatabaseWrapper, Buffer] | None = None


_last = _Last()


#: Receivers of which it was said that their durable deliveries are sent outside a transaction.
_warned: set[str] = set()


def publish(delivery: Delivery, connection: BaseDatabaseWrapper, *, durable: bool = False) -> Delivery:
    """Hand a delivery over after the commit on ``connection``, at once where no transaction is open; return it.

    A durable one is written to the outbox first, over the sender's connection. Never raises for the broker. Raises
    TransactionManagementError where autocommit is off and nothing tells when the commit is, or where a durable delivery
    is sent outside a transaction and ``OUTSIDE_TRANSACTION`` is ``"raise"``.
    """
    alias = connection.alias
    if connection.in_atomic_block:
        buffer = _buffer_of(connection)
        if durable:
            # With autocommit off a block ends without a commit, and nothing tells of that: what was written before may
            # be a worker's by now.
            may_change = connection.commit_on_exit
            delivery = _write(delivery, connection, buffer.earlier(delivery, connection) if may_change else None)
        return buffer.hold(delivery, connection)
    manual = connection.connection is not None and not connection.autocommit
    if durable:
        if not manual:
            _mind(delivery, alias)
        delivery = _write(delivery, connection, None)
    elif manual:
        raise TransactionManagementError(
            f"The delivery to {delivery.receiver} cannot wait for the commit on {alias!r}: autocommit is off. Use "
            "transaction.atomic(), or on_commit=False to publish at once."
        )
    if not manual:  # else nothing tells of the commit, and the relay finds the row
        hand_over([delivery], alias)
    return delivery


def _buffer_of(connection: BaseDatabaseWrapper) -> Buffer:
    held = _last.held
    if held is not None and held[0] is connection:
        return held[1]
    buffer = _buffers.get(connection)
    if buffer is None:
        buffer = _buffers[connection] = Buffer(connection.alias)
    _last.held = connection, buffer
    return buffer


def divide() -> list[Frame]:
    """Have later deliveries wait apart from those that wait now, and return the frames of these.

    For tests: a transaction that was open before them stays open.
    """
    return [frame for buffer in list(_buffers.values()) for frame in buffer.divide()]


def check_durable(receiver: str, connection: BaseDatabaseWrapper) -> None:
    """Raise what speaks against a durable delivery over this connection.

    ConfigurationError without the outbox or its table, SynchronousOnlyOperation in a coroutine, the database's error.
    """
    outbox = keeping.required()
    try:
        connection.ensure_connection()
        outbox.check(connection.alias)
    except SynchronousOnlyOperation:
        raise SynchronousOnlyOperation(
            f"The delivery to {receiver} is durable, so send() writes to the database, which cannot be done in a "
            "coroutine. Use asend(), or sync_to_async() around the transaction and the send in it."
        ) from None


def _write(delivery: Delivery, connection: BaseDatabaseWrapper, earlier: Delivery | None) -> Delivery:
    """Write a delivery to the outbox; in the place of an earlier one, if both are one."""
    outbox = keeping.required()
    if (
        earlier is not None
        and (both := merged(earlier, delivery)) is not None
        and (row := outbox.write(both, connection, instead=earlier.row)) is not None
    ):
        return replace(both, kept=connection.alias, row=row)
    row = outbox.write(delivery, connection)
    if delivery.subject is not None:
        return replace(delivery, kept=connection.alias, row=row or "")
    delivery.keep(connection.alias)
    return delivery


def _mind(delivery: Delivery, alias: str) -> None:
    """Say that a durable delivery cannot be atomic with what it tells of."""
    said = conf.current().outside_transaction
    if said == "ignore":
        return
    text = (
        f"The durable delivery to {delivery.receiver} is sent outside a transaction on {alias!r}, so what it tells of "
        "is committed already: a crash between the two loses it. Wrap both in transaction.atomic() (or set "
        "ATOMIC_REQUESTS), or set DEFERRED_SIGNALS['OUTSIDE_TRANSACTION']."
    )
    if said == "raise":
        raise TransactionManagementError(text)
    if delivery.receiver not in _warned:
        _warned.add(delivery.receiver)
        logger.warning("%s This is said once for each receiver.", text)
