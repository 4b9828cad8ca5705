"""How often Redis loses a message when a busy worker is killed, counted exactly.

A round: the queue gets the same messages again, a worker begins with them and is killed in the middle. Each must
then be in the queue, in ``unacked``, or finished. One that is nowhere was popped by the worker and not yet noted.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable

import redis

from .journal import Reader
from .scenarios import SCENARIOS
from .stage import Stage, Worker

#: More than a worker can do in the time that it has.
MESSAGES = 4_000


def measure(kills: int, pause: float, seed: int, show: Callable[[str], None]) -> list[int]:
    """Kill a worker so often, whose receivers take ``pause`` seconds; return how many messages each kill lost."""
    chance = random.Random(seed)
    [scenario] = [scenario for scenario in SCENARIOS if scenario.on_redis and scenario.database is None]
    lost: list[int] = []
    with Stage(scenario) as stage, redis.Redis(port=stage.servers.broker.port or 0) as client:
        stage.python("feeder", str(MESSAGES), str(pause))
        full = client.lrange("chaos", 0, -1)
        sent = _ids(full)
        worker: Worker | None = None
        while len(lost) < kills:
            client.flushall()
            client.rpush("chaos", *full)
            # Another journal for each round: what was finished in the last one is in the queue again.
            stage.journal.unlink()
            reader = Reader(stage.journal)
            if worker:
                worker.start()
            else:
                worker = stage.start_worker()
            finished = _interrupted(worker, reader, chance.uniform(0.1, 1), client)
            reader.close()
            if finished == sent:
                raise RuntimeError("The worker had nothing more to do when it was killed: it needs more messages.")
            held = _ids(json.dumps(json.loads(value)[0]).encode() for value in client.hvals("unacked"))
            lost.append(len(sent - finished - held - _ids(client.lrange("chaos", 0, -1))))
            show(f"redis-gap: {len(lost)} of {kills} kills, {sum(lost)} lost")
    stage.forget()
    return lost


def _interrupted(worker: Worker, reader: Reader, seconds: float, client: redis.Redis) -> set[str]:
    """Let it work for so long, kill it, and return which deliveries it has finished."""
    finished: set[str] = set()
    until = None
    while until is None or time.monotonic() < until:
        finished |= _finished(reader)
        if finished and until is None:
            until = time.monotonic() + seconds
        time.sleep(0.005)
    worker.kill()
    # What it had sent is still to be read by the server, which then closes the connections.
    while len(client.client_list()) > 1:
        time.sleep(0.005)
    return finished | _finished(reader)


def _finished(reader: Reader) -> set[str]:
    return {event["delivery"] for event in reader.new() if event["what"] == "finished"}


def _ids(messages: Iterable[bytes]) -> set[str]:
    return {json.loads(message)["headers"]["id"] for message in messages}
