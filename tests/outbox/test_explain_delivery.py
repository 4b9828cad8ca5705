"""What ``manage.py explain_delivery`` says of a delivery, wherever it is."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connections

from deferred_signals import Signal
from deferred_signals.delivery import Delivery
from deferred_signals.envelope import seal, unseal
from deferred_signals.outbox import keyed
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.explaining import explain
from deferred_signals.outbox.explanation import Explanation
from deferred_signals.outbox.leader import Leadership
from deferred_signals.outbox.models import Origin, OutboxDelivery, State
from deferred_signals.outbox.rows import insert, row_of
from deferred_signals.strict_json import dump, parse
from tests import receivers

knock = Signal()
FIRST = "tests.receivers.first"

pytestmark = pytest.mark.django_db(databases=["default", "other"], transaction=True)

Put = Callable[..., str]


@pytest.fixture(autouse=True)
def _relay() -> None:
    for alias in ("default", "other"):
        assert Leadership(alias).is_mine()


@pytest.fixture
def put(link, memory) -> Put:
    """Write a row; return the id of its delivery."""
    link(knock, receivers.first)
    knock.send(None, secret="hunter2")
    _, payload = memory.payloads.pop()

    def write(state: State = State.PENDING, alias: str = "default", **columns: Any) -> str:
        key = str(uuid.uuid4())
        mine = seal(dump({**parse(payload.rpartition(":")[0]), "id": key}))
        envelope = unseal(mine)
        connection = connections[alias]
        insert(connection, [row_of(connection, Delivery.of(envelope, envelope.texts()), Origin.DURABLE)])
        over = {"due": None, "ring_at": None, "finished": DatabaseNow()}
        ended = {} if state in (State.PENDING, State.RUNNING) else over
        OutboxDelivery.objects.using(alias).filter(delivery_id=key).update(
            **{"payload": mine, "state": state, **ended, **columns}
        )
        return key

    return write


def told(key: str, alias: str = "default") -> Explanation:
    found = explain(alias, key)
    assert found is not None
    return found


def run(*arguments: str, **options: Any) -> str:
    out = StringIO()
    call_command("explain_delivery", *arguments, stdout=out, **{"stderr": StringIO(), "no_color": True, **options})
    return out.getvalue()


class TestOneThatWaits:
    def test_for_its_countdown(self, put):
        found = told(put(due=DatabaseNow(3600), ring_at=DatabaseNow(3600)))
        assert found.why == ["It waits for its countdown or debounce."]
        assert (found.next, found.at) == ("The relay rings for it.", found.row.ring_at)

    def test_for_its_retry(self, put):
        key = put(due=DatabaseNow(60), attempt=2, error_type="builtins.ValueError", error="the receiver raised: no")
        assert told(key).why == [
            "Attempt 2 waits for its time. Before, builtins.ValueError: the receiver raised: no",
        ]

    def test_for_its_retry_of_which_only_the_reason_is_known(self, put):
        assert told(put(due=DatabaseNow(60), error="later")).why == [
            "Attempt 1 waits for its time. Before, it was: later"
        ]

    def test_for_a_worker(self, put):
        found = told(put(rings=3, ring_at=DatabaseNow(120)))
        assert found.why == ["It is due, and no worker has taken it. Rings of the relay so far: 3."]
        assert found.at == found.row.ring_at
        assert found.cures[0] == "Is there a worker for its queue? manage.py deferred_doctor looks."
        assert found.cures[-1] == f"manage.py discard_deliveries --state pending {found.row.delivery_id} ends it."

    def test_for_a_worker_of_its_queue(self, put, link):
        link(Signal(), receivers.second, queue="letters")
        assert "for the queue 'letters'?" in told(put(receiver="tests.receivers.second")).cures[0]

    def test_after_workers_that_were_lost(self, put):
        assert (
            told(put(crashes=2)).why[0] == "Workers in a row that did not finish it: 2. At 10 it is dead (CRASH_LIMIT)."
        )

    def test_while_no_relay_is_at_work(self, put):
        from deferred_signals.outbox.models import Lock

        Lock.objects.all().delete()
        found = told(put())
        assert found.why[-1] == "No relay is at work for this database, so nobody rings for it again."
        assert any("relay_outbox" in cure for cure in found.cures)
        assert found.next == "Nothing before a relay is at work, unless its doorbell still waits at the broker."
        assert found.at is None
        later = told(put(due=DatabaseNow(60), ring_at=DatabaseNow(60)))
        assert (later.next, later.at) == ("Nothing before a relay is at work.", None)
        put(State.RUNNING, order_key="a", due=DatabaseNow(30))
        assert told(put(order_key="a")).next == "It is rung for when that one has ended."

    def test_for_a_receiver_that_this_release_does_not_know(self, put):
        key = put(receiver="shop.gone")
        payload = OutboxDelivery.objects.get(delivery_id=key).payload
        mine = seal(dump({**parse(payload.rpartition(":")[0]), "to": "shop.gone"}))
        OutboxDelivery.objects.filter(delivery_id=key).update(payload=mine)
        found = told(key)
        assert found.why[1].startswith("This release could not run it: No receiver of the name")
        assert "manage.py check_deliveries shows which others are concerned." in found.cures


class TestOneWithAKey:
    def test_waits_for_the_one_that_runs(self, put):
        other = put(State.RUNNING, order_key="a", due=DatabaseNow(30))
        found = told(put(order_key="a"))
        assert found.why == [f"It is not its turn: of its key 'a', delivery {other} runs now."]
        assert found.next == "It is rung for when that one has ended."
        assert f"manage.py explain_delivery {other}" in found.cures

    def test_waits_for_the_one_of_its_unique_key_that_runs(self, put):
        other = put(State.RUNNING, unique_key="u", due=DatabaseNow(30))
        assert told(put(unique_key="u")).why == [f"It is not its turn: of its key 'u', delivery {other} runs now."]

    def test_waits_for_the_one_before_it(self, put):
        other = put(order_key="a", due=DatabaseNow(3600))
        assert told(put(order_key="a")).why == [
            f"It is not its turn: of its key 'a', delivery {other} waits before it."
        ]

    def test_does_not_wait_for_one_without_a_key(self, put):
        put(State.RUNNING, due=DatabaseNow(30))
        put(State.RUNNING, order_key="b", due=DatabaseNow(30))
        other = put(State.RUNNING, unique_key="u", due=DatabaseNow(30))
        assert told(put(unique_key="u")).why == [f"It is not its turn: of its key 'u', delivery {other} runs now."]

    def test_does_not_wait_for_one_that_it_supersedes(self, put):
        put(order_key="a", unique_key="u")
        other = put(order_key="a", unique_key="v")
        assert told(put(order_key="a", unique_key="u")).why == [
            f"It is not its turn: of its key 'a', delivery {other} waits before it."
        ]

    def test_is_parked_behind_a_dead_one(self, put):
        other = put(State.DEAD, order_key="a")
        assert told(put(order_key="a")).why == [
            f"It is not its turn: of its key 'a', delivery {other} is dead, and parks the key."
        ]

    @pytest.mark.parametrize("keys", [{"order_key": "a"}, {"unique_key": "u"}])
    def test_is_blocked_by_others_that_have_ended_meanwhile(self, put, monkeypatch, keys):
        monkeypatch.setattr(keyed, "standing", lambda alias, row: keyed.Standing(superseded=False, blocked=True))
        assert told(put(**keys)).why == ["It is not its turn: others of its key come first."]

    def test_does_not_wait_for_a_dead_one_that_lets_others_pass(self, put, link, monkeypatch):
        link(Signal(), receivers.second, order_by="number", on_dead="pass")
        monkeypatch.setattr(keyed, "standing", lambda alias, row: keyed.Standing(superseded=False, blocked=True))
        put(State.DEAD, receiver="tests.receivers.second", order_key="a")
        found = told(put(receiver="tests.receivers.second", order_key="a"))
        assert found.why == ["It is not its turn: others of its key come first."]

    def test_is_superseded(self, put):
        key = put(unique_key="u")
        put(unique_key="u")
        found = told(key)
        assert found.why == ["A later delivery of its key 'u' counts for it."]
        assert found.next == "It is discarded when it is its turn."

    def test_whose_turn_it_is_waits_for_a_worker(self, put):
        assert told(put(order_key="a", unique_key="u")).why[0].startswith("It is due, and no worker has taken it.")


class TestOneThatRuns:
    def test_is_held_by_its_worker(self, put):
        found = told(put(State.RUNNING, worker="7@host", due=DatabaseNow(30), attempt=2))
        assert found.why == ["The worker 7@host has it, and runs attempt 2."]
        assert found.at == found.row.due

    @pytest.mark.parametrize(("loss", "said"), [("", "lost: its lease"), ("SIGKILL", "lost (SIGKILL): its lease")])
    def test_has_lost_its_worker(self, put, loss, said):
        found = told(put(State.RUNNING, worker="7@host", due=DatabaseNow(-5), ring_at=DatabaseNow(), loss=loss))
        assert found.why[0].startswith(f"The worker 7@host had it and was {said} has ended")
        assert "another worker runs it again" in found.next


class TestOneThatHasEnded:
    def test_well(self, put):
        found = told(put(State.SUCCEEDED))
        assert found.why == ["It has succeeded."]
        assert found.at is not None
        assert found.row.finished is not None
        assert (found.at - found.row.finished).total_seconds() == 86400

    def test_and_is_never_pruned(self, put, settings):
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "RETENTION": None}
        found = told(put(State.SUCCEEDED))
        assert "until it is pruned by hand" in found.next
        assert found.at is None

    @pytest.mark.parametrize(("error", "said"), [("superseded by #7", "superseded by #7"), ("", "on purpose")])
    def test_discarded(self, put, error, said):
        assert told(put(State.DISCARDED, error=error)).why == [f"It was discarded: {said}"]

    def test_dead(self, put):
        key = put(State.DEAD, error_type="builtins.ValueError", error="the receiver raised", attempt=4)
        found = told(key)
        assert found.why == ["It is dead since attempt 4: builtins.ValueError: the receiver raised"]
        assert found.next == "Nothing, until somebody redelivers or discards it."
        assert found.cures == [f"manage.py redeliver {key}", f"manage.py discard_deliveries {key}"]

    def test_dead_and_others_wait_behind_it(self, put):
        key = put(State.DEAD, order_key="a")
        put(order_key="a")
        assert told(key).why[1] == "It parks the key 'a': 1 delivery waits behind it."
        put(order_key="a")
        assert told(key).why[1] == "It parks the key 'a': 2 deliveries wait behind it."

    def test_dead_and_nobody_waits_for_it(self, put, link):
        link(Signal(), receivers.second, order_by="number", on_dead="pass")
        assert len(told(put(State.DEAD, receiver="tests.receivers.second", order_key="a")).why) == 1

    def test_that_could_not_be_opened(self, put):
        found = told(put(State.DEAD, receiver="", payload="forged:x", error="The signature is wrong."))
        assert found.why[0] == "Its payload could not be opened: The signature is wrong."
        assert "SECRET_KEY_FALLBACKS" in found.cures[0]

    @pytest.mark.parametrize(
        ("origin", "said"), [("spilled", "the broker could not be had"), ("buried", "it died"), ("new", "new")]
    )
    def test_however_it_came_here(self, put, origin, said):
        assert said in told(put(State.DEAD, origin=origin)).origin


class TestTheCommand:
    def test_tells_it_in_lines(self, put):
        key = put(rings=1, created=DatabaseNow(-7200), ring_at=DatabaseNow(125))
        lines = run(key).splitlines()
        assert lines[0] == f"Delivery {key} to {FIRST}"
        assert lines[1:4] == [
            "  state:    pending, attempt 1",
            "  signal:   tests.outbox.test_explain_delivery.knock",
            "  origin:   durable: it was written in its sender's transaction [default]",
        ]
        assert lines[4].startswith("  sent:     ")
        assert lines[4].endswith("(2 h ago)")
        assert lines[5] == "  why:      It is due, and no worker has taken it. Rings of the relay so far: 1."
        assert lines[6].endswith("(in 2 min)")
        assert lines[-1].startswith("    -> manage.py discard_deliveries")

    def test_tells_all_reasons_and_when_it_ended(self, put):
        lines = run(put(State.DEAD, signal="", payload="forged:x", error="a\nb\x1b[2J", error_type="E")).splitlines()
        assert "  signal:   -" in lines
        assert any(line.startswith("  finished: ") and line.endswith("(0 s ago)") for line in lines)
        assert "  why:      It is dead since attempt 1: E: a" in lines
        assert any(line.startswith("            This release could not run it: ") for line in lines)

    def test_shows_the_traceback_where_it_is_asked_for(self, put):
        key = put(State.DEAD, traceback="Traceback:\n  line \x1b7")
        assert "Traceback:" not in run(key)
        assert "    Traceback:\n      line ?7\n" in run(key, verbosity=2)

    def test_of_one_that_could_not_be_opened(self, put):
        key = put(State.DEAD, receiver="", payload="forged:x")
        assert run(key).startswith(f"Delivery {key} to (it could not be opened)\n")

    def test_looks_in_every_database(self, put):
        key = put(alias="other")
        assert "[other]" in run(key)

    def test_tells_of_both_where_two_databases_have_one(self, put):
        key = put()
        row = OutboxDelivery.objects.values().get(delivery_id=key)
        OutboxDelivery.objects.using("other").bulk_create([OutboxDelivery(**row)])
        assert run(key).count("Delivery ") == 2
        assert [one["database"] for one in json.loads(run(key, "--json"))] == ["default", "other"]

    def test_for_a_machine_and_without_what_it_carries(self, put):
        key = put(State.DEAD, error_type="E", error="no")
        out = run(key, "--json")
        said = json.loads(out)
        assert (said["found"], said["database"], said["id"]) == (True, "default", key)
        assert (said["state"], said["receiver"], said["due"], said["at"]) == ("dead", FIRST, None, None)
        assert said["why"] == ["It is dead since attempt 1: E: no"]
        assert "T" in said["finished"]
        assert "hunter2" not in out

    def test_for_a_machine_with_the_time_of_what_is_next(self, put):
        assert "T" in json.loads(run(put(), "--json"))["at"]

    def test_no_row_is_an_error_that_says_what_that_can_mean(self, settings):
        with pytest.raises(CommandError) as raised:
            run("no\x1b such \udcff id")
        text = str(raised.value)
        assert text.startswith("There is no row of the delivery no? such ? id. That can mean:\n")
        assert (
            "\n  - 'no? such ? id' is no whole id: those that send() makes are UUIDs.\n  - It is not durable." in text
        )
        assert "\n  - It has ended more than 1 d ago (RETENTION)" in text
        assert "\n  - It was sent on another database. Looked at: default, other." in text
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "RETENTION": None}
        with pytest.raises(CommandError) as raised:
            run("no such id")
        assert "RETENTION" not in str(raised.value)

    def test_no_row_for_a_machine(self):
        out = StringIO()
        with pytest.raises(CommandError):
            call_command("explain_delivery", str(uuid.uuid4()), "--json", "--database", "other", stdout=out)
        said = json.loads(out.getvalue())
        assert (said["found"], said["databases"], len(said["meanings"])) == (False, ["other"], 4)

    def test_a_database_that_fails_is_an_error_that_says_how(self):
        def fail(execute: Any, sql: str, *rest: Any) -> Any:
            if OutboxDelivery._meta.db_table in sql:
                raise DatabaseError("permission denied")
            return execute(sql, *rest)

        with connections["default"].execute_wrapper(fail), pytest.raises(CommandError, match="permission denied"):
            run("an id")
