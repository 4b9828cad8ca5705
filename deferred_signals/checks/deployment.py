"""System checks for production: ``manage.py check --deploy`` says what is right on a laptop and a trap elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from celery import Celery
from django.conf import settings
from django.core import checks

from .. import conf, registry
from ..celery_project import (
    RABBITMQ,
    Routing,
    broker_url,
    current_app,
    deliver_task,
    transport,
    transport_option,
    transport_option_line,
    unreadable,
)
from ..options import Options
from .databases import databases
from .messages import once, warning
from .results import kept_results

#: Brokers that Celery can use and deliveries should not, by their schemes, and why.
UNFIT = {
    "memory": "lives inside one process, so no worker gets them",
    "filesystem": "writes messages where workers read them half written",
    "sqla": "keeps every message for ever and cannot tell about its workers",
    "sqlalchemy": "keeps every message for ever and cannot tell about its workers",
}
#: From how many seconds on a receiver holds up the short ones that its worker has reserved behind it.
LONG = 60

#: What Django's own check of SECRET_KEY asks for; startproject writes the prefix.
_INSECURE_PREFIX, _KEY_LENGTH, _KEY_CHARACTERS = "django-insecure-", 50, 5


def check_deployment(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """W201 to W212 and I201: what the project's settings do to deliveries in production."""
    app = current_app()
    if app is None or unreadable(app) is not None:
        return []
    connected = [
        (registration.name, stand_in.options)
        for registration in registry.registrations()
        for stand_in in registration.connections()
    ]
    if app.conf.task_always_eager:
        return [
            warning(
                "deferred_signals.W201",
                "Celery's task_always_eager is on: deferred receivers run in the sender's process, at its commit.",
                "CELERY_TASK_ALWAYS_EAGER = False",
            )
        ]
    return once(
        [
            *_keys(),
            *databases(app),
            *_broker(app),
            *kept_results(app, connected),
            *_task(app),
            *_receivers(app, connected),
        ]
    )


def check_server(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """W103: uWSGI runs no threads, which publishing needs. Known only inside of it, so the app also logs it there."""
    try:
        # uWSGI makes this module; it cannot be installed.
        given = import_module("uwsgi").opt
    except ImportError:
        return []
    if {"enable-threads", "threads", "gevent", "asyncio"} & {_text(name) for name in given}:
        return []
    return [
        warning(
            "deferred_signals.W103",
            "This uWSGI process runs no threads, and publishing needs one: no delivery would leave it.",
            "enable-threads = true in uWSGI's configuration",
        )
    ]


def _keys() -> Iterator[checks.CheckMessage]:
    if settings.DEBUG:
        return
    ours = conf.current().signing_keys
    key = settings.SECRET_KEY if ours is None else ours[0]
    text = _text(key)
    if text.startswith(_INSECURE_PREFIX) or len(text) < _KEY_LENGTH or len(set(text)) < _KEY_CHARACTERS:
        name = "SECRET_KEY" if ours is None else "DEFERRED_SIGNALS['SIGNING_KEYS'][0]"
        yield warning(
            "deferred_signals.W208",
            f"{name}, which signs deliveries, can be guessed: who can write to the broker could call any deferred "
            "receiver with any arguments.",
            f"Use a long random key. python -c 'import secrets; print(secrets.token_urlsafe(50))' makes one; "
            f"{'SECRET_KEY_FALLBACKS' if ours is None else 'further SIGNING_KEYS'} keep the old one valid.",
        )


def _broker(app: Celery) -> Iterator[checks.CheckMessage]:
    scheme = transport(app)
    if scheme in UNFIT:
        yield warning(
            "deferred_signals.W205",
            f"The broker {scheme}:// loses or delays deliveries: it {UNFIT[scheme]}.",
            'CELERY_BROKER_URL = "redis://..." or "amqp://..."',
        )
    elif not broker_url(app) and not settings.DEBUG:
        yield warning(
            "deferred_signals.W207",
            "Celery has no broker_url, so deliveries are published to RabbitMQ on localhost as guest.",
            'CELERY_BROKER_URL = "amqp://user:password@host:5672/vhost" or "redis://..."',
        )
    if scheme in RABBITMQ and not transport_option(app, "confirm_publish", default=True):
        yield warning(
            "deferred_signals.W206",
            "RabbitMQ is told not to confirm messages (confirm_publish): what a broken connection, an alarm or a "
            "deleted queue swallows counts as published.",
            transport_option_line(app, "confirm_publish", value=True),
        )
    if not app.conf.broker_connection_retry:
        yield warning(
            "deferred_signals.W211",
            "Celery's broker_connection_retry is off: workers end when the broker goes away, and deliveries wait.",
            "CELERY_BROKER_CONNECTION_RETRY = True",
        )


def _task(app: Celery) -> Iterator[checks.CheckMessage]:
    task = deliver_task(app)
    if task.rate_limit:
        # What "*" says goes before what a task's own name says; and None would mean the default.
        of_all = task.rate_limit == app.conf.task_default_rate_limit
        yield warning(
            "deferred_signals.W209",
            f"{task.name} has a rate limit of {task.rate_limit}, which all deferred receivers share in each worker.",
            f'CELERY_TASK_ANNOTATIONS = {{"{task.name}": {{"rate_limit": 0}}}}'
            if of_all
            else 'Name the tasks that it is for in CELERY_TASK_ANNOTATIONS, instead of "*".',
        )
    if app.conf.task_compression:
        yield warning(
            "deferred_signals.W210",
            "Celery's task_compression compresses deliveries too, so workers take compressed ones from anybody: "
            "a small message can fill their memory.",
            "CELERY_TASK_COMPRESSION = None, and compression= where a task of yours needs it",
        )


def _receivers(app: Celery, connected: list[tuple[str, Options]]) -> Iterator[checks.CheckMessage]:
    routing = Routing(app)
    multiplier = app.conf.worker_prefetch_multiplier
    for name, options in connected:
        there = routing.known(options)
        unranked = there is not None and not there.is_quorum and not there.arguments.get("x-max-priority")
        if options.priority is not None and transport(app) in RABBITMQ and unranked:
            yield warning(
                "deferred_signals.W212",
                f"The deferred receiver {name!r} has a priority, and its queue is not declared with one: RabbitMQ pays "
                "no attention to it.",
                "CELERY_TASK_QUEUE_MAX_PRIORITY = 9 (RabbitMQ refuses to change a queue that exists: delete it first). "
                "The larger number goes first; with Redis it is the smaller one.",
                name,
            )
        limit = options.time_limit or options.soft_time_limit or 0
        if limit >= LONG and multiplier != 1:
            yield checks.Info(
                f"The deferred receiver {name!r} may run for {limit:g} s. A process of a worker reserves "
                f"{multiplier} messages, so short ones wait behind it while other processes are free.",
                hint="CELERY_WORKER_PREFETCH_MULTIPLIER = 1, or a queue= of its own",
                obj=name,
                id="deferred_signals.I201",
            )


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
