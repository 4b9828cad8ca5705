"""Where the processes of a run die or stop when the run says so: the named points of ``deferred_signals.failpoints``.

The run puts a file with the name of a point into the directory of the arms; whichever process comes to that point next
takes the file away and does what it says.
"""

import contextlib
import functools
import os
import signal
import time
from pathlib import Path

from deferred_signals import failpoints
from tests.chaos.arms import POINTS, VARIABLE
from tests.chaos.journal import note

from .celery import here


def reached(point, file):
    try:
        how = file.read_text()
        file.unlink()
    except FileNotFoundError:
        return  # not armed, or another process was quicker
    pid = os.getpid()
    main = here["main"] or pid
    if how == "stop":
        note("stopped", point=point, pid=pid, main=main)
        os.kill(pid, signal.SIGSTOP)
        return
    note("killed", how=how, point=point, pid=pid, main=main, before=time.monotonic())
    if how == "group":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(main, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)


if os.environ.get(VARIABLE):
    for name in POINTS:
        failpoints.actions[name] = functools.partial(reached, name, Path(os.environ[VARIABLE], name))
