"""What Sentry's own integration of Celery cannot know: which receiver a task is about; extra ``sentry``.

That integration reports what receivers raise when they are dead, once, and nothing of a retry. It names all of it after
our one task; here it learns the receiver's name. And Sentry makes an event of every error in the log: of the line that
says once more what was reported already it makes none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sentry_sdk
from celery import current_task

from .delivery import Delivery
from .outcome import Outcome
from .signals import delivery_finished, delivery_started
from .tasks import deliver

#: Whether what we gave to Sentry's global scope, which gives nothing back, is in force.
_is_on = False
_is_given = False


def instrument() -> None:
    """Name what Sentry hears of deliveries after their receivers; in your AppConfig's ``ready()``.

    Before or after ``sentry_sdk.init()``, and more than once.
    """
    global _is_on, _is_given  # noqa: PLW0603 - one per process
    delivery_started.connect(_started, weak=False, dispatch_uid=__name__)
    delivery_finished.connect(_finished, weak=False, dispatch_uid=__name__)
    if not _is_given:
        sentry_sdk.get_global_scope().add_event_processor(_once)
    _is_on = _is_given = True


def uninstrument() -> None:
    """Undo ``instrument``: for tests."""
    global _is_on  # noqa: PLW0603 - as above
    _is_on = False
    delivery_started.disconnect(dispatch_uid=__name__)
    delivery_finished.disconnect(dispatch_uid=__name__)


def _started(delivery: Delivery, **kwargs: Any) -> None:
    _name(delivery)


def _finished(delivery: Delivery | None, outcome: Outcome, **kwargs: Any) -> None:
    # Once more, for others may have begun meanwhile; what is reported at the message's end is the one that died.
    if delivery is not None and outcome.state == "dead":
        _name(delivery)


def _name(delivery: Delivery) -> None:
    if not _in_our_task():
        return  # run at once, where it was sent: the name is a request's, or another task's
    scope = sentry_sdk.get_current_scope()
    scope.set_transaction_name(delivery.receiver, source="task")
    scope.set_tag("deferred_signals.receiver", delivery.receiver)
    scope.set_tag("deferred_signals.delivery", delivery.id)
    scope.set_tag("deferred_signals.attempt", delivery.attempt)


def _once(event: Any, hint: dict[str, Any]) -> Any:
    """Drop the event of a log line about a death whose exception the integration of Celery reports."""
    record = hint.get("log_record")
    if not _is_on or getattr(record, "delivery_outcome", None) != "dead":
        return event
    is_reported = _in_our_task() and sentry_sdk.get_client().get_integration("celery") is not None
    # Of what is dead for our reasons the line is all there is. With the module: a project may have a DecodeError too.
    is_ours = getattr(record, "delivery_error", None) in {
        f"{kind.__module__}.{kind.__qualname__}" for kind in _kinds(deliver.throws)
    }
    return event if is_ours or not is_reported else None


def _in_our_task() -> bool:
    return bool(current_task) and current_task.name == deliver.name


def _kinds(classes: Any) -> Iterator[type[Exception]]:
    for one in classes:
        yield one
        yield from _kinds(one.__subclasses__())
