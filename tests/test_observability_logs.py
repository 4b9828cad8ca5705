"""Log lines for machines: each says what it is about in fields, which never hold a value of an argument."""

from __future__ import annotations

import io
import json
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deferred_signals import Retry, Signal, conf, log_lines
from deferred_signals.attempt import finish_unopened, run
from deferred_signals.backends.memory import MemoryBackend
from deferred_signals.delivery import Delivery
from deferred_signals.exceptions import OpenError
from deferred_signals.outbox import row_fields
from deferred_signals.outbox.models import OutboxDelivery
from deferred_signals.outcome import Outcome
from tests import receivers
from tests.receivers import discards, first, second, troubled

rung: Any = Signal()

ROOT = Path(__file__).resolve().parent.parent
SECRET = "hunter2"
#: What every record has, and a formatter may set.
PLAIN = {*vars(logging.makeLogRecord({})), "message", "asctime"}


def fields(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    """What the last line of ours has beside what all records have."""
    record = [one for one in caplog.records if one.name == "deferred_signals"][-1]
    return {name: value for name, value in vars(record).items() if name not in PLAIN}


class TestAnAttempt:
    def test_that_is_retried_says_which_when_and_of_what(self, link, memory, caplog):
        link(rung, troubled, queue="mails")
        receivers.troubles.append(Retry(SECRET, countdown=7))
        [(_, delivery)] = rung.send(sender=None, password=SECRET)
        memory.deliver()
        found = fields(caplog)
        seconds = found.pop("delivery_seconds")
        assert 0 <= seconds < 60
        assert found == {
            "delivery_id": delivery.id,
            "delivery_receiver": "tests.receivers.troubled",
            "delivery_signal": "tests.test_observability_logs.rung",
            "delivery_attempt": 1,
            "delivery_queue": "mails",
            "delivery_outcome": "retry",
            "delivery_countdown": 7,
            "delivery_error": "deferred_signals.exceptions.Retry",
        }

    def test_that_is_dead_or_discarded_says_so(self, link, memory, caplog):
        caplog.set_level(logging.INFO, "deferred_signals")
        link(rung, troubled, max_retries=0)
        receivers.troubles.append(ValueError(SECRET))
        rung.send(sender=None)
        memory.deliver()
        found = fields(caplog)
        assert (found["delivery_outcome"], found["delivery_error"]) == ("dead", "ValueError")
        assert SECRET not in str(found)
        assert "delivery_queue" not in found
        link(rung, discards)
        rung.send(sender=None)
        memory.deliver()
        assert fields(caplog)["delivery_outcome"] == "discarded"

    def test_whose_worker_was_lost_counts_the_crashes(self, link, memory, caplog):
        link(rung, first)
        rung.send(sender=None)
        [(_, payload)] = memory.payloads
        run(payload, redelivered=True)
        found = fields(caplog)
        assert (found["delivery_outcome"], found["delivery_crashes"]) == ("retry", 1)
        assert "delivery_seconds" not in found, "it was not run"

    def test_that_cannot_be_opened_has_an_outcome_only(self, caplog):
        finish_unopened(Outcome("dead", OpenError("forged"), "forged"), None)
        assert fields(caplog) == {"delivery_outcome": "dead", "delivery_error": "deferred_signals.exceptions.OpenError"}

    def test_to_a_receiver_that_is_unknown_here_has_no_queue(self):
        unknown = Delivery("1", "nowhere", None, time.time())
        assert "delivery_queue" not in log_lines.about(unknown)

    def test_takes_the_queue_from_the_sender_where_it_is_known(self, link):
        link(rung, first, queue="mails")
        [(_, delivery)] = rung.send(sender=None)
        assert log_lines.about(delivery)["delivery_queue"] == "mails"

    def test_that_succeeds_leaves_no_line_and_its_time(self, link, memory, caplog):
        link(rung, first)
        rung.send(sender=None)
        [(delivery, _)] = memory.deliver()
        assert delivery.seconds >= 0
        assert caplog.records == []

    def test_whose_context_cannot_be_left_says_which(self, link, memory, caplog, monkeypatch):
        from contextlib import ExitStack

        def fail(self: Any) -> None:
            raise RuntimeError("stuck")

        link(rung, first)
        [(_, delivery)] = rung.send(sender=None)
        monkeypatch.setattr(ExitStack, "close", fail)
        memory.deliver()
        assert fields(caplog)["delivery_id"] == delivery.id


class TestPublishing:
    def test_what_is_lost_is_counted_and_named(self, link, memory, caplog, monkeypatch):
        monkeypatch.setattr(memory, "publish", lambda given: [(one, OSError(SECRET)) for one in given])
        link(rung, first)
        link(rung, second)
        sent = [delivery.id for _, delivery in rung.send(sender=None, password=SECRET)]
        ours = [record for record in caplog.records if hasattr(record, "delivery_ids")]
        assert [record.delivery_ids for record in ours] == [[key] for key in sent]
        found = fields(caplog)
        assert found == {
            "delivery_outcome": "unpublished",
            "delivery_count": 1,
            "delivery_ids": [sent[1]],
            "delivery_receivers": {"tests.receivers.second": 1},
            "delivery_error": "OSError",
        }

    def test_of_very_many_only_some_are_named(self, memory, link):
        link(rung, first)
        made = [rung.send(sender=None)[0][1] for _ in range(30)]
        found = log_lines.several(made, "unpublished")
        assert (found["delivery_count"], len(found["delivery_ids"])) == (30, log_lines.MOST)
        assert found["delivery_receivers"] == {"tests.receivers.first": 30}

    def test_what_is_too_large_names_its_receiver(self, link, caplog, settings):
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "MAX_SIZE": 300}
        link(rung, first, oversize="log")
        rung.send(sender=None, text=SECRET * 100)
        assert fields(caplog) == {"delivery_receiver": "tests.receivers.first", "delivery_outcome": "unpublished"}
        assert conf.current().max_size == 300


def test_a_row_of_the_outbox_says_the_same_under_the_same_names():
    row = OutboxDelivery(delivery_id="c0ffee00-0000-4000-8000-000000000000", receiver="a.b", attempt=3)
    assert row_fields.of_row(row, "overtaken") == {
        "delivery_id": "c0ffee00-0000-4000-8000-000000000000",
        "delivery_receiver": "a.b",
        "delivery_signal": None,
        "delivery_attempt": 3,
        "delivery_outcome": "overtaken",
    }


def test_every_field_is_documented_and_no_other():
    sources = ["log_lines", "outbox/row_fields", "deferred_receiver", "worker_request"]
    text = "".join((ROOT / "deferred_signals" / f"{name}.py").read_text() for name in sources)
    used = set(re.findall(r'"(delivery_[a-z]+)"', text))
    table = (ROOT / "docs" / "monitoring.md").read_text().partition("| field |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(delivery_[a-z]+)`", table)) - {"delivery_unpublished"} == used


def test_every_field_can_be_written_as_json_and_none_is_in_the_way_of_logging(link, memory, caplog):
    """A name that a record has already is a KeyError of the logging module, in the middle of a delivery."""
    link(rung, troubled, queue="mails", max_retries=0)
    receivers.troubles.append(ValueError(SECRET))
    rung.send(sender=None)
    before = logging.getLogRecordFactory()

    def with_more(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = before(*args, **kwargs)
        record.signal = record.receiver = record.queue = record.outcome = record.attempt = "the project's own"
        return record

    logging.setLogRecordFactory(with_more)
    try:
        memory.deliver()
    finally:
        logging.setLogRecordFactory(before)
    assert json.loads(json.dumps(fields(caplog)))["delivery_outcome"] == "dead"


def test_the_immediate_backend_gives_up_with_fields(link, caplog, settings, monkeypatch):
    settings.DEFERRED_SIGNALS = {"BACKEND": "immediate"}
    link(rung, first)
    from deferred_signals import registry
    from deferred_signals.exceptions import UnknownReceiver

    monkeypatch.setattr(registry, "get", _unknown(UnknownReceiver))
    rung.send(sender=None)
    assert "is given up" in caplog.text
    assert fields(caplog)["delivery_outcome"] == "retry"


def _unknown(error: Any) -> Callable[[str], Any]:
    def get(name: str) -> Any:
        raise error(f"no receiver {name}")

    return get


def test_a_stream_of_lines_is_one_object_each(link, memory: MemoryBackend):
    """The example of the docs, in small: whatever the message says, a line stays a line."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)

    class Lines(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            ours = {name: value for name, value in vars(record).items() if name.startswith("delivery_")}
            return json.dumps({"message": record.getMessage(), **ours})

    handler.setFormatter(Lines())
    logger = logging.getLogger("deferred_signals")
    logger.addHandler(handler)
    try:
        link(rung, troubled, max_retries=0)
        receivers.troubles.append(ValueError("two\nlines"))
        rung.send(sender=None)
        memory.deliver()
    finally:
        logger.removeHandler(handler)
    [line] = written.getvalue().splitlines()
    assert json.loads(line)["delivery_receiver"] == "tests.receivers.troubled"
