"""Around the run of a claimed delivery: the transaction that its receiver runs in, and what is written of its end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from django.db import Error as DatabaseDriverError
from django.db import connections, transaction
from django.db.transaction import TransactionManagementError

from deferred_signals import conf, registry
from deferred_signals.envelope import Envelope, seal
from deferred_signals.exceptions import LeaseLost, NotYetKnown
from deferred_signals.failpoints import reach
from deferred_signals.open_transactions import complaint, open_transactions, undo_all_but
from deferred_signals.outcome import Outcome, held_up
from deferred_signals.strict_json import parse

from .giving_way import has_given_way, has_undone_all
from .graveyard import report
from .lease import Claim
from .models import State
from .persistence import persist
from .row_fields import of_row

logger = logging.getLogger("deferred_signals")


class Custody:
    """Of the one run of a claim; see ``attempt.Custody``."""

    def __init__(self, held: Claim, envelope: Envelope) -> None:
        self.held = held
        self.envelope = envelope
        #: Whether the receiver's transaction has completed the row, or was rolled back since the row is another run's.
        self._is_settled = False
        #: What the receiver's transaction was begun over, and whether that has broken.
        self._session: Any = None
        self._is_broken = False
        #: Whether the database has undone it because of another one.
        self._is_undone = False
        try:
            # By what is signed, not by what stands in the table's columns.
            self.atomic = registry.get(envelope.receiver).options.atomic
        except NotYetKnown:
            self.atomic = False

    @contextmanager
    def around(self) -> Iterator[None]:
        """The transaction of receivers that are ``atomic``.

        Raises LeaseLost when the row is another run's by its end, TransactionManagementError when the receiver has
        left a transaction of its own open, in which nothing would be committed any more: not of the next receiver
        either.
        """
        connection = connections[self.held.alias]
        before = open_transactions()
        within: AbstractContextManager[None] = self._transaction() if self.atomic else nullcontext()
        try:
            with within:
                yield
        except DatabaseDriverError:
            # Django has closed it when it could not roll back. That cannot be seen any more when it has connected anew.
            self._is_broken = self.atomic and connection.connection is not self._session
            raise
        finally:
            left = undo_all_but(before)
            if left:
                self._is_settled = False
        if left:
            raise complaint(left)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with transaction.atomic(using=self.held.alias):
            connection = connections[self.held.alias]
            self._session = connection.connection
            with connection.execute_wrapper(self._watch):
                yield
            reach("worker.before_completion")
            if not self.held.complete():
                self._is_settled = True
                raise LeaseLost("its lease ran out and another run has it, so this run's writes are rolled back")
        self._is_settled = True
        reach("worker.after_completion")

    def _watch(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Around each statement of the receiver: it may swallow the error of one that has undone all before it."""
        try:
            return execute(sql, params, many, context)
        except DatabaseDriverError as error:
            if has_undone_all(context["connection"], error):
                self._is_undone = True
                context["connection"].set_rollback(True)
            raise

    def settle(self, end: Outcome) -> Outcome:
        """Write down how the run has ended; return how it has ended after all."""
        if self._is_settled:
            return end
        return settle(self.held, self._judged(end) if self.atomic else end)

    def _judged(self, end: Outcome) -> Outcome:
        """Of a run whose writes are all undone: what was not the receiver's fault, or what will not change."""
        if end.error is None or end.state == "discarded":
            return end
        window = conf.current().database_window
        if self._is_broken:
            return held_up(end.error, self.envelope, window, "the connection broke that its transaction was made over")
        if has_given_way(end.error) or (self._is_undone and isinstance(end.error, TransactionManagementError)):
            return held_up(end.error, self.envelope, window, "its transaction had to give way to another")
        if isinstance(end.error, RuntimeError) and str(end.error).startswith(_NESTED):
            reason = (
                "the receiver is connected with atomic=True, so it runs in a transaction, and opens "
                "transaction.atomic(durable=True), which must be the outermost. Leave one of the two out."
            )
            return Outcome("dead", end.error, reason)
        return end


#: How Django begins what it says of ``atomic(durable=True)`` within another block. It has no class of its own for it;
#: a test fails when the words change.
_NESTED = "A durable atomic block cannot be nested"


def settle(held: Claim, end: Outcome) -> Outcome:
    """Write down how a delivery has ended; return how it has ended after all.

    While the database is away it is tried for as long as a lease.
    """
    reach("worker.before_completion")
    what = f"How delivery {held.row.delivery_id} ended ({end.state})"
    return persist(lambda: _written(held, end), what, conf.current().lease) or end


def _written(held: Claim, end: Outcome) -> Outcome:
    if end.state == "retry":
        written = held.again(end.countdown, payload=seal(end.text), **_attempt(end), **report(end))
    elif end.state == "succeeded":
        written = held.complete()
    else:
        written = held.end(State(end.state), **report(end))
    if written:
        reach("worker.after_completion")
        return end
    if held.is_completed():
        # Committed, though its answer was lost, or a hook of the commit has raised.
        if end.error is not None:
            text = "Delivery %s is completed, and then: %r"
            logger.warning(text, held.row.delivery_id, end.error, extra=of_row(held.row, "succeeded"))
        return Outcome("succeeded")
    return overtaken(end)


def overtaken(end: Outcome) -> Outcome:
    """How a run has ended whose row is another run's by now."""
    reason = f"its lease ran out and another run has it; this one {end.state}"
    return Outcome("discarded", LeaseLost(reason), reason)


def _attempt(end: Outcome) -> dict[str, int]:
    """The column for the attempt that a retry will be; none if a newer release has other words for it."""
    attempt = parse(end.text).get("attempt", 1)
    return {"attempt": attempt} if type(attempt) is int and 0 < attempt < 2**31 else {}
