"""A worker's pulse for whoever watches it: a file that is touched while the worker talks to its broker.

``WORKER_PULSE`` names the file; without it nothing is done. It is not there before the worker has taken up its work, so
"it exists" is *ready*; and Celery's heartbeat, every two seconds, touches it, so "it is old" is *stuck*. A probe then
costs a ``find``, and not a Python that starts, loads the project and asks the worker over the broker, as ``celery
inspect ping`` does. Not for ``celery worker --without-heartbeat``.
"""

import os
from pathlib import Path
from typing import Any

from celery.signals import heartbeat_sent, worker_init, worker_ready

PULSE = Path(os.environ["WORKER_PULSE"]) if "WORKER_PULSE" in os.environ else None


def forget(**kwargs: Any) -> None:
    """A container that is started again may find the file of the one before."""
    if PULSE:
        PULSE.unlink(missing_ok=True)


def beat(**kwargs: Any) -> None:
    """Called in the worker's main process."""
    if PULSE:
        PULSE.touch()


worker_init.connect(forget)
worker_ready.connect(beat)
heartbeat_sent.connect(beat)
