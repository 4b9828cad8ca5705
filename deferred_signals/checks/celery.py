"""System checks of the project's Celery settings: mistakes that cost deliveries, found without asking the broker."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from celery import Celery
from django.core import checks

from .. import conf, registry
from ..celery_project import (
    RABBITMQ,
    REDIS,
    Routing,
    current_app,
    deliver_task,
    transport,
    transport_option,
    transport_option_line,
    unreadable,
)
from ..options import Options
from ..outcome import backoff
from ..tasks import OURS, RELIED_ON
from .messages import once
from .results import endless

#: What kombu's Redis transport waits for an acknowledgement by default, in seconds.
VISIBILITY_TIMEOUT = 3600
#: The same for RabbitMQ since 3.8.17, its ``consumer_timeout``, in seconds.
CONSUMER_TIMEOUT = 1800


def check_celery(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """E101 to E106, W101 and W102: the project's Celery settings against its receivers."""
    app = current_app()
    if app is None:
        return []
    if (error := unreadable(app)) is not None:
        return [
            checks.Error(
                f"Celery's settings cannot be read: {type(error).__name__}: {error}",
                hint="Whatever publishes or works fails the same way.",
                id="deferred_signals.E106",
            )
        ]
    routing = Routing(app)
    found = [*_accepted(app), *_overridden(app)]
    for registration in registry.registrations():
        several = [stand_in.options for stand_in in registration.connections()]
        found += _too_late(registration.name, several)
        found += _queues(registration.name, several, routing)
        found += _held_too_long(registration.name, several, routing)
        found += endless(registration, app)
    return once(found)


def _accepted(app: Celery) -> Iterator[checks.CheckMessage]:
    accepted = [str(one) for one in app.conf.accept_content or ()]
    if not {"json", "application/json"}.intersection(accepted):
        names = ", ".join(f'"{one}"' for one in ["json", *accepted])
        yield checks.Error(
            "Celery's accept_content has no 'json', in which deliveries travel: workers would throw them away.",
            hint=f"CELERY_ACCEPT_CONTENT = [{names}]",
            id="deferred_signals.E101",
        )


def _overridden(app: Celery) -> Iterator[checks.CheckMessage]:
    task = deliver_task(app)
    changed = [name for name, value in RELIED_ON.items() if getattr(task, name, value) != value]
    changed += [name for name in OURS if not str(getattr(task, name)).startswith("deferred_signals.")]
    if changed:
        yield checks.Error(
            f"Celery's task_annotations change {', '.join(changed)} of {task.name}: deliveries would be lost, or run "
            "again against their receivers' options.",
            hint=f'Name the tasks that they are for in CELERY_TASK_ANNOTATIONS, instead of "*" or "{task.name}".',
            id="deferred_signals.E102",
        )


def _too_late(receiver: str, several: list[Options]) -> Iterator[checks.CheckMessage]:
    """What is never run: it waits for longer than it is good for."""
    max_age = conf.current().max_age
    for options in several:
        limits = [("its expires", options.expires), ("DEFERRED_SIGNALS['MAX_AGE']", max_age)]
        for what, limit in limits:
            if limit is not None and (options.countdown or 0) >= limit:
                yield checks.Error(
                    f"The deferred receiver {receiver!r} is never run: its countdown of {options.countdown or 0:g} s "
                    f"is not shorter than {what} of {limit:g} s.",
                    hint="Choose a shorter countdown or a longer limit.",
                    obj=receiver,
                    id="deferred_signals.E105",
                )


def _queues(receiver: str, several: list[Options], routing: Routing) -> Iterator[checks.CheckMessage]:
    missing = sorted({str(options.queue) for options in several if routing.is_missing(options)})
    for name in missing:
        queue = f"The queue {name!r} of" if name != "None" else "The queue to which task_routes leads"
        yield checks.Error(
            f"{queue} the deferred receiver {receiver!r} is not in task_queues, and task_create_missing_queues is "
            "False: its deliveries cannot be published.",
            hint="CELERY_TASK_QUEUES = [..., Queue(...)] or CELERY_TASK_CREATE_MISSING_QUEUES = True",
            obj=receiver,
            id="deferred_signals.E104",
        )


def longest_pause(options: Options) -> float:
    """Seconds of the longest wait before one of the receiver's retries."""
    if options.max_retries == 0:
        return 0
    steady = dataclasses.replace(options, retry_jitter=False)
    return backoff(steady, options.max_retries or 1_000)


def _held(options: Options, app: Celery, *, waiting: bool) -> tuple[float, str]:
    """How long a worker may hold one message unacknowledged, in seconds, and why."""
    pause = longest_pause(options) if waiting else 0
    countdown = (options.countdown or 0) if waiting else 0
    given = (options.time_limit, options.soft_time_limit, app.conf.task_time_limit, app.conf.task_soft_time_limit)
    limit: float = next(filter(None, given), 0)
    wait = f"a countdown of {countdown:g} s" if countdown >= pause else f"retries after up to {pause:g} s"
    parts = [wait] if countdown or pause else []
    parts += [f"a time limit of {limit:g} s"] if limit else []
    return max(countdown, pause) + limit, " and ".join(parts)


def _held_too_long(receiver: str, several: list[Options], routing: Routing) -> Iterator[checks.CheckMessage]:
    app = routing.app
    if transport(app) in REDIS:
        allowed = transport_option(app, "visibility_timeout", VISIBILITY_TIMEOUT)
        held, why = max((_held(options, app, waiting=True) for options in several), default=(0, ""))
        if isinstance(allowed, int | float) and held >= allowed:
            enough = (math.floor(held / 3600) + 1) * 3600
            yield checks.Warning(
                f"The deferred receiver {receiver!r} has {why}, and Redis gives what is not acknowledged within "
                f"{allowed:g} s (visibility_timeout) to another worker: it would be run several times.",
                hint=transport_option_line(app, "visibility_timeout", enough),
                obj=receiver,
                id="deferred_signals.W101",
            )
    elif transport(app) in RABBITMQ:
        for options in several:
            there = routing.known(options)
            arguments = there.arguments if there else {}
            held, why = _held(options, app, waiting=not (there and there.is_quorum))
            allowed = arguments.get("x-consumer-timeout", CONSUMER_TIMEOUT * 1000) / 1000
            if held >= allowed:
                enough = (math.floor(held / 3600) + 1) * 3_600_000
                yield checks.Warning(
                    f"The deferred receiver {receiver!r} has {why}, and RabbitMQ closes the channel of a worker that "
                    f"holds a message for longer than its consumer_timeout ({allowed:g} s unless it is configured): "
                    "all that the worker holds would be run again.",
                    hint=f"In rabbitmq.conf: consumer_timeout = {enough}. If you have done that, silence this check.",
                    obj=receiver,
                    id="deferred_signals.W102",
                )
