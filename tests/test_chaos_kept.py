"""The judge of runs with the outbox sees what it is there to see: each fault, put into a ledger by hand, is told."""

import itertools
import random
import re
from pathlib import Path
from typing import Any

import pytest

import deferred_signals
from tests.chaos.arms import POINTS, Arms
from tests.chaos.checker import Verdict
from tests.chaos.faults import SERVERS, STOPS, plan
from tests.chaos.kept import Ledger, judge

MAIN, CHILD = 100, 101
KINDS = {"durable": {"plain": ["index"]}, "atomic": {"sure": ["book"]}, "ordered": {"line": ["post"]}}
RECEIVERS = {"plain": "index", "sure": "book", "line": "post"}


class Story:
    """Writes a ledger, an event a second; the lease is so long that it has run out when nothing else is said."""

    def __init__(self, mode: str = "durable") -> None:
        self.committed: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []
        self.effects: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        self.clock = itertools.count()
        self.mode = mode
        [self.kind] = KINDS[mode]
        self.options: dict[str, Any] = {"lease": 1000, "atomic": ["book"]}
        self.note("killed", how="child", pid=1, main=1, before=0.0)

    def note(self, what: str, **fields: Any) -> None:
        self.events.append({"what": what, "at": float(next(self.clock)), **fields})

    def planned(self, intent: str, *, kept: bool = True, committed: bool = True, block: str | None = None) -> None:
        self.note("planned", intent=intent, kind=self.kind, kept=kept, block=block or intent)
        if committed:
            self.committed[intent] = self.kind

    def row(self, intent: str, state: str = "succeeded") -> None:
        about = {"delivery": f"to-{intent}", "receiver": RECEIVERS[self.kind], "intent": intent}
        self.rows.append({**about, "state": state, "error": "why"})

    def sent(self, intent: str) -> None:
        self.planned(intent)
        self.row(intent)
        self.note("sent", block=intent, deliveries={})

    def started(self, intent: str, attempt: int = 1, main: int = MAIN, pid: int = CHILD) -> None:
        about = {"delivery": f"to-{intent}", "intent": intent, "receiver": RECEIVERS[self.kind]}
        self.note("started", **about, attempt=attempt, pid=pid, main=main)

    def effect(self, intent: str) -> None:
        self.effects.append({"delivery": f"to-{intent}", "intent": intent, "receiver": RECEIVERS[self.kind]})

    def run(self, intent: str, **started: Any) -> None:
        self.started(intent, **started)
        self.effect(intent)

    def killed(self, how: str = "child", main: int = MAIN, **fields: Any) -> None:
        self.note(
            "killed",
            how=how,
            pid=CHILD if how == "child" else main,
            main=main,
            before=self.events[-1]["at"] + 0.5,
            **fields,
        )

    def verdict(self) -> Verdict:
        given = (self.committed, KINDS[self.mode], self.events, self.effects, self.rows)
        return judge(Ledger("redis", self.mode, *given, **self.options))


@pytest.fixture
def story() -> Story:
    return Story()


def test_a_run_in_which_all_went_well_breaks_no_promise(story: Story):
    for intent in ("i0-1", "i0-2"):
        story.sent(intent)
        story.run(intent)
    verdict = story.verdict()
    assert not verdict.broken
    assert verdict.line() == (
        "redis durable: deliveries=2 kills=1 lost=0 ghost=0 duplicated=0 duplicated_effects=0 out_of_order=0"
    )


def test_what_is_of_another_mode_is_not_judged(story: Story):
    story.kind = "sure"
    story.planned("i0-1")
    story.run("i0-1")
    story.effect("i0-1")
    assert story.verdict().line().startswith("redis durable: deliveries=0")
    assert not story.verdict().broken


class TestHarness:
    def test_a_run_without_a_kill_proves_nothing(self, story: Story):
        story.events.clear()
        assert story.verdict().broken == ["nothing was killed: this proves nothing"]

    def test_a_point_at_which_nothing_died_proves_nothing(self, story: Story):
        story.options["points"] = ["worker.after_claim", "relay.after_mark"]
        story.killed(point="relay.after_mark")
        [broken] = story.verdict().broken
        assert "worker.after_claim" in broken
        assert "relay.after_mark" not in broken

    def test_what_could_not_be_done_is_told(self, story: Story):
        story.options["unreached"] = ["stop at receiver"]
        assert story.verdict().broken == ["could not be done: stop at receiver"]

    def test_a_transaction_in_which_the_sender_died_may_be_there_or_not(self, story: Story):
        story.planned("i0-1", committed=False, block="0-1")
        story.planned("i0-2", committed=False, block="0-1")
        assert not story.verdict().broken

    def test_but_not_in_part(self, story: Story):
        story.planned("i0-1", committed=False, block="0-1")
        story.sent("i0-2")
        story.events[-2]["block"] = "0-1"
        story.run("i0-2")
        assert story.verdict().broken == ["of transaction 0-1 a part is not in the database"]

    def test_one_that_was_told_to_be_committed_is_there(self, story: Story):
        story.planned("i0-1", committed=False, block="0-1")
        story.note("sent", block="0-1", deliveries={})
        assert story.verdict().broken == ["of transaction 0-1 a part is not in the database"]

    def test_what_was_rolled_back_is_not(self, story: Story):
        story.sent("i0-1")
        story.events[-2]["kept"] = False
        story.run("i0-1")
        assert story.verdict().broken == ["i0-1 was rolled back, and is in the database"]


class TestLost:
    def test_a_row_without_an_effect_is_lost_whatever_it_says(self, story: Story):
        story.sent("i0-1")
        verdict = story.verdict()
        assert verdict.lost == 1
        assert verdict.broken == ["1 lost, the first is ('i0-1', 'index')"]
        assert verdict.unexplained

    def test_an_intent_without_a_row_is_told(self, story: Story):
        story.planned("i0-1")
        story.run("i0-1")
        [broken] = story.verdict().broken
        assert "1 deliveries have no row" in broken

    @pytest.mark.parametrize("state", ["pending", "running", "dead", "discarded"])
    def test_a_row_that_has_not_succeeded_is_told(self, story: Story, state: str):
        story.planned("i0-1")
        story.row("i0-1", state)
        story.run("i0-1")
        assert story.verdict().broken == [f"1 rows are {state}, the first is ('i0-1', 'index'): why"]

    def test_one_send_makes_one_row_for_a_receiver(self, story: Story):
        story.sent("i0-1")
        story.row("i0-1")
        story.run("i0-1")
        [broken] = story.verdict().broken
        assert "two rows for a receiver" in broken


class TestGhosts:
    def test_a_row_of_what_was_rolled_back_is_a_ghost(self, story: Story):
        story.planned("i0-1", kept=False, committed=False)
        story.row("i0-1")
        verdict = story.verdict()
        assert (verdict.ghost, verdict.deliveries) == (1, 0)
        assert verdict.broken == ["1 deliveries of what was rolled back"]

    def test_so_is_a_run_without_a_row(self, story: Story):
        story.planned("i0-1", kept=False, committed=False)
        story.started("i0-1")
        assert story.verdict().ghost == 1

    def test_and_one_of_a_transaction_that_died_with_its_sender(self, story: Story):
        story.planned("i0-1", committed=False)
        story.effect("i0-1")
        assert story.verdict().ghost == 1


class TestDuplicates:
    def test_a_run_beside_a_lease_that_is_held_is_a_broken_promise(self, story: Story):
        story.sent("i0-1")
        story.run("i0-1")
        story.run("i0-1", pid=CHILD + 1)
        verdict = story.verdict()
        assert (verdict.duplicated, verdict.duplicated_effects) == (1, 1)
        assert verdict.broken == ["1 ran again although their lease was held"]

    def test_a_retry_is_none(self, story: Story):
        story.sent("i0-1")
        story.started("i0-1")
        story.run("i0-1", attempt=2)
        assert story.verdict().duplicated == 0

    def test_a_kill_between_the_two_explains_it(self, story: Story):
        story.sent("i0-1")
        story.run("i0-1")
        story.killed()
        story.run("i0-1")
        verdict = story.verdict()
        assert verdict.duplicated_why == {"a worker or its child was killed": 1}
        assert not verdict.broken

    @pytest.mark.parametrize(("how", "explained"), [("child", False), ("main", True), ("group", True)])
    def test_a_kill_of_another_child_does_not_but_one_of_their_worker_does(
        self, story: Story, how: str, explained: bool
    ):
        story.sent("i0-1")
        story.run("i0-1", pid=CHILD + 1)
        story.killed(how)
        story.run("i0-1")
        assert bool(story.verdict().broken) is not explained

    @pytest.mark.parametrize("main", [MAIN, MAIN + 50])
    def test_one_of_another_or_a_later_one_does_not(self, story: Story, main: int):
        story.sent("i0-1")
        story.run("i0-1")
        if main != MAIN:
            story.killed("group", main=main)
        story.run("i0-1")
        story.killed()
        assert story.verdict().broken

    def test_a_process_that_stopped_explains_it_whichever_of_the_two_it_was(self, story: Story):
        story.note("stopped", pid=CHILD, main=MAIN)
        story.sent("i0-1")
        story.run("i0-1", pid=CHILD + 1)
        story.run("i0-1")
        assert story.verdict().duplicated_why == {"a process that was stopped woke": 1}

    def test_so_does_a_database_that_went_away(self, story: Story):
        story.sent("i0-1")
        story.run("i0-1")
        story.note("database down", how="terminate")
        story.note("database up")
        story.run("i0-1")
        assert story.verdict().duplicated_why == {"the database went away": 1}

    def test_one_that_was_back_before_does_not(self, story: Story):
        story.note("database down", how="terminate")
        story.note("database up")
        story.sent("i0-1")
        story.run("i0-1")
        story.run("i0-1")
        assert story.verdict().broken

    @pytest.mark.parametrize(
        "reason",
        [
            "a database went away",
            "the database did not answer",
            "the connection broke that its transaction was made over",
        ],
    )
    def test_one_that_had_cut_a_connection_before_does_if_the_run_says_so(self, story: Story, reason: str):
        story.note("database down", how="terminate")
        story.note("database up")
        story.sent("i0-1")
        story.run("i0-1")
        story.note("finished", delivery="to-i0-1", attempt=1, state="retry", reason=reason)
        story.run("i0-1")
        assert story.verdict().duplicated_why == {"the database went away": 1}

    def test_a_database_that_was_never_away_does_not_whatever_a_run_says(self, story: Story):
        story.sent("i0-1")
        story.run("i0-1")
        story.note("finished", delivery="to-i0-1", attempt=1, state="retry", reason="a database went away")
        story.run("i0-1")
        assert story.verdict().broken

    def test_nor_does_one_that_went_away_if_the_run_was_tried_again_for_another_reason(self, story: Story):
        story.note("database down", how="terminate")
        story.note("database up")
        story.sent("i0-1")
        story.run("i0-1")
        story.note("finished", delivery="to-i0-1", attempt=1, state="retry", reason="the receiver raised an error")
        story.run("i0-1")
        assert story.verdict().broken

    def test_so_does_the_end_of_its_lease(self, story: Story):
        story.options["lease"] = 1
        story.sent("i0-1")
        story.run("i0-1")
        story.run("i0-1")
        assert story.verdict().duplicated_why == {"its lease had run out": 1}

    def test_each_further_run_needs_its_own_reason(self, story: Story):
        story.sent("i0-1")
        story.run("i0-1")
        story.killed()
        story.run("i0-1", main=MAIN + 1)
        story.run("i0-1", main=MAIN + 1)
        assert story.verdict().broken == ["1 ran again although their lease was held"]


def test_of_an_atomic_receiver_a_second_effect_is_a_broken_promise():
    story = Story("atomic")
    story.sent("i0-1")
    story.run("i0-1")
    story.killed()
    story.run("i0-1")
    verdict = story.verdict()
    assert verdict.duplicated_effects == 1
    assert verdict.broken == ["1 effects of atomic receivers are there twice, the first is ('i0-1', 'book')"]


class TestOrder:
    def test_it_is_counted_and_not_promised_where_nobody_asked(self, story: Story):
        for intent in ("i0-1", "i0-2"):
            story.sent(intent)
        for intent in ("i0-2", "i0-1"):
            story.run(intent)
        verdict = story.verdict()
        assert verdict.out_of_order == 1
        assert not verdict.broken

    @pytest.mark.parametrize(("second", "late"), [("i0-21", 1), ("i0-2", 0), ("i1-21", 0)])
    def test_it_is_promised_for_each_key(self, second: str, late: int):
        story = Story("ordered")
        for intent in ("i0-1", second):
            story.sent(intent)
        for intent in (second, "i0-1"):
            story.run(intent)
        verdict = story.verdict()
        assert verdict.out_of_order == late
        assert len(verdict.broken) == late

    def test_effects_are_looked_at_as_well(self):
        story = Story("ordered")
        for intent in ("i0-1", "i0-21"):
            story.sent(intent)
            story.started(intent)
        for intent in ("i0-21", "i0-1"):
            story.effect(intent)
        assert story.verdict().out_of_order == 1

    def test_a_second_run_of_an_earlier_one_is_not_out_of_order(self):
        story = Story("ordered")
        for intent in ("i0-1", "i0-21"):
            story.sent(intent)
            story.run(intent)
        story.killed()
        story.run("i0-1")
        assert story.verdict().out_of_order == 0


class TestFaults:
    @pytest.mark.parametrize("times", [1, 3])
    def test_each_point_is_a_death_so_often_and_each_server_goes(self, times: int):
        found = plan(random.Random(1), times)
        assert all(found.count(point) == times for point in POINTS)
        assert all(found.count(f"stop at {point}") == times for point in STOPS)
        assert all(found.count(name) == often[times > 1] for name, often in SERVERS.items())

    def test_the_same_seed_gives_the_same(self):
        assert plan(random.Random(1), 2) == plan(random.Random(1), 2)
        assert plan(random.Random(1), 2) != plan(random.Random(2), 2)

    def test_an_arm_is_set_until_somebody_takes_it(self, tmp_path):
        arms = Arms(tmp_path / "arms")
        arms.set("receiver", "stop")
        assert (tmp_path / "arms" / "receiver").read_text() == "stop"
        assert arms.is_set("receiver")
        assert arms.take("receiver")
        assert not arms.is_set("receiver")
        assert not arms.take("receiver")


def test_the_points_of_the_library_are_those_at_which_a_run_has_something_die():
    package = Path(deferred_signals.__file__).parent
    named = {name for file in package.rglob("*.py") for name in re.findall(r'reach\("([\w.]+)"\)', file.read_text())}
    assert {*POINTS} == {*named, "receiver"}
    text = (package.parent / "docs" / "chaos.md").read_text()
    assert all(f"`{point}`" in text for point in POINTS)
