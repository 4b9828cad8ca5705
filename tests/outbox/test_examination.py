"""What the doctor says of the outbox."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.db import DatabaseError, connections

from deferred_signals import Signal, doctor, keeping
from deferred_signals.delivery import Delivery
from deferred_signals.exceptions import ConfigurationError
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.examination import examine
from deferred_signals.outbox.leader import Leadership
from deferred_signals.outbox.models import OutboxDelivery, State
from deferred_signals.outbox.rows import insert, row_of
from tests import receivers

knock = Signal()

pytestmark = pytest.mark.django_db(databases=["default", "other"], transaction=True)


def said(mark: str) -> list[str]:
    return [one.text for one in examine().findings if one.mark == mark]


def cures(mark: str) -> list[str]:
    return [one.cure for one in examine().findings if one.mark == mark]


@pytest.fixture
def relay() -> None:
    for alias in ("default", "other"):
        assert Leadership(alias).is_mine()


def put(state: State = State.PENDING, **columns: Any) -> str:
    key = str(uuid.uuid4())
    default = connections["default"]
    delivery = Delivery(key, "shop.receivers.send", None, None)  # type: ignore[arg-type]  # no time is needed
    insert(default, [row_of(default, delivery)])
    ended: dict[str, Any] = {} if state in (State.PENDING, State.RUNNING) else {"due": None, "ring_at": None}
    OutboxDelivery.objects.filter(delivery_id=key).update(**{"state": state, **ended, **columns})
    return key


class TestTheDoctor:
    def test_has_a_section_for_it(self, relay):
        assert "Outbox" in [section.title for section in doctor.examine(0.1)]

    def test_looks_at_nothing_where_the_settings_are_wrong(self, settings):
        settings.DEFERRED_SIGNALS = {"LEASE": -1}
        assert said("note") == ["Not looked at. DEFERRED_SIGNALS is wrong."]

    def test_has_none_where_it_is_not_installed(self, monkeypatch):
        monkeypatch.setattr(keeping, "_outbox", None)
        assert "Outbox" not in [section.title for section in doctor.examine(0.1)]


class TestTheTables:
    def test_that_are_there_are_looked_into(self, relay):
        put()
        put(State.RUNNING)
        texts = said("ok")
        assert texts[0] == "default: 1 delivery waits and 1 runs; the oldest that could run has been due for 0 s."
        assert texts[1].startswith("default: the relay is ")
        assert "@" in texts[1]
        assert texts[2] == "other: 0 deliveries wait and 0 run."
        assert len(texts) == 4

    def test_of_a_replica_of_which_the_routers_say_so_are_left_out(self, relay, settings):
        settings.DATABASE_ROUTERS = ["tests.outbox.test_commands.OtherIsAReplica"]
        assert not any(text.startswith("other") for text in said("ok"))

    def test_that_are_missing_where_deliveries_are_sent_are_a_problem(self, link, outbox, monkeypatch, relay):
        def lacks(alias: str) -> None:
            if alias == "other":
                raise ConfigurationError("Run manage.py migrate.")

        monkeypatch.setattr(outbox, "check", lacks)
        assert said("problem") == []
        link(knock, receivers.first, durable=True, using="other")
        assert said("problem") == ["other: durable deliveries cannot be sent."]

    def test_that_are_nowhere_are_a_problem(self, outbox, monkeypatch):
        def lacks(alias: str) -> None:
            raise ConfigurationError("Run manage.py migrate.")

        monkeypatch.setattr(outbox, "check", lacks)
        assert said("problem") == ["No database has the tables."]

    @pytest.mark.parametrize("where", ["backend.DatabaseOutbox.check", "examination._dead"])
    def test_of_a_database_that_is_away_are_a_problem(self, monkeypatch, where):
        def away(*given: Any) -> None:
            raise DatabaseError("connection refused")

        monkeypatch.setattr(f"deferred_signals.outbox.{where}", away)
        assert "default: the database does not answer: DatabaseError: connection refused" in said("problem")


class TestWhatWaits:
    def test_for_long_is_a_warning(self, relay):
        put(due=DatabaseNow(-3600))
        put()
        (text,) = said("warning")
        assert text == "default: 2 deliveries wait and 0 run; the oldest that could run has been due for 3,600 s."
        assert "workers for their queues" in cures("warning")[0]

    def test_for_its_countdown_is_none(self, relay):
        put(due=DatabaseNow(3600))
        assert said("warning") == []
        assert said("ok")[0] == "default: 1 delivery waits and 0 run."

    def test_behind_another_of_its_key_is_none(self, relay):
        put(State.RUNNING, order_key="a", due=DatabaseNow(30))
        put(order_key="a", due=DatabaseNow(-3600))
        assert said("warning") == []

    def test_for_a_worker_after_its_own_was_lost_is_a_warning(self, relay):
        put(State.RUNNING, due=DatabaseNow(-3600))
        put(State.RUNNING, due=DatabaseNow(-1))
        assert said("warning") == [
            "default: 1 of those that run have lost their worker, and no other one has taken them."
        ]


class TestTheDead:
    def test_are_a_warning_with_what_to_do(self, relay):
        put(State.DEAD)
        assert said("warning") == ["default: 1 dead delivery is kept."]
        put(State.DEAD)
        assert said("warning") == ["default: 2 dead deliveries are kept."]
        assert "manage.py redeliver" in cures("warning")[0]

    def test_that_park_keys_are_named_with_what_waits(self, relay):
        keys = [put(State.DEAD, order_key=f"first:{number}") for number in range(5)]
        for number in range(5):
            put(order_key=f"first:{number}")
        texts = said("warning")[1:]
        assert texts[0] == "default: the key 'first:0' is parked by a dead delivery, and 1 wait behind it."
        assert texts[3:] == ["default: 2 more keys are parked."]
        assert cures("warning")[1] == f"manage.py redeliver {keys[0]}, or discard_deliveries"

    def test_behind_whom_nobody_waits_park_nothing(self, relay):
        put(State.DEAD, order_key="first:7")
        assert said("warning") == ["default: 1 dead delivery is kept."]


class TestTheRelay:
    def test_that_is_nowhere_is_a_problem_where_something_waits(self):
        put()
        (text,) = said("problem")
        assert text.startswith("default: no relay is at work")
        assert said("warning")[0].startswith("other: no relay is at work")
        assert cures("problem") == ["Start a worker, which runs the relay by itself, or manage.py relay_outbox."]

    def test_that_workers_do_not_run_has_another_cure(self, settings):
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "RELAY": False}
        put()
        assert cures("problem") == ["RELAY is False: keep one running, or manage.py relay_outbox."]
