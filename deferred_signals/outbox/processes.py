"""What rows call the processes that have them."""

from __future__ import annotations

import functools
import os
import socket
import zlib
from pathlib import Path


def me() -> str:
    """This process, as rows name it."""
    return name_of(os.getpid())


def name_of(pid: int) -> str:
    """A process of this host, as rows name it."""
    return f"{pid}@{socket.gethostname()}{_mark()}"[:255]


@functools.cache
def _mark() -> str:
    """What tells this host from others of its name, on Linux.

    Containers may share a name (that of their machine, or one in a compose file), and their pids are often equal: who
    is told of the loss of its own process would end the lease of another one that lives.
    """
    try:
        said = f"{Path('/proc/self/ns/pid').readlink()} {Path('/proc/sys/kernel/random/boot_id').read_text()}"
    except OSError:
        return ""
    return f"/{zlib.crc32(said.encode()):08x}"
