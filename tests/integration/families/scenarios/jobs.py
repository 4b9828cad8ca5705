"""Tasks of Django's own framework."""

from .. import jobs
from ..recording import recording


def tasks():
    with recording("task_enqueued", "task_started", "task_finished") as found:
        jobs.add.enqueue(1, second=2.5)
        jobs.fail.enqueue()
        jobs.add.using(backend="dummy", priority=7).enqueue(1, second=2)
    return found.answer() | {
        # As they were at the send: the backend changes its results.
        "states": {
            signal: [str(sent.expected["task_result"].status) for sent in sends]
            for (signal, _), sends in found.sent.items()
        },
        "backends": sorted({arguments["sender"].__name__ for _, arguments in found.live}),
    }
