"""What Celery's events tell, and so Flower: tasks by their receivers' names, and no values."""

from __future__ import annotations

import threading
from typing import Any

from celery.events.state import State

from deferred_signals import Retry, Signal
from tests import receivers, test_works_with_celery
from tests.receivers import troubled
from tests.test_works_with_celery import eventually

start = test_works_with_celery.start

rung: Any = Signal()

SECRET = "hunter2"


def test_show_the_receivers_name_the_deliverys_id_and_no_values(start, link):
    link(rung, troubled, max_retries=1, retry_backoff=1, retry_jitter=False)
    receivers.troubles.append(Retry(countdown=0))
    project = start(worker_send_task_events=True, task_send_sent_event=True)
    heard: list[dict[str, Any]] = []
    state: Any = State()
    is_listening, is_over = threading.Event(), threading.Event()

    def note(event: dict[str, Any]) -> None:
        heard.append(event)
        state.event(event)

    def listen() -> None:
        with project.app.connection_for_read() as connection:
            receiver = project.app.events.Receiver(connection, handlers={"*": note})
            is_listening.set()
            while not is_over.is_set():
                try:
                    receiver.capture(limit=1, timeout=0.05, wakeup=False)
                except TimeoutError:
                    continue

    thread = threading.Thread(target=listen)
    thread.start()
    assert is_listening.wait(20)
    try:
        [(_, delivery)] = rung.send(sender=None, password=SECRET)
        assert project.ended_of([delivery.id]) == ["succeeded"]
        eventually(lambda: delivery.id in state.tasks and state.tasks[delivery.id].state == "SUCCESS")
    finally:
        is_over.set()
        thread.join()
    [task] = [one for key, one in state.tasks.items() if key == delivery.id]
    assert task.name == "tests.receivers.troubled"
    assert (task.args, task.kwargs) == ("(<signed payload>)", "{}")
    kinds = [event["type"] for event in heard if event.get("uuid") == delivery.id]
    assert {"task-received", "task-started", "task-retried", "task-succeeded"} <= set(kinds)
    assert SECRET not in str(heard)
    assert {event["name"] for event in heard if event["type"] == "task-received"} == {"tests.receivers.troubled"}
