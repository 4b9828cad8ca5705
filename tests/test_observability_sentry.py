"""Sentry, with its integration of Celery: what a receiver raises arrives once, by the receiver's name, without values.

In a process of its own, for that integration changes Celery for good; only ``sentry_sdk``'s transport is a double.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sentry_sdk

from deferred_signals import Signal, log_lines, sentry
from deferred_signals.attempt import run
from deferred_signals.exceptions import DecodeError, OpenError
from deferred_signals.outcome import Outcome
from tests import receivers
from tests.receivers import first, troubled

ROOT = Path(__file__).resolve().parent.parent

rung: Any = Signal()

#: As if a worker ran it.
OURS = SimpleNamespace(name="deferred_signals.deliver")


def heard(*given: str) -> tuple[list[Any], list[Any], str]:
    """The events and the transactions that Sentry hears of a receiver that is retried and dies, and all of the text."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.observability.settings",
        "CELERY_SKIP_CHECKS": "1",
    }
    command = [sys.executable, "-m", "tests.observability.with_sentry", *given]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["ended"] == ["retry", "dead"]
    events = [item for item in said["items"] if item.get("type") != "transaction"]
    return events, [item for item in said["items"] if item.get("type") == "transaction"], done.stdout


def test_what_a_receiver_raises_arrives_once_by_its_name_and_without_values():
    [event], transactions, text = heard("named")
    assert event["transaction"] == "tests.receivers.troubled"
    [raised] = event["exception"]["values"]
    assert (raised["type"], raised["value"]) == ("ValueError", "the receiver's own")
    assert raised["stacktrace"]["frames"][-1]["function"] == "troubled"
    assert event["tags"]["deferred_signals.receiver"] == "tests.receivers.troubled"
    assert event["tags"]["deferred_signals.attempt"] in (2, "2")
    assert "hunter2" not in text
    assert "271828" not in text
    runs = [one for one in transactions if one["transaction"] != "request"]
    assert {one["transaction"] for one in runs} == {"tests.receivers.troubled"}
    [request] = [one for one in transactions if one["transaction"] == "request"]
    trace = request["contexts"]["trace"]["trace_id"]
    assert {one["contexts"]["trace"]["trace_id"] for one in runs} == {trace}, "Sentry's own headers have travelled"


def test_without_us_it_is_named_after_the_task_and_the_line_of_the_log_is_an_event_too():
    events, _, text = heard()
    assert {event["transaction"] for event in events} == {"deferred_signals.deliver"}
    assert sorted("exception" in event for event in events) == [False, True]
    assert "hunter2" not in text


class TestNames:
    @pytest.fixture(autouse=True)
    def _instrumented(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setattr(sentry, "current_task", OURS)
        sentry.instrument()
        sentry.instrument()
        yield
        sentry.uninstrument()

    def test_are_said_at_the_beginning_of_each_run(self, link, memory, monkeypatch):
        link(rung, first)
        scope = sentry_sdk.Scope()
        monkeypatch.setattr(sentry_sdk, "get_current_scope", lambda: scope)
        rung.send(sender=None)
        memory.deliver()
        assert scope._tags["deferred_signals.receiver"] == "tests.receivers.first"

    def test_are_at_the_end_those_of_the_one_that_died(self, link, memory, monkeypatch):
        scope = sentry_sdk.Scope()
        monkeypatch.setattr(sentry_sdk, "get_current_scope", lambda: scope)
        link(rung, troubled, max_retries=0)
        receivers.troubles.append(ValueError())
        [(_, delivery)] = rung.send(sender=None)
        memory.deliver()
        assert scope._tags["deferred_signals.delivery"] == delivery.id

    @pytest.mark.parametrize("task", [None, SimpleNamespace(name="shop.tasks.nightly")])
    def test_of_a_request_or_of_another_task_that_runs_a_delivery_at_once_stay_theirs(
        self, link, memory, monkeypatch, task
    ):
        monkeypatch.setattr(sentry, "current_task", task)
        scope = sentry_sdk.Scope()
        monkeypatch.setattr(sentry_sdk, "get_current_scope", lambda: scope)
        link(rung, first)
        rung.send(sender=None)
        memory.deliver()
        assert scope._tags == {}

    def test_there_is_none_of_what_cannot_be_opened(self, memory):
        assert run("garbage")[1].state == "dead"


class TestLines:
    """Which lines of the log become events: those of which nothing else tells."""

    @pytest.fixture
    def once(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., bool]]:
        client = SimpleNamespace(get_integration=lambda name: name)
        monkeypatch.setattr(sentry_sdk, "get_client", lambda: client)
        monkeypatch.setattr(sentry, "current_task", OURS)
        sentry.instrument()

        def is_an_event(**fields: Any) -> bool:
            record = logging.makeLogRecord(fields)
            return sentry._once({}, {"log_record": record} if fields else {}) is not None

        yield is_an_event
        sentry.uninstrument()

    def test_a_death_that_celerys_integration_reports_is_none(self, once):
        assert not once(delivery_outcome="dead", delivery_error="ValueError")

    def test_a_death_for_our_reasons_is_one(self, once):
        assert once(delivery_outcome="dead", delivery_error="deferred_signals.exceptions.OpenError")
        assert once(delivery_outcome="dead", delivery_error="deferred_signals.exceptions.UnknownReceiver"), (
            "a kind of NotYetKnown"
        )

    @pytest.mark.parametrize("ours", [DecodeError, OpenError])
    def test_a_death_of_the_projects_own_error_that_is_called_as_one_of_ours_is_none(self, once, ours):
        theirs = type(ours.__name__, (ValueError,), {"__module__": "shop.errors"})
        for error in (theirs(), ours("forged")):
            fields = log_lines.ending(None, Outcome("dead", error))
            assert once(**fields) == isinstance(error, ours)

    def test_what_was_not_published_is_one(self, once):
        assert once(delivery_outcome="unpublished", delivery_error="OSError")
        assert once()

    def test_outside_of_a_task_all_are(self, once, monkeypatch):
        monkeypatch.setattr(sentry, "current_task", None)
        assert once(delivery_outcome="dead", delivery_error="ValueError")

    def test_without_celerys_integration_all_are(self, once, monkeypatch):
        monkeypatch.setattr(sentry_sdk, "get_client", lambda: SimpleNamespace(get_integration=lambda name: None))
        assert once(delivery_outcome="dead", delivery_error="ValueError")

    def test_when_it_is_undone_all_are(self, once):
        sentry.uninstrument()
        assert once(delivery_outcome="dead", delivery_error="ValueError")
