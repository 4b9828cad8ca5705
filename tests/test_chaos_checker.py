"""The judge of the ledger test sees what it is there to see: each fault, put into a ledger by hand, is told."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import client

from tests.chaos.aof import commands, log, popped
from tests.chaos.checker import Ledger, Verdict, judge
from tests.chaos.programs import Block, Programs
from tests.servers import Redis

MAIN, CHILD = 100, 101


class Story:
    """Writes a ledger, an event a second. It begins with a kill that is nobody's, for without one nothing is proven."""

    def __init__(self, broker: str = "rabbitmq-classic") -> None:
        self.committed: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []
        self.effects: list[dict[str, Any]] = []
        receivers = {"model": ["index"]}
        self.ledger = Ledger(broker, self.committed, receivers, self.events, self.effects)
        self.clock = itertools.count()
        self.killed("child", main=999)

    def note(self, what: str, **fields: Any) -> None:
        self.events.append({"what": what, "at": float(next(self.clock)), **fields})

    def planned(self, intent: str, *, kept: bool = True, committed: bool = True) -> None:
        self.note("planned", intent=intent, kind="model", kept=kept)
        if committed:
            self.committed[intent] = "model"

    def published(self, intent: str, what: str = "published") -> None:
        self.note(what, delivery=f"to-{intent}", intent=intent, receiver="index", sender="i0")

    def received(self, intent: str, main: int = MAIN) -> None:
        self.note("received", delivery=f"to-{intent}", main=main)

    def started(self, intent: str, attempt: int = 1, main: int = MAIN) -> None:
        self.note(
            "started", delivery=f"to-{intent}", intent=intent, receiver="index", attempt=attempt, pid=CHILD, main=main
        )

    def effect(self, intent: str) -> None:
        self.effects.append({"delivery": f"to-{intent}", "intent": intent, "receiver": "index"})

    def finished(self, intent: str, state: str = "succeeded", attempt: int = 1) -> None:
        self.note("finished", delivery=f"to-{intent}", state=state, attempt=attempt)

    def run(self, intent: str, main: int = MAIN) -> None:
        self.received(intent, main)
        self.started(intent, main=main)
        self.effect(intent)
        self.finished(intent)

    def sent(self, intent: str) -> None:
        self.planned(intent)
        self.published(intent)

    def killed(self, how: str, main: int = MAIN) -> None:
        before = float(next(self.clock))
        self.note("killed", how=how, pid=CHILD if how == "child" else main, main=main, before=before)

    def verdict(self) -> Verdict:
        return judge(self.ledger)


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.fixture
def redis() -> Story:
    story = Story("redis")
    story.ledger.popped = {"to-a", "to-b", "to-c"}
    return story


def test_a_run_in_which_all_went_well_breaks_no_promise(story: Story):
    for intent in "ab":
        story.sent(intent)
        story.run(intent)
    verdict = story.verdict()
    assert not verdict.broken
    assert not verdict.unexplained
    assert verdict.line() == (
        "rabbitmq-classic default: deliveries=2 kills=1 lost=0 ghost=0 duplicated=0 duplicated_effects=0 out_of_order=0"
    )


def test_a_run_without_a_kill_proves_nothing(story: Story):
    story.events.clear()
    assert story.verdict().broken == ["nothing was killed: this proves nothing"]


class TestLost:
    def test_a_confirmed_delivery_without_an_effect_is_lost(self, story: Story):
        story.sent("a")
        verdict = story.verdict()
        assert verdict.lost == 1
        assert verdict.broken == ["1 lost"]

    def test_what_the_broker_did_not_confirm_is_not_lost_but_unpublished(self, story: Story):
        story.planned("a")
        story.published("a", "unpublished")
        verdict = story.verdict()
        assert (verdict.deliveries, verdict.lost, verdict.unpublished) == (0, 0, 1)
        assert not verdict.broken

    def test_what_was_not_confirmed_and_has_arrived_is_told(self, story: Story):
        story.planned("a")
        story.published("a", "unpublished")
        story.run("a")
        verdict = story.verdict()
        assert (verdict.unpublished_but_run, verdict.ghost, verdict.duplicated) == (1, 0, 0)

    def test_what_the_sender_never_told_of_has_vanished(self, story: Story):
        story.planned("a")
        [broken] = story.verdict().broken
        assert "vanished in the sender" in broken

    def test_what_is_left_in_the_broker_is_no_drain(self, story: Story):
        story.ledger.left = 2
        [broken] = story.verdict().broken
        assert "2 messages were left in the broker" in broken

    def test_rabbitmq_has_no_excuse(self, story: Story):
        story.sent("a")
        story.killed("group")
        assert story.verdict().broken == ["1 lost"]


class TestLostByRedis:
    @pytest.mark.parametrize("how", ["main", "group"])
    def test_a_message_that_nobody_received_may_have_gone_with_a_worker(self, redis: Story, how: str):
        redis.sent("a")
        redis.killed(how)
        verdict = redis.verdict()
        assert verdict.lost == 1
        assert not verdict.broken
        assert verdict.lost_why["unexplained"] == 0

    def test_no_child_takes_a_message_with_it(self, redis: Story):
        redis.sent("a")
        redis.killed("child")
        verdict = redis.verdict()
        assert verdict.broken == ["1 lost that no worker's death explains"]
        assert verdict.unexplained

    def test_a_worker_that_died_before_the_send_explains_nothing(self, redis: Story):
        redis.killed("group")
        redis.sent("a")
        assert redis.verdict().broken == ["1 lost that no worker's death explains"]

    def test_a_sender_tells_of_a_message_only_when_its_whole_flush_is_through(self, redis: Story):
        redis.planned("a")
        redis.killed("group")
        redis.published("a")
        assert not redis.verdict().broken

    def test_a_worker_takes_one_message_with_it_and_not_two(self, redis: Story):
        redis.sent("a")
        redis.sent("b")
        redis.killed("group")
        verdict = redis.verdict()
        assert verdict.lost == 2
        assert verdict.broken == ["1 lost that no worker's death explains"]
        redis.killed("group")
        assert not redis.verdict().broken

    def test_two_deaths_before_the_second_send_do_not_explain_both(self, redis: Story):
        redis.sent("a")
        redis.killed("group")
        redis.killed("group")
        redis.sent("b")
        assert redis.verdict().broken == ["1 lost that no worker's death explains"]

    def test_the_server_s_death_may_take_one_for_each_worker(self, redis: Story):
        for intent in "abc":
            redis.sent(intent)
        redis.note("broker down", how="kill")
        redis.note("broker up")
        assert redis.verdict().broken == ["1 lost that no worker's death explains"]
        redis.ledger.workers = 3
        assert not redis.verdict().broken

    def test_what_redis_does_not_tell_to_be_popped_is_not_lost_by_it(self, redis: Story):
        redis.sent("a")
        redis.killed("group")
        redis.ledger.popped = set()
        verdict = redis.verdict()
        assert verdict.broken == ["1 lost that no worker's death explains"]
        assert verdict.unexplained

    def test_what_came_back_may_be_popped_by_the_next_that_dies(self, redis: Story):
        redis.sent("a")
        redis.received("a")
        redis.started("a")
        redis.killed("group")
        assert not redis.verdict().broken


class TestRedisLog:
    """What the log of a Redis server says about its messages."""

    def test_commands_are_read(self):
        text = b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$5\r\nLPUSH\r\n$5\r\nchaos\r\n$4\r\na\r\nb\r\n"
        assert list(commands(text)) == [[b"SELECT", b"0"], [b"LPUSH", b"chaos", b"a\r\nb"]]

    def test_a_message_that_is_popped_and_not_noted_is_told(self):
        assert popped([pushed("a"), POP]) == {"to-a"}

    def test_the_queue_gives_what_came_first(self):
        assert popped([pushed("a"), pushed("b"), POP]) == {"to-a"}
        assert popped([pushed("a"), pushed("b", b"RPUSH"), POP]) == {"to-b"}

    @pytest.mark.parametrize("after", [[], [[b"HDEL", b"unacked", b"a"]]])
    def test_one_that_is_noted_is_not_whatever_becomes_of_it(self, after: list[list[bytes]]):
        assert not popped([pushed("a"), POP, [b"MULTI"], [b"HSET", b"unacked", b"a", b"..."], [b"EXEC"], *after])

    def test_one_that_waits_is_not(self):
        assert not popped([pushed("a")])

    def test_one_that_came_back_and_is_popped_once_more_is(self):
        noted, back = [b"HSET", b"unacked", b"a", b"..."], [b"HDEL", b"unacked", b"a"]
        assert popped([pushed("a"), POP, noted, back, pushed("a", b"RPUSH"), POP]) == {"to-a"}

    def test_every_priority_has_a_list(self):
        low = b"chaos\x06\x169"
        assert popped([pushed("a"), [b"LPUSH", low, message("b")], [b"RPOP", low]]) == {"to-b"}

    def test_the_log_of_a_server_is_found(self, tmp_path: Path):
        server = Redis(tmp_path, appendonly=True).wait_ready()
        try:
            with client.Redis(port=server.port or 0) as connection:
                for _ in range(2):
                    connection.lpush("chaos", message("a"), message("b"), message("c"))
                connection.brpop(["chaos"])
                connection.brpop(["chaos"])
                connection.hset("unacked", "a", "...")
            server.restart()
            server.wait_ready()
            with client.Redis(port=server.port or 0) as connection:
                connection.brpop(["chaos"])
        finally:
            server.remove()
        assert popped(log(tmp_path)) == {"to-b", "to-c"}


POP = [b"RPOP", b"chaos"]


def message(intent: str) -> bytes:
    return json.dumps({"properties": {"delivery_tag": intent}, "headers": {"id": f"to-{intent}"}}).encode()


def pushed(intent: str, how: bytes = b"LPUSH") -> list[bytes]:
    return [how, b"chaos", message(intent)]


class TestGhosts:
    @pytest.mark.parametrize("broker", ["redis", "rabbitmq-quorum"])
    def test_the_effect_of_what_was_rolled_back_is_a_ghost(self, broker: str):
        story = Story(broker)
        story.planned("a", kept=False, committed=False)
        story.published("a")
        story.run("a")
        verdict = story.verdict()
        assert (verdict.ghost, verdict.deliveries) == (1, 0)
        assert verdict.broken == ["1 deliveries of what was rolled back"]

    def test_so_is_one_that_was_only_published(self, story: Story):
        story.planned("a", kept=False, committed=False)
        story.published("a")
        assert story.verdict().ghost == 1

    def test_plans_that_are_not_the_database_s_are_told(self, story: Story):
        story.planned("a", kept=True, committed=False)
        [broken] = story.verdict().broken
        assert "plan and database disagree" in broken


class TestDuplicates:
    def test_one_attempt_that_begins_twice_is_a_duplicate(self, story: Story):
        story.sent("a")
        story.run("a")
        story.run("a")
        verdict = story.verdict()
        assert (verdict.duplicated, verdict.duplicated_effects, verdict.lost) == (1, 1, 0)
        assert verdict.duplicated_why == {"unexplained": 1}
        assert verdict.unexplained
        assert not verdict.broken  # counted, and not promised

    def test_a_retry_is_none(self, story: Story):
        story.sent("a")
        story.received("a")
        story.started("a")
        story.finished("a", "retry")
        story.received("a")
        story.started("a", attempt=2)
        story.effect("a")
        assert story.verdict().duplicated == 0

    def test_an_idempotent_receiver_leaves_one_effect(self, story: Story):
        story.sent("a")
        story.run("a")
        story.started("a")
        verdict = story.verdict()
        assert (verdict.duplicated, verdict.duplicated_effects) == (1, 0)

    @pytest.mark.parametrize("how", ["child", "main", "group"])
    def test_a_kill_between_the_two_runs_explains_it(self, story: Story, how: str):
        story.sent("a")
        story.run("a")
        story.killed(how)
        story.run("a", main=MAIN + 1)
        assert story.verdict().duplicated_why == {"a worker or its child was killed": 1}

    @pytest.mark.parametrize("main", [MAIN + 1, MAIN])
    def test_a_kill_of_another_or_a_later_one_does_not(self, story: Story, main: int):
        story.sent("a")
        story.run("a")
        if main != MAIN:
            story.killed("group", main=main)
        story.run("a", main=MAIN + 2)
        story.killed("group")
        assert story.verdict().duplicated_why == {"unexplained": 1}

    def test_the_broker_s_fall_before_the_acknowledgement_explains_it(self, story: Story):
        story.sent("a")
        story.run("a")
        story.note("broker down", how="kill")
        story.note("broker up")
        story.run("a")
        assert story.verdict().duplicated_why == {"the broker fell before the acknowledgement": 1}

    def test_a_worker_may_read_after_the_broker_s_fall_what_it_had_got_before(self, story: Story):
        story.sent("a")
        story.note("broker down", how="kill")
        story.run("a")
        story.note("broker up")
        story.run("a")
        assert story.verdict().duplicated_why == {"the broker fell before the acknowledgement": 1}

    def test_a_fall_that_was_over_before_explains_nothing(self, story: Story):
        story.note("broker down", how="kill")
        story.note("broker up")
        for _ in range(10):
            story.sent("b")
        story.sent("a")
        story.run("a")
        story.run("a")
        assert story.verdict().duplicated_why == {"unexplained": 1}

    def test_the_broker_s_fall_before_its_answer_explains_it(self, story: Story):
        story.planned("a")
        story.note("broker down", how="kill")
        story.note("broker up")
        story.published("a")
        story.run("a")
        story.run("a")
        assert story.verdict().duplicated_why == {"sent once more when the broker fell before its answer": 1}

    def test_redis_gives_again_what_a_worker_held_for_too_long(self, redis: Story):
        redis.ledger.visibility_timeout = 3
        redis.sent("a")
        redis.run("a")
        redis.sent("b")
        redis.run("a")
        redis.run("b")
        assert redis.verdict().duplicated_why == {"the visibility timeout passed": 1}

    def test_what_a_retry_inherits_is_explained_once(self, story: Story):
        story.sent("a")
        for main in (MAIN, MAIN + 1):
            story.received("a", main)
            story.started("a", main=main)
            story.finished("a", "retry")
            story.killed("group", main=main)
        for _ in range(2):
            story.received("a", MAIN + 2)
            story.started("a", attempt=2, main=MAIN + 2)
            story.effect("a")
        verdict = story.verdict()
        assert verdict.duplicated == 1
        assert verdict.duplicated_why == {"a worker or its child was killed": 1}

    def test_one_send_makes_one_delivery_to_a_receiver(self, story: Story):
        story.sent("a")
        story.note("published", delivery="another", intent="a", receiver="index", sender="i0")
        story.run("a")
        assert any("two deliveries to a receiver" in broken for broken in story.verdict().broken)


class TestOrder:
    def test_what_begins_after_a_later_one_is_counted(self, story: Story):
        for intent in "abcd":
            story.sent(intent)
        for intent in "bacd":
            story.run(intent)
        verdict = story.verdict()
        assert verdict.out_of_order == 1
        assert not verdict.broken

    def test_senders_are_looked_at_one_by_one(self, story: Story):
        story.sent("a")
        story.planned("b")
        story.note("published", delivery="to-b", intent="b", receiver="index", sender="i1")
        story.run("b")
        story.run("a")
        assert story.verdict().out_of_order == 0

    def test_a_second_run_is_not_out_of_order(self, story: Story):
        story.sent("a")
        story.sent("b")
        for intent in "aba":
            story.run(intent)
        assert story.verdict().out_of_order == 0


class TestPrograms:
    def test_the_same_seed_gives_the_same_transactions(self):
        def first(seed: int) -> list[Block]:
            return list(itertools.islice(Programs(1, seed), 50))

        assert first(7) == first(7)
        assert first(7) != first(8)

    def test_they_hold_all_that_the_ledger_is_for(self):
        blocks = list(itertools.islice(Programs(0, 1), 500))
        nested = [part for block in blocks for part in within(block) if part is not block]
        assert any(block.fails for block in blocks)
        assert any(part.fails for part in nested)
        assert any(not part.fails for part in nested)
        assert any(not block.atomic for block in blocks)
        assert max(len(list(block.kept())) for block in blocks) == 50
        assert len({part.kind for block in blocks for part in block.sends()}) == 2
        kept = {part.intent for block in blocks for part in block.kept()}
        sent = {part.intent for block in blocks for part in block.sends()}
        assert kept < sent


def within(block: Block) -> Iterator[Block]:
    yield block
    for part in block.parts:
        if isinstance(part, Block):
            yield from within(part)
