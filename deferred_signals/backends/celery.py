"""The backend that publishes Celery messages, one for each delivery."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from celery import Celery, current_task
from celery.app import app_or_default
from celery.exceptions import SoftTimeLimitExceeded
from django.apps import apps
from django.core.signals import setting_changed
from kombu.exceptions import OperationalError

from .. import conf
from ..delivery import Delivery
from ..exceptions import ConfigurationError, PublishError
from ..tasks import deliver
from .base import Backend, Failure
from .breaker import Breaker
from .flush import Flush
from .lanes import Lane
from .template import is_celerys_own


class _Read(NamedTuple):
    """What was read of an app's settings; right as long as they are this object with these changes."""

    source: Any
    changes: dict[str, Any]
    eager: bool
    broker: Any
    #: Whether an event is sent of each message.
    events: bool


class _Broker(NamedTuple):
    """What is kept for one broker of one app in one process."""

    #: The lanes that nobody uses now.
    free: deque[Lane]
    breaker: Breaker


class CeleryBackend(Backend):
    """Publishes through the current Celery app, its routes and its broker settings."""

    interruptions = (SoftTimeLimitExceeded,)

    def __init__(self) -> None:
        #: By process, app and URL.
        self._brokers: dict[Any, _Broker] = {}
        #: All lanes. Also those of a parent process: a connection that is collected in a child shuts its socket down.
        self._all: set[Lane] = set()
        self._read: _Read | None = None
        self._ready = False
        setting_changed.connect(self._forget)

    def _forget(self, **kwargs: Any) -> None:
        self._read, self._ready = None, False

    def _settings(self, app: Celery) -> _Read:
        """The settings of Celery's that each publish asks for: reading them through Django's is slow."""
        source, read = app.conf, self._read
        if read is None or read.source is not source or read.changes != source.changes:
            eager, events = bool(source.task_always_eager), bool(source.task_send_sent_event)
            read = self._read = _Read(source, dict(source.changes or {}), eager, source.broker_write_url, events)
        return read

    @property
    def inline(self) -> bool:
        """True with Celery's ``task_always_eager``."""
        return self._settings(app_or_default()).eager

    def check(self) -> None:
        """Raise ConfigurationError when this process has no Celery app, or the worker would not have our task."""
        if self._ready:
            return
        app = app_or_default()
        # Celery makes up an app named "default" where none was made; its broker would be anybody's on localhost.
        if app.main == "default" and not app.conf.broker_url:
            raise ConfigurationError(
                "This process has no Celery app, so deliveries cannot be published. Create one as in Celery's 'First "
                "steps with Django' (proj/celery.py) and import it in your project's __init__.py: from .celery import "
                "app as celery_app. In tests you can set DEFERRED_SIGNALS = {'BACKEND': 'immediate'}."
            )
        if not apps.is_installed("deferred_signals"):
            raise ConfigurationError(
                "'deferred_signals' is not in INSTALLED_APPS. Workers would not know its task and throw its deliveries "
                "away. Add it."
            )
        self._ready = True

    def publish(self, deliveries: Sequence[Delivery]) -> list[Failure]:
        """Publish a message each; return those that the broker did not take in time."""
        app = app_or_default()
        settings = self._settings(app)
        if settings.eager:
            return _run_eagerly(deliveries)
        key = (os.getpid(), app, str(settings.broker))
        broker = self._broker(key)
        refusal = broker.breaker.refusal(len(deliveries))
        if refusal is not None:
            return [(delivery, refusal) for delivery in deliveries]
        patience = conf.current().publish_timeout
        lane = self._take(broker, app, patience)
        is_plain = not settings.events and is_celerys_own(app, lane.messenger.task)
        flush = Flush(deliveries, _ancestry(), settings=settings, is_plain=is_plain)
        lane.flushes.put(flush)
        try:
            in_time = flush.wait(patience)
        except BaseException:
            # A time limit of the task that sends, or Ctrl-C: the lane finishes this flush by itself, and ends.
            self._retire(lane)
            raise
        if in_time:
            self._give_back(lane, key)
            if isinstance(flush.away, OperationalError):  # and not, say, a message that it refuses
                broker.breaker.open(flush.away, patience)
            return flush.failures
        self._all.discard(lane)
        error = PublishError(f"The broker did not answer for {patience:g} s.")
        broker.breaker.open(error, patience)
        return flush.unpublished(error)

    def _broker(self, key: Any) -> _Broker:
        """What there is for this broker; not of the parent process, another app or other broker settings."""
        broker = self._brokers.get(key)
        if broker is None:
            for old in [old for old in self._brokers if old[:2] == key[:2]]:
                lanes, breaker = self._brokers.pop(old)
                breaker.close()
                for lane in lanes:
                    self._retire(lane)
            broker = self._brokers.setdefault(key, _Broker(deque(), Breaker(key[1])))
        return broker

    def _take(self, broker: _Broker, app: Celery, patience: float) -> Lane:
        """A lane that is free, or a new one."""
        try:
            return broker.free.pop()
        except IndexError:
            lane = Lane(app, patience)
            self._all.add(lane)
            return lane

    def _give_back(self, lane: Lane, key: Any) -> None:
        broker = self._brokers.get(key)
        if broker is None:
            self._retire(lane)  # the broker's settings have changed meanwhile
        else:
            broker.free.append(lane)

    def _retire(self, lane: Lane) -> None:
        lane.flushes.put(None)
        self._all.discard(lane)


def _run_eagerly(deliveries: Sequence[Delivery]) -> list[Failure]:
    """What ``task_always_eager`` asks for, in the caller's thread; with ``task_eager_propagates`` the first error."""
    errors = []
    for delivery in deliveries:
        try:
            deliver.apply_async((delivery.payload,), task_id=delivery.id, shadow=delivery.receiver)
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)
    if errors:
        raise errors[0]
    return []


def _ancestry() -> dict[str, Any]:
    """What Celery would write down of the task that is running here; in the lane's thread it could not see it."""
    if not current_task:
        return {}
    return {
        "root_id": current_task.request.root_id or current_task.request.id,
        "parent_id": current_task.request.id,
    }
