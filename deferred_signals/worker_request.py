"""What Celery's worker does with a message of ours around its run; ``Task.Request`` is Celery's hook for that.

It lives in the worker's main process, which must not open a database for it, and not wait.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from celery.exceptions import TimeLimitExceeded, WorkerLostError
from celery.worker import state
from celery.worker.request import Request

from .greenlets import among_greenlets
from .tasks import NOT_BEGUN, REPRS, deliver

logger = logging.getLogger("deferred_signals")


def _without_the_message(record: logging.LogRecord) -> bool:
    """Leave out of what Celery's pool logs at DEBUG the arguments of its job: one of them is our message."""
    if isinstance(record.args, tuple) and any(deliver.name in str(part) for part in record.args):
        function, *_ = record.args
        record.args = (function, REPRS["argsrepr"], REPRS["kwargsrepr"])
    return True


#: Who wants to know of a child of the pool that was lost while it ran a message of ours: its pid, and how.
on_loss: list[Callable[[int, str], None]] = []

#: How billiard says what has ended a child.
_HOW = re.compile(r"exited prematurely: (.+?)(?: Job: \d+)?\.?$")

# Here, where only workers come by. A logger takes a filter once.
logging.getLogger("celery.pool").addFilter(_without_the_message)


class DeliveryRequest(Request):
    """A message with a delivery: it comes back after a hard time limit, and says whether its run can have begun."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._broken_off = False
        # Results and signals of the main process tell what stands here; the pool gets the body.
        self.request_dict["args"] = self.args
        # The worker that had it was only keeping it for later, so it cannot have been the end of it. What waits for a
        # countdown is given from worker to worker, as often as they are restarted.
        if self.eta and datetime.now(UTC) < self.eta:
            self.request_dict[NOT_BEGUN] = True

    @property
    def args(self) -> list[str]:
        """What logs and events say of the arguments, for whoever asks: hooks and signals of Celery's."""
        return [REPRS["argsrepr"]]

    def info(self, safe: bool = False) -> Any:
        """What remote control, and so Flower, tells of a message: Celery's, but never the payload."""
        return super().info(safe=True)

    def cancel(self, *args: Any, **kwargs: Any) -> None:
        """Celery's: at a cold shutdown it breaks off what runs."""
        self._broken_off = True
        super().cancel(*args, **kwargs)

    def acknowledge(self) -> None:
        """Celery's, but for a greenlet that was killed: gevent's pool reports it as a success."""
        if self._broken_off and among_greenlets():
            self.reject(requeue=True)
        else:
            super().acknowledge()

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Celery's, but for a hard time limit: the pool calls ``on_timeout`` next, which says all there is to say."""
        # Newer Celery wraps it. With return_ok it is what a receiver has raised.
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, TimeLimitExceeded) and not return_ok:
            return None
        if isinstance(error, WorkerLostError) and not return_ok:
            how = _HOW.search(str(error))
            self._tell_of_the_loss(how[1] if how else str(error))
        return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """After a hard time limit the message goes back; flagged by the broker, it counts as a crash.

        Celery would acknowledge it: the delivery would be gone without a word to observers.
        """
        if soft:
            super().on_timeout(soft, timeout)
            return
        state.task_ready(self)
        # Its own message is its delivery; of a batch or a doorbell it is nobody's id.
        fields = {"delivery_id": self.id, "delivery_receiver": self.name, "delivery_outcome": "crashed"}
        text = "%s[%s] ran into its hard time limit (%s s): its process is ended"
        logger.error(text, self.name, self.id, timeout, extra=fields)
        self.reject(requeue=True)
        self._tell_of_the_loss(f"hard time limit of {timeout:g} s")

    def _tell_of_the_loss(self, how: str) -> None:
        pid: Any = self.worker_pid
        if pid is not None:  # else no child has begun with it
            for tell in on_loss:
                tell(pid, how)
