"""Counters of Prometheus from the signals about deliveries, and gauges of the outbox."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connections
from prometheus_client import CollectorRegistry, generate_latest

from deferred_signals import Retry, Signal, keeping, metrics
from deferred_signals import registry as registry_module
from deferred_signals.attempt import run
from deferred_signals.outbox import figures, gauges
from deferred_signals.outbox.backend import DatabaseOutbox
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.gauges import OutboxCollector
from deferred_signals.outbox.leader import Leadership
from deferred_signals.outbox.models import Lock, OutboxDelivery, State
from tests import receivers
from tests.outbox.test_examination import put
from tests.receivers import first, second, troubled

ROOT = Path(__file__).resolve().parent.parent

rung: Any = Signal()
too_large: Any = Signal()


class TestCounters:
    @pytest.fixture(autouse=True)
    def registry(self) -> Iterator[CollectorRegistry]:
        made = CollectorRegistry()
        metrics.instrument(made)
        metrics.instrument()
        yield made
        metrics.uninstrument()
        metrics.uninstrument()

    @pytest.fixture
    def value(self, registry: CollectorRegistry) -> Any:
        return lambda name, **labels: registry.get_sample_value(f"deferred_signals_{name}", labels)

    def test_count_what_is_published_and_what_is_not(self, link, memory, monkeypatch, value):
        link(rung, first)
        rung.send(sender=None)
        rung.send(sender=None)
        monkeypatch.setattr(memory, "publish", lambda given: [(one, OSError()) for one in given])
        rung.send(sender=None)
        assert value("published_total", receiver="tests.receivers.first") == 2
        assert value("unpublished_total", receiver="tests.receivers.first") == 1

    def test_count_attempts_by_outcome_and_take_their_time(self, link, memory, value):
        link(rung, troubled, max_retries=1)
        receivers.troubles.extend([Retry(countdown=0), ValueError()])
        rung.send(sender=None)
        memory.deliver()
        memory.deliver()
        rung.send(sender=None)
        memory.deliver()
        name = "tests.receivers.troubled"
        for outcome in ("retry", "dead", "succeeded"):
            assert value("finished_total", receiver=name, outcome=outcome) == 1
        assert value("attempt_seconds_count", receiver=name) == 3
        assert value("attempt_seconds_bucket", receiver=name, le="+Inf") == 3

    def test_of_what_cannot_be_opened_or_is_unknown_have_one_label(self, link, memory, value, settings, monkeypatch):
        run("garbage")
        link(rung, first)
        rung.send(sender=None)
        [(_, payload)] = memory.payloads
        with monkeypatch.context() as another_release:
            another_release.setattr(registry_module, "_by_name", {})
            run(payload)
        assert value("finished_total", receiver="unknown", outcome="dead") == 1
        assert value("finished_total", receiver="unknown", outcome="retry") == 1
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "MAX_SIZE": 300}
        link(too_large, second, oversize="log")
        too_large.send(sender=None, text="x" * 1000)
        assert value("unpublished_total", receiver="unknown") == 1

    def test_take_no_time_of_what_was_not_run(self, link, memory, value):
        link(rung, first)
        rung.send(sender=None)
        [(_, payload)] = memory.payloads
        run(payload, redelivered=True)
        assert value("finished_total", receiver="tests.receivers.first", outcome="retry") == 1
        assert value("attempt_seconds_count", receiver="tests.receivers.first") is None

    def test_hold_no_values(self, link, memory, registry):
        link(rung, first)
        rung.send(sender=None, password="hunter2")
        memory.deliver()
        assert "hunter2" not in generate_latest(registry).decode()


def test_processes_add_up_in_prometheus_multiprocess_mode(tmp_path):
    """As for the children of a worker: each counts into a file, whoever is scraped adds them up."""
    environment = {
        **os.environ,
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
        "DJANGO_SETTINGS_MODULE": "tests.observability.settings",
    }
    count = (
        "import django; django.setup(); from deferred_signals import metrics; metrics.instrument();"
        "from deferred_signals.attempt import run; run('garbage')"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", count], cwd=ROOT, env=environment, check=True, capture_output=True)
    collect = (
        "from prometheus_client import CollectorRegistry, generate_latest, multiprocess; r = CollectorRegistry();"
        "multiprocess.MultiProcessCollector(r); print(generate_latest(r).decode())"
    )
    done = subprocess.run(
        [sys.executable, "-c", collect], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    assert 'deferred_signals_finished_total{outcome="dead",receiver="unknown"} 2.0' in done.stdout


def test_every_metric_is_documented_and_no_other():
    registry = CollectorRegistry()
    metrics.instrument(registry)
    ours = {f"deferred_signals_outbox_{name}" for name in gauges.GAUGES}
    ours |= {one.name + ("_total" if one.type == "counter" else "") for one in registry.collect()}
    metrics.uninstrument()
    said = set(re.findall(r"\bdeferred_signals_[a-z_]+", (ROOT / "docs" / "monitoring.md").read_text()))
    assert said == ours


class TestGauges:
    pytestmark = pytest.mark.django_db(databases=["default", "other"], transaction=True)

    @pytest.fixture(autouse=True)
    def outbox(self, monkeypatch: pytest.MonkeyPatch) -> DatabaseOutbox:
        made = DatabaseOutbox()
        monkeypatch.setattr(keeping, "_outbox", made)
        return made

    def value(self, name: str, database: str = "default", **given: Any) -> float | None:
        registry = CollectorRegistry()
        registry.register(OutboxCollector(**given))
        return registry.get_sample_value(f"deferred_signals_outbox_{name}", {"database": database})

    def test_begin_with_the_age_of_the_oldest_that_could_run(self):
        assert next(iter(gauges.GAUGES)) == "oldest_pending_seconds"
        assert self.value("oldest_pending_seconds") == 0
        put(due=DatabaseNow(-100))
        put(due=DatabaseNow(-10))
        put(due=DatabaseNow(500))
        put(State.RUNNING, due=DatabaseNow(-1000))
        put(State.DEAD)
        assert 100 <= (self.value("oldest_pending_seconds") or 0) < 160

    def test_leave_out_of_that_what_waits_for_others_of_its_key(self):
        put(State.RUNNING, order_key="k")
        put(due=DatabaseNow(-100), order_key="k")
        assert self.value("oldest_pending_seconds") == 0
        assert self.value("pending") == 1

    def test_count_what_waits_runs_and_is_dead(self):
        for state, count in ((State.PENDING, 3), (State.RUNNING, 2), (State.DEAD, 1), (State.SUCCEEDED, 4)):
            for _ in range(count):
                put(state)
        assert [self.value(name) for name in ("pending", "running", "dead")] == [3, 2, 1]
        assert self.value("pending", "other") == 0

    def test_count_keys_that_are_parked_and_not_those_that_are_passed(self, link):
        link(rung, first, order_by="key", on_dead="pass", durable=True)
        for key in ("a", "a", "b"):
            put(State.DEAD, order_key=key)
        put(State.DEAD, order_key="c", receiver="tests.receivers.first")
        put(State.DEAD)
        assert self.value("parked_keys") == 2

    def test_tell_whether_a_relay_leads_and_when_it_was_last_heard_of(self):
        assert self.value("relay_up") == 0
        assert self.value("relay_age_seconds") is None
        leadership = Leadership("default")
        assert leadership.is_mine()
        assert self.value("relay_up") == 1
        assert 0 <= (self.value("relay_age_seconds") or 0) < 15
        Lock.objects.update(until=DatabaseNow(-45))
        assert self.value("relay_up") == 0
        assert 60 <= (self.value("relay_age_seconds") or 0) < 120
        leadership.give_up()
        assert self.value("relay_age_seconds") is None

    def test_are_of_the_databases_that_are_named(self):
        assert self.value("pending", "other", aliases=["default"]) is None
        assert self.value("pending", "default", aliases=["default"]) == 0

    def test_of_a_database_without_tables_there_are_none(self, monkeypatch):
        monkeypatch.setattr("deferred_signals.outbox.backend.has_table", lambda alias: alias == "other")
        assert self.value("up") is None
        assert self.value("up", "other") == 1

    def test_of_a_database_that_is_away_say_that_and_no_more(self, monkeypatch):
        def fail(alias: str) -> Any:
            raise DatabaseError("away")

        monkeypatch.setattr(figures, "oldest", fail)
        assert self.value("up") == 0
        assert self.value("pending") is None

    def test_ask_nothing_when_they_are_registered(self, django_assert_num_queries):
        with django_assert_num_queries(0):
            CollectorRegistry(auto_describe=True).register(OutboxCollector())

    def test_close_the_connection_that_a_scrape_has_opened_in_its_own_thread(self):
        seen: list[Any] = []

        def scrape() -> None:
            seen.extend((self.value("up"), connections["default"].connection, connections["other"].connection))

        thread = threading.Thread(target=scrape)
        thread.start()
        thread.join()
        assert seen == [1, None, None]

    def test_leave_a_connection_open_that_was(self):
        connections["default"].ensure_connection()
        assert self.value("up") == 1
        assert connections["default"].connection is not None

    def test_see_rows_that_are_about_to_become_older(self):
        put(due=DatabaseNow(-5))
        [row] = OutboxDelivery.objects.all()
        assert row.due is not None
        before = figures.oldest("default")
        OutboxDelivery.objects.update(due=row.due - timedelta(seconds=60))
        # SQLite counts in days, as floats: to some 0.05 ms.
        assert figures.oldest("default") >= before + 60 - 0.001
