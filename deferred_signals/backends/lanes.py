"""Hand-overs to the broker that nobody waits for longer than allowed.

A publish can hang for as long as the broker likes (frozen, over its memory limit, behind a firewall that drops
packets), and no timeout of the client libraries bounds all of it. So each hand-over is done by a *lane*, a thread with
a connection of its own, and the caller waits as long as there is progress. A lane that makes none is left behind. The
connection is the lane's, so nothing of it is shared with other threads or, after a fork, with the parent process.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import cast

from celery import Celery
from django.db import connections
from kombu.exceptions import OperationalError

from ..delivery import Delivery
from ..exceptions import PublishError
from .broker import RETRIES, begin_with_one_that_answers, connect
from .confirms import Unroutable
from .flush import Flush
from .messenger import Messenger

#: Connections that may break under one message, before it is the message's fault.
CONNECTIONS = 3
#: Messages of one flush that may break them, before it is the broker's fault.
STRIKES = 2
#: Seconds until a lane that was left behind gives up itself: so many times the caller's patience, and at least.
TIMES, AT_LEAST = 2.0, 5.0


class NoConnection(Exception):
    """The broker cannot be had at all, so the deliveries that follow would fail alike; ``__cause__`` says why."""


class Lane:
    """A thread that publishes flushes over a broker connection of its own."""

    def __init__(self, app: Celery, patience: float) -> None:
        self.app = app
        self.connection = connect(app, max(TIMES * patience, AT_LEAST))
        self.messenger = Messenger(app, self.connection)
        #: What leaves nothing known of a connection, or of a channel.
        self.breaking: tuple[type[BaseException], ...] = (
            OperationalError,
            *self.connection.connection_errors,
            *self.connection.channel_errors,
        )
        self.flushes: SimpleQueue[Flush | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._work, name="deferred_signals-publish", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        while (flush := self.flushes.get()) is not None:
            # In the caller's context: instrumentation of Celery finds its trace and request there.
            flush.context.run(self._publish, flush)
            for connection in connections.all(initialized_only=True):
                connection.close()  # opened by a receiver of before_task_publish: nobody else would close it
            in_time = flush.settle()
            flush.finish()
            if not in_time:
                self.connection.collect()  # to close it politely takes an answer
                return
            if flush.failures:
                self._begin_anew()  # it may have ended at a server that is no longer the right one
            del flush
        self.connection.release()

    def _publish(self, flush: Flush) -> None:
        try:
            for part in flush.parts():
                self._publish_part(part, flush)
        except NoConnection as gone:
            flush.away = error = cast("Exception", gone.__cause__)
            for place in list(flush.open):
                flush.fail(place, error)

    def _publish_part(self, part: Sequence[int], flush: Flush) -> None:
        if len(part) > 1 and flush.is_plain and self.messenger.producer.can_wait_once and not flush.abandoned:
            part = self._publish_together(part, flush)
        for place in part:
            if flush.abandoned:
                return
            try:
                self._publish_one(flush.open[place], flush)
            except NoConnection:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
                flush.fail(place, error)
            else:
                del flush.open[place]

    def _publish_together(self, part: Sequence[int], flush: Flush) -> Sequence[int]:
        """Publish many with one answer of the broker's; return those of which it is uncertain whether it has them.

        They are published once more, each by itself, where it is seen what is wrong with which of them. Those that it
        has are then there twice, under the same id.
        """
        self._connect(flush)
        failed: set[str] = set()
        try:
            with self.messenger.producer.together() as refused:
                for place in part:
                    try:
                        self.messenger.send(flush.open[place], flush)
                    except self.breaking:
                        raise  # nothing is known of those before it either
                    except Exception:  # noqa: BLE001 - it is tried once more
                        failed.add(flush.open[place].id)
        except Exception:  # noqa: BLE001 - they are tried once more
            self._begin_anew()
            return part
        failed |= refused.keys()
        uncertain = [place for place in part if flush.open[place].id in failed] if failed else []
        for place in part if not uncertain else set(part).difference(uncertain):
            del flush.open[place]
        return uncertain

    def _publish_one(self, delivery: Delivery, flush: Flush) -> None:
        """Publish, if need be over a new connection: the old one may be stale, its declarations out of date."""
        broken = 0
        while True:
            self._connect(flush)
            try:
                with self._as_celery_says():
                    return self.messenger.send(delivery, flush)
            except Unroutable as error:
                route = delivery.options.route
                if route in flush.renewed:
                    raise
                flush.renewed.add(route)
                self._begin_anew()
                self._connect(flush)
                self.messenger.declare_queues_of(error.exchange)
            except OperationalError as error:
                if isinstance(error.__cause__, self.connection.channel_errors):
                    raise  # an answer: Redis is out of memory, or a replica
                self._begin_anew()
                broken += 1
                if broken < CONNECTIONS and not flush.abandoned:
                    continue
                flush.strikes += 1
                if flush.strikes >= STRIKES or flush.abandoned:
                    raise NoConnection from error
                self._connect(flush)
                raise

    def _connect(self, flush: Flush) -> None:
        if self.connection.connected:
            return

        def give_up(error: Exception, pause: float) -> None:
            if flush.abandoned:
                raise error

        begin_with_one_that_answers(self.app, self.connection)
        try:
            self.connection.ensure_connection(errback=give_up, **RETRIES)
        except Exception as error:
            raise NoConnection from error

    def _begin_anew(self) -> None:
        """Drop the connection, and with it what it knows to be declared."""
        self.connection.collect()
        self.messenger.begin_anew()

    @contextmanager
    def _as_celery_says(self) -> Iterator[None]:
        """Raise OperationalError for what breaks a connection or a channel, as ``apply_async`` does."""
        try:
            yield
        except (PublishError, OperationalError):
            raise
        except (*self.connection.recoverable_connection_errors, *self.connection.recoverable_channel_errors) as error:
            raise OperationalError(str(error)) from error
