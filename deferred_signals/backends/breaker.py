"""While the broker is away nobody waits for it but one thread, which looks for it."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress

import kombu
from celery import Celery
from kombu.exceptions import OperationalError

from ..exceptions import PublishError
from .broker import connect, find, is_amqp

logger = logging.getLogger("deferred_signals")

#: Seconds between two looks at first, what they grow by, and at most.
PAUSE, GROWTH, LONGEST_PAUSE = 0.25, 1.5, 1.0
#: Seconds that who publishes waits for a look: for the first one, since what hung may have been one connection and not
#: the broker; and for another one where the last was over as quickly, since the broker may be back by now.
GRACE = 0.25
#: Seconds between two looks that are taken because of who publishes.
AGAIN = 0.1
#: Where the message leads that shows that RabbitMQ takes messages: nowhere.
PROBE = "deferred_signals.probe"


class _Outage:
    """From one hand-over that found no broker until the broker takes messages again."""

    def __init__(self, error: Exception, timeout: float) -> None:
        self.error = error
        self.timeout = timeout
        self.since = self.asked = self.begun = time.monotonic()
        self.quick = False
        self.refused = 0
        self.looked = threading.Event()
        self.wake = threading.Event()
        self.over = threading.Event()

    def end(self) -> None:
        self.over.set()
        self.looked.set()
        self.wake.set()


class Breaker:
    """Knows whether one broker is away, for one app in one process; without a thread as long as it is not."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._outage: _Outage | None = None

    @property
    def is_open(self) -> bool:
        """Whether the broker is away, as far as is known."""
        return self._outage is not None

    def open(self, error: Exception, timeout: float) -> None:
        """Say that the broker is away: it answered with ``error``, or not at all for ``timeout`` seconds."""
        with self._lock:
            if self._outage is not None:
                return
            outage = _Outage(error, timeout)
            # Without a thread nobody would look for the broker; then everybody goes on trying.
            with suppress(RuntimeError):
                threading.Thread(target=self._look, args=(outage,), name="deferred_signals-broker", daemon=True).start()
                self._outage = outage

    def refusal(self, count: int) -> PublishError | None:
        """Why ``count`` deliveries cannot be handed over now; None while the broker is not away."""
        outage = self._outage
        if outage is None:
            return None
        with self._lock:
            if outage.quick and outage.looked.is_set() and time.monotonic() - outage.begun > AGAIN:
                outage.asked = time.monotonic()
                outage.looked.clear()
                outage.wake.set()
        outage.looked.wait(max(0.0, outage.asked + GRACE - time.monotonic()))
        if outage.over.is_set():
            return None
        outage.refused += count
        refusal = PublishError(
            f"The broker has been away for {time.monotonic() - outage.since:.1f} s; publishing goes on as soon as it "
            f"takes messages again. It was found away by: {type(outage.error).__name__}: {outage.error}"
        )
        refusal.__cause__ = outage.error
        return refusal

    def close(self) -> None:
        """Stop looking: nobody uses this broker any more."""
        outage = self._outage
        if outage is not None:
            outage.end()

    def _look(self, outage: _Outage) -> None:
        pause = PAUSE
        try:
            while not outage.over.is_set() and not takes_messages(self._app, outage.timeout):
                with self._lock:
                    outage.quick = time.monotonic() - outage.begun < GRACE
                    outage.looked.set()
                if outage.wake.wait(pause):
                    outage.wake.clear()
                else:
                    pause = min(pause * GROWTH, LONGEST_PAUSE)
                outage.begun = time.monotonic()
        finally:
            with self._lock:
                self._outage = None
            outage.end()
        logger.warning(
            "The broker is no longer waited for, after %.1f s. Deliveries that were refused meanwhile: %d",
            time.monotonic() - outage.since,
            outage.refused,
        )


def takes_messages(app: Celery, timeout: float) -> bool:
    """Whether the app's broker takes messages over a new connection, each step of it within ``timeout`` seconds."""
    # Firm: the project may let its connections wait for long, and while a look does, all that is sent is refused.
    connection = connect(app, timeout, firm=True)
    try:
        find(app, connection)
        _try_out(connection)
    except Exception as error:  # noqa: BLE001 - what is left answers, if only to refuse: the next delivery will say it
        connection.collect()  # to close it politely takes an answer
        return not isinstance(error, (OperationalError, *connection.connection_errors))
    connection.release()
    return True


def _try_out(connection: kombu.Connection) -> None:
    """Have one message taken. Redis has answered when it was connected to; it takes messages while it answers."""
    channel = connection.default_channel
    if is_amqp(connection):
        # One that is out of memory lets everybody connect, but confirms no message.
        producer = kombu.Producer(channel, auto_declare=False)
        producer.publish(b"", PROBE, delivery_mode=1, content_type="application/data", content_encoding="binary")
