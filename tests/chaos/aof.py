"""Which messages a worker popped and never noted, by Redis' own log of what changed its data (``appendonly``).

kombu takes a message with BRPOP, which the log tells as RPOP, and then notes it in the hash ``unacked`` (HSET). An
acknowledgement takes it from there (HDEL), a restoration too, and puts it back into the list.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from pathlib import Path

QUEUE, UNACKED = b"chaos", b"unacked"


def log(home: Path) -> Iterator[list[bytes]]:
    """The commands of a server that lives in ``home`` and does not rewrite its log."""
    for file in sorted((home / "appendonlydir").glob("*.incr.aof"), key=lambda path: int(path.name.split(".")[2])):
        yield from commands(file.read_bytes())


def commands(text: bytes) -> Iterator[list[bytes]]:
    """The commands in a text of Redis' protocol, for example ``*2 $4 RPOP $5 chaos`` with a line end for each space."""
    at = 0

    def line() -> bytes:
        nonlocal at
        start, at = at, text.index(b"\r\n", at) + 2
        return text[start : at - 2]

    while at < len(text):
        words = []
        for _ in range(int(line()[1:])):
            length = int(line()[1:])
            words.append(text[at : at + length])
            at += length + 2
        yield words


def popped(told: Iterable[list[bytes]]) -> set[str]:
    """The deliveries of which a message was popped, and neither noted nor put back ever after."""
    queues: dict[bytes, deque[bytes]] = defaultdict(deque)
    missing: dict[str, str] = {}
    for command, key, *words in (words for words in told if len(words) > 1):
        name = command.upper()
        if name in {b"LPUSH", b"RPUSH"} and key.startswith(QUEUE):
            for item in words:
                (queues[key].appendleft if name == b"LPUSH" else queues[key].append)(item)
                missing.pop(_message(item)[0], None)
        elif name == b"RPOP" and key.startswith(QUEUE):
            tag, delivery = _message(queues[key].pop())
            missing[tag] = delivery
        elif name == b"HSET" and key == UNACKED:
            missing.pop(words[0].decode(), None)
    return set(missing.values())


def _message(item: bytes) -> tuple[str, str]:
    """The tag, which is a message's own, and the delivery's id, which its retries have in common."""
    message = json.loads(item)
    return message["properties"]["delivery_tag"], message["headers"]["id"]
