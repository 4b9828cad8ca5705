"""Fixtures of the tests that run in pytest's own process; a plugin, see conftest."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
from celery import Celery
from celery.app import app_or_default
from django.db.backends.sqlite3.base import DatabaseWrapper as SQLite
from django.dispatch import Signal

from deferred_signals import Delivery, backends, connect, keeping
from deferred_signals.backends.celery import CeleryBackend
from deferred_signals.backends.memory import MemoryBackend
from deferred_signals.outcome import Outcome
from deferred_signals.signals import delivery_finished, delivery_published, delivery_started, delivery_unpublished
from tests import receivers

# Time is no property of the codec, and these machines are shared.
hypothesis.settings.register_profile(
    "deferred_signals", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("deferred_signals")


@pytest.fixture(scope="session", autouse=True)
def _closing() -> None:
    """Have threads close their connections, as they believe they do: Django leaves those of a SQLite in memory open.

    For good, for a thread that is not waited for may come to it when its test is over; Python 3.13 minds.
    """
    close = SQLite.close

    def close_also_in_memory(self: SQLite) -> None:
        close(self)
        # The one that a live server shares with the test is the test's.
        is_own = not self.allow_thread_sharing and threading.current_thread() is not threading.main_thread()
        if self.connection is not None and is_own:
            self.connection.close()
            self.connection = None

    pytest.MonkeyPatch().setattr(SQLite, "close", close_also_in_memory)


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """Put the environment back: a worker in this process sets levels of logging for all processes after it."""
    before = dict(os.environ)
    yield
    for name in {name for name, _ in before.items() ^ os.environ.items()} - {"PYTEST_CURRENT_TEST"}:
        if name in before:
            os.environ[name] = before[name]
        else:
            del os.environ[name]


@pytest.fixture(autouse=True)
def _without_outbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default mode has no tables; the tests of the outbox put it back."""
    monkeypatch.setattr(keeping, "_outbox", None)


@pytest.fixture(autouse=True)
def _fresh_start() -> None:
    receivers.calls.clear()
    receivers.troubles.clear()
    receivers.inquiries.clear()
    backend = backends.current()
    assert isinstance(backend, MemoryBackend)
    backend.payloads.clear()


@pytest.fixture
def memory() -> MemoryBackend:
    """The backend of tests.settings, empty at the beginning of each test."""
    backend = backends.current()
    assert isinstance(backend, MemoryBackend)
    return backend


@pytest.fixture
def calls() -> list[tuple[str, Any, dict[str, Any]]]:
    """What the receivers of tests.receivers were called with."""
    return receivers.calls


Link = Callable[..., Any]


@pytest.fixture
def link() -> Iterator[Link]:
    """Connect a deferred receiver, or with ``deferred=False`` an inline one, until the end of the test."""
    links: list[tuple[Signal, Any, Any, Any]] = []

    def connect_one(signal: Signal, function: Any, sender: Any = None, *, deferred: bool = True, **given: Any) -> Any:
        links.append((signal, function, sender, given.get("dispatch_uid")))
        return connect(signal, function, sender, deferred=deferred, **given)

    yield connect_one
    for signal, function, sender, uid in links:
        signal.disconnect(function, sender=sender, dispatch_uid=uid)


@pytest.fixture
def outcome_of(memory: MemoryBackend) -> Callable[[], Outcome]:
    """Run the one delivery that waits and return how it ended."""

    def run() -> Outcome:
        ((_, outcome),) = memory.deliver()
        return outcome

    return run


@pytest.fixture
def publishes_by(settings: Any) -> Iterator[Callable[[Celery], CeleryBackend]]:
    """Make an app Celery's current one and publish by it, until the end of the test."""
    before = app_or_default()
    settings.DEFERRED_SIGNALS = {"PUBLISH_TIMEOUT": 20}
    backend = backends.current()
    assert isinstance(backend, CeleryBackend)

    def publish_by(app: Celery) -> CeleryBackend:
        app.set_current()
        backend._ready = False
        backend._brokers.clear()
        return backend

    yield publish_by
    for broker in backend._brokers.values():
        broker.breaker.close()
        for lane in broker.free:
            backend._retire(lane)
    backend._brokers.clear()
    before.set_current()


@pytest.fixture
def heard() -> Iterator[dict[str, list[Any]]]:
    """The ids of those that were told as published, and as not, and why not."""
    noted: dict[str, list[Any]] = {"published": [], "unpublished": [], "errors": []}

    def published(delivery: Delivery, **kwargs: Any) -> None:
        noted["published"].append(delivery.id)

    def unpublished(delivery: Delivery, error: Exception, **kwargs: Any) -> None:
        noted["unpublished"].append(delivery.id)
        noted["errors"].append(error)

    delivery_published.connect(published)
    delivery_unpublished.connect(unpublished)
    yield noted
    delivery_published.disconnect(published)
    delivery_unpublished.disconnect(unpublished)


@pytest.fixture
def told() -> Iterator[list[tuple[str, Any, Any]]]:
    """What observers are told of runs: which signal, the delivery, the outcome."""
    noted: list[tuple[str, Any, Any]] = []

    def started(delivery: Any, **kwargs: Any) -> None:
        noted.append(("started", delivery, None))

    def finished(delivery: Any, outcome: Outcome, **kwargs: Any) -> None:
        noted.append(("finished", delivery, outcome))

    delivery_started.connect(started)
    delivery_finished.connect(finished)
    yield noted
    delivery_started.disconnect(started)
    delivery_finished.disconnect(finished)
