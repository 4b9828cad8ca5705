"""What the development server's reloader sends."""

import os
import tempfile
import threading
import time
from pathlib import Path

from django.utils.autoreload import StatReloader

from ..recording import recording

PATIENCE = 10.0


def reload_when_a_file_changes():
    """Change a file under a running reloader; say whether it reloaded."""
    with tempfile.TemporaryDirectory() as folder, recording("autoreload_started", "file_changed") as found:
        file = Path(folder, "views.html")
        file.touch()
        reloader = StatReloader()
        reloader.SLEEP_TIME = 0.01  # type: ignore[assignment]  # looks more often than once a second
        reloader.watch_dir(folder, "*.html")
        changing = threading.Thread(target=_change, args=(file, reloader))
        changing.start()
        try:
            reloader.run(threading.current_thread())
        except SystemExit as end:
            reloaded = end.code
        else:
            reloaded = None
        reloader.stop()
        changing.join()
    return found.answer() | {"reloaded": reloaded, "sent": [name for name, _ in found.live]}


def _change(file, reloader):
    """Until the reloader, which has to see the file once before, has stopped or should have."""
    begun = modified = time.time()
    while not reloader.should_stop:
        modified += 1
        os.utime(file, (modified, modified))
        reloader._stop_condition.wait(0.05)
        if time.time() - begun > PATIENCE:
            reloader.stop()
