"""Fixtures of the tests of the outbox that run in pytest's own process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deferred_signals import keeping
from deferred_signals.backends.memory import MemoryBackend
from deferred_signals.outbox import answering, remainder
from deferred_signals.outbox.backend import DatabaseOutbox
from deferred_signals.outbox.models import OutboxDelivery
from tests import receivers

from .admin_site import knock


@pytest.fixture(autouse=True)
def outbox(_without_outbox: None, monkeypatch: pytest.MonkeyPatch) -> DatabaseOutbox:
    """The outbox, in force."""
    made = DatabaseOutbox()
    monkeypatch.setattr(keeping, "_outbox", made)
    return made


@pytest.fixture(autouse=True)
def all_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who answers a doorbell runs all that it rings for: a busy machine passes nothing on."""
    monkeypatch.setattr(remainder, "PATIENCE", 3600.0)
    monkeypatch.setattr(answering, "LONGEST", 3600.0)


@pytest.fixture
def passes_on(all_by_one: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what is passed on: who answers a doorbell does so after a moment, as at work."""
    monkeypatch.setattr(remainder, "PATIENCE", 0.1)


@pytest.fixture
def rows() -> Callable[..., list[dict[str, Any]]]:
    """The rows as they are now, in the order of their numbers: the named columns."""

    def read(*columns: str, alias: str = "default") -> list[Any]:
        found = OutboxDelivery.objects.using(alias).order_by("number")
        return list(found.values_list(*columns, flat=len(columns) == 1))

    return read


@pytest.fixture
def payload(link: Callable[..., Any], memory: MemoryBackend) -> str:
    """What one delivery of ``admin_site.knock`` carries."""
    link(knock, receivers.first, on_commit=False)
    knock.send(None, number=7)
    _, found = memory.payloads.pop()
    return str(found)
