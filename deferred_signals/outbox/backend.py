"""The outbox as the core sees it: rows in the database that the sender writes to anyway."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from django.core.exceptions import SynchronousOnlyOperation
from django.db import Error as DatabaseDriverError
from django.db import connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from deferred_signals import conf
from deferred_signals.bell import Bell
from deferred_signals.calling import Passes
from deferred_signals.delivery import Delivery
from deferred_signals.exceptions import ConfigurationError
from deferred_signals.failpoints import reach
from deferred_signals.handover import named
from deferred_signals.keeping import Failure, Outbox, Run
from deferred_signals.log_lines import several
from deferred_signals.outage import database_is_away
from deferred_signals.outcome import Outcome

from .answering import answer
from .beside import write_beside
from .bulk import batch_on
from .graveyard import bury
from .models import Origin, OutboxDelivery, State
from .notifying import is_on, notify
from .ringing import bells_for, hand_to_the_relay, route_of
from .rows import Row, id_of, insert, remove, row_of
from .tables import has_table

logger = logging.getLogger("deferred_signals")


class DatabaseOutbox(Outbox):
    """Keeps deliveries in the table of ``models.OutboxDelivery``, one table for each alias."""

    def __init__(self) -> None:
        self._there: set[str] = set()

    def check(self, alias: str) -> None:
        """Raise ConfigurationError when the alias has no table."""
        if alias in self._there:
            return
        if not has_table(alias):
            raise ConfigurationError(
                f"The database {alias!r} has no table for durable deliveries. Run manage.py migrate --database={alias} "
                "deferred_signals_outbox, and let your database routers allow it. A receiver that is called before "
                "there can be one, as by pre_migrate, needs durable=False."
            )
        self._there.add(alias)

    def write(self, delivery: Delivery, connection: BaseDatabaseWrapper, *, instead: str | None = None) -> str | None:
        """Write the row, or write it anew if it has the payload ``instead``. Raises the database's error."""
        reach("sender.before_row")
        row = row_of(connection, delivery)
        payload = row.payload
        batch, is_written = batch_on(connection), False
        # For its keys it has the place, and the time, of the last send.
        has_keys = delivery.options.has_keys
        if instead is not None and (batch is None or delivery.id not in batch.rows):
            # What a rollback to a savepoint by hand has undone, only the database knows.
            rows = OutboxDelivery.objects.using(connection.alias)
            there = rows.filter(delivery_id=id_of(delivery.id), payload=instead, state=State.PENDING)
            if not (remove(connection, there) if has_keys else there.update(payload=payload)):
                return None
            is_written = not has_keys
        if batch is not None and not is_written:
            batch.add(delivery.id, row, len(payload), _insert, at_end=has_keys)
        elif not is_written:
            _insert(connection, [row])
        reach("sender.after_row")
        return payload

    def bells(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """One for each route and hundred deliveries; none for what waits (``countdown``), or is the relay's to ring."""
        groups: dict[tuple[str, str], list[Delivery]] = {}
        found: dict[tuple[str, int], list[Delivery]] = {}
        for delivery in deliveries:
            options, alias = delivery.options, str(delivery.kept)
            group = found.get((alias, id(options)))
            if group is None:
                waits = options.countdown or options.debounce or is_on(connections[alias])
                group = [] if waits else groups.setdefault((alias, route_of(options)), [])
                found[alias, id(options)] = group
            group.append(delivery)
        for alias in {alias for alias, _ in groups}:
            # Only where a test has a hook called that has not committed.
            if (batch := batch_on(connections[alias])) is not None:
                batch.flush()
        return [
            bell
            for (alias, _), group in groups.items()
            for bell in bells_for(alias, {one.id: one.receiver for one in group}, group[0].options)
        ]

    def unrung(self, deliveries: Sequence[Delivery]) -> None:
        """Have the relay ring for these as soon as it can, and not only when the sender's time is over."""
        for alias in {str(one.kept) for one in deliveries}:
            try:
                if connections[alias].get_autocommit():
                    hand_to_the_relay(alias, [one.id for one in deliveries if one.kept == alias])
            except Exception:
                logger.debug("The relay rings for some on %r only after RING_AGAIN", alias, exc_info=True)

    def answer(self, bell: Bell, passes: Passes) -> list[Run]:
        """Claim and run the rows that may be run."""
        return answer(bell, passes)

    def spill(self, failures: Sequence[Failure], alias: str) -> list[Failure]:
        """Keep what could not be published, on that alias or where the project's routers say.

        Not on the alias if a transaction is open there: it was sent with ``on_commit=False``, and its sender is told.
        """
        try:
            is_kept = self._spill(failures, alias)
        except Exception:
            lost = [delivery for delivery, _ in failures]
            logger.exception("Deliveries could neither be published nor be kept", extra=several(lost, "unpublished"))
            return list(failures)
        if not is_kept:
            return list(failures)
        error = failures[-1][1]
        logger.warning(
            "Could not be published, and are kept until the relay can ring for them: %s. The last error: %s: %s",
            named([delivery for delivery, _ in failures]),
            type(error).__name__,
            error,
            extra=several([delivery for delivery, _ in failures], "kept", error),
        )
        return []

    def _spill(self, failures: Sequence[Failure], alias: str) -> bool:
        def write(connection: BaseDatabaseWrapper) -> None:
            insert(connection, [row_of(connection, delivery, Origin.SPILLED) for delivery, _ in failures])

        try:
            home = alias if self._has_table(alias) else router.db_for_write(OutboxDelivery)
            connection = connections[home]
            if connection.get_autocommit() or _is_a_test(connection, nested=home != alias):
                self.check(home)
                with transaction.atomic(using=home):  # all or none, or some would be kept and told to be lost
                    write(connection)
                return True
            if home == alias:
                return False
        except SynchronousOnlyOperation:
            logger.debug("What is kept is written in a thread, for the sender is a coroutine")
        write_beside(lambda: self._alias_with_table(alias), write, conf.current().publish_timeout)
        return True

    def bury(self, payload: str, delivery: Delivery | None, end: Outcome) -> None:
        """Keep a dead delivery in the outbox of the alias to which the project routes it."""
        try:
            try:
                bury(self._alias_with_table(None), payload, delivery, end)
            except DatabaseDriverError:
                if not database_is_away():
                    raise
                bury(self._alias_with_table(None), payload, delivery, end)  # over a connection that is made anew
        except (DatabaseDriverError, ConfigurationError) as error:
            logger.error("A dead delivery could not be kept: %s: %s", type(error).__name__, error)  # noqa: TRY400 - no crash
        except Exception:
            logger.exception("A dead delivery could not be kept")

    def _alias_with_table(self, alias: str | None) -> str:
        if alias is None or not self._has_table(alias):
            alias = router.db_for_write(OutboxDelivery)
            self.check(alias)
        return alias

    def _has_table(self, alias: str) -> bool:
        try:
            self.check(alias)
        except ConfigurationError:
            return False
        return True


def _insert(connection: BaseDatabaseWrapper, rows: Sequence[Row]) -> None:
    """Write durable rows, and wake the relay at the commit where it is the one that rings."""
    insert(connection, rows)
    notify(connection)


def _is_a_test(connection: Any, *, nested: bool) -> bool:
    """Whether the transaction is that of a TestCase, or ``nested`` in it: nothing must be written beside that."""
    blocks = connection.atomic_blocks if nested else connection.atomic_blocks[-1:]
    return any(getattr(block, "_from_testcase", False) for block in blocks)
