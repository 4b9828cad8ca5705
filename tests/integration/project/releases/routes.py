"""Each test has a queue of its own, although it shares senders and workers with others."""

from typing import Any

queue = ""


def to_the_queue_of_the_test(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **more: Any) -> Any:
    return {"queue": queue} if queue else None
