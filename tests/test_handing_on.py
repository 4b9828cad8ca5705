"""What is left of a batch is handed on while a receiver keeps it waiting; what nobody takes is run here."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connections, transaction

from deferred_signals import Signal, batch_run, handing_on
from deferred_signals.batch_run import Member, Publish, run_all
from tests import receivers
from tests.receivers import curious

bell: Any = Signal()


def watching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "deferred_signals-batch"]


def until(condition: Callable[[], Any]) -> None:
    for _ in range(2000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come to that in time")


class TestTheWatch:
    def test_who_is_quick_keeps_all(self):
        rest = deque([1, 2, 3])
        with handing_on.handing_on(rest, lambda: 0, lambda part: pytest.fail("nothing to hand on")):
            pass
        assert [*rest] == [1, 2, 3]
        assert not watching()

    def test_what_waits_too_long_leaves_in_two_halves(self):
        rest, gone = deque([1, 2, 3, 4, 5]), list[list[int]]()

        def hand_on(part: list[int]) -> bool:
            gone.append(part)
            return True

        with handing_on.handing_on(rest, lambda: 0, hand_on):
            until(lambda: len(gone) == 2)
        assert gone == [[1, 2, 3], [4, 5]]
        assert not rest

    def test_the_last_one_leaves_alone(self):
        rest, gone = deque([1]), list[list[int]]()

        def hand_on(part: list[int]) -> bool:
            gone.append(part)
            return True

        with handing_on.handing_on(rest, lambda: 0, hand_on):
            until(lambda: gone)
        assert gone == [[1]]

    def test_as_long_as_it_goes_on_nothing_leaves(self, monkeypatch):
        monkeypatch.setattr(handing_on, "PATIENCE", 0.001)
        rest, looks = deque([1, 2]), list[int]()

        def count() -> int:
            looks.append(1)
            return len(looks)

        with handing_on.handing_on(rest, count, lambda part: pytest.fail("it goes on")):
            until(lambda: len(looks) > 5)
        assert [*rest] == [1, 2]

    def test_where_nothing_is_left_nothing_leaves(self, monkeypatch):
        monkeypatch.setattr(handing_on, "PATIENCE", 0.001)
        rest = deque[int]()
        with handing_on.handing_on(rest, lambda: 0, lambda part: pytest.fail("there is nothing")):
            until(lambda: not watching())

    @pytest.mark.parametrize("error", [None, ValueError("no"), SoftTimeLimitExceeded()], ids=repr)
    def test_what_nobody_takes_is_there_again(self, error, monkeypatch, caplog):
        monkeypatch.setattr(handing_on, "PATIENCE", 0.001)
        rest, asked = deque([1, 2, 3]), list[list[int]]()

        def hand_on(part: list[int]) -> bool:
            asked.append(part)
            if error is not None:
                raise error
            return False

        with handing_on.handing_on(rest, lambda: 0, hand_on):
            until(lambda: not watching())
        assert [*rest] == [1, 2, 3]
        assert asked == [[1, 2], [3]]
        assert ("could not be handed on" in caplog.text) is (error is not None)

    def test_one_half_may_leave_without_the_other(self, monkeypatch):
        monkeypatch.setattr(handing_on, "PATIENCE", 0.001)
        rest = deque([1, 2, 3, 4])
        with handing_on.handing_on(rest, lambda: 0, lambda part: part == [1, 2]):
            until(lambda: not watching())
        assert [*rest] == [3, 4]

    def test_the_block_waits_until_it_is_known_what_became_of_the_rest(self, monkeypatch):
        monkeypatch.setattr(handing_on, "PATIENCE", 0.001)
        begun, let_go, told = threading.Event(), threading.Event(), list[bool]()

        def hand_on(part: list[int]) -> bool:
            begun.set()
            let_go.wait(20)
            told.append(True)
            return True

        with handing_on.handing_on(deque([1]), lambda: 0, hand_on):
            begun.wait(20)
            threading.Timer(0.05, let_go.set).start()
        assert told == [True]

    def test_what_is_raised_in_the_block_comes_out_after_that(self, monkeypatch):
        with pytest.raises(KeyboardInterrupt):
            with handing_on.handing_on(deque([1]), lambda: 0, lambda part: True):
                raise KeyboardInterrupt
        assert not watching()

    @pytest.mark.django_db(transaction=True)
    def test_a_database_connection_that_a_receiver_of_celerys_signals_opened_is_closed(self, monkeypatch):
        monkeypatch.setattr(handing_on, "PATIENCE", 0.001)
        opened: list[Any] = []

        def hand_on(part: list[int]) -> bool:
            opened.append(connections["default"])
            return True

        with handing_on.handing_on(deque([1]), lambda: 0, hand_on):
            until(lambda: opened)
        assert opened[0].connection is None


class Clock:
    """Time stands still but for what receivers take."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Broker:
    """Takes what is handed on, if it ``takes``."""

    def __init__(self, *, takes: bool = True) -> None:
        self.takes = takes
        self.together: list[list[int]] = []

    def publish(self, members: Sequence[Member]) -> bool:
        self.together.append([member.envelope.kwargs["number"] for member in members])
        return self.takes

    @property
    def door(self) -> Publish:
        return Publish(self.publish, lambda members: pytest.fail("nobody asks for that"))


@pytest.mark.django_db(transaction=True)
class TestABatch:
    @pytest.fixture(autouse=True)
    def _one_worker(self, settings: Any) -> None:
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "PARALLELISM": 1}

    @pytest.fixture
    def payload(self, link, memory) -> Any:
        link(bell, curious, batch_size=10)
        with transaction.atomic():
            for number in range(6):
                bell.send(sender=None, number=number)
        return memory.payloads.pop()[1]

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> Clock:
        """And nobody is impatient."""
        clock = Clock()
        monkeypatch.setattr(batch_run, "time", clock)
        monkeypatch.setattr(handing_on, "PATIENCE", 3600.0)
        return clock

    def run_numbers(self, calls: Any) -> list[int]:
        return [kwargs["number"] for _, _, kwargs in calls]

    def test_after_a_while_none_is_begun_any_more_and_the_rest_is_handed_on(self, payload, clock, calls):
        def inquire(**kwargs: Any) -> None:
            clock.now += 0.4

        receivers.inquiries.append(inquire)
        broker = Broker()
        ended = run_all(payload, publish=broker.door)
        assert self.run_numbers(calls) == [0, 1, 2]
        assert broker.together == [[3, 4, 5]]
        assert len(ended) == 3

    def test_the_last_one_is_not_handed_on(self, payload, clock, calls):
        def inquire(number: int, **kwargs: Any) -> None:
            clock.now += 5 * (number == 5)

        receivers.inquiries.append(inquire)
        broker = Broker()
        assert len(run_all(payload, publish=broker.door)) == 6
        assert broker.together == []

    def test_what_the_broker_does_not_take_is_run_here_and_not_offered_for_each(self, payload, clock, calls):
        def inquire(**kwargs: Any) -> None:
            clock.now += 0.4

        receivers.inquiries.append(inquire)
        broker = Broker(takes=False)
        ended = run_all(payload, publish=broker.door)
        assert self.run_numbers(calls) == [0, 1, 2, 3, 4, 5]
        assert {outcome.state for _, outcome in ended} == {"succeeded"}
        assert broker.together == [[3, 4, 5]]

    def test_where_nobody_could_take_it_all_is_run_here(self, payload, clock, calls):
        def inquire(**kwargs: Any) -> None:
            clock.now += 5

        receivers.inquiries.append(inquire)
        assert len(run_all(payload)) == 6
        assert not watching()

    def test_while_a_receiver_waits_those_behind_it_are_run_elsewhere(self, payload, calls):
        broker = Broker()

        def inquire(number: int, **kwargs: Any) -> None:
            if number == 0:
                until(lambda: len(broker.together) == 2)

        receivers.inquiries.append(inquire)
        ended = run_all(payload, publish=broker.door)
        assert self.run_numbers(calls) == [0]
        assert broker.together == [[1, 2, 3], [4, 5]]
        assert {outcome.state for _, outcome in ended} == {"succeeded"}
        assert not watching()

    def test_what_the_broker_did_not_take_meanwhile_is_run_here_afterwards(self, payload, calls):
        broker = Broker(takes=False)

        def inquire(number: int, **kwargs: Any) -> None:
            if number == 0:
                until(lambda: len(broker.together) == 2)

        receivers.inquiries.append(inquire)
        ended = run_all(payload, publish=broker.door)
        assert sorted(self.run_numbers(calls)) == [0, 1, 2, 3, 4, 5]
        assert {outcome.state for _, outcome in ended} == {"succeeded"}

    def test_half_of_it_is_run_here_where_the_broker_took_the_other_half(self, payload, calls):
        offered: list[list[int]] = []

        def publish(members: Sequence[Member]) -> bool:
            offered.append([member.envelope.kwargs["number"] for member in members])
            return len(offered) == 1

        def inquire(number: int, **kwargs: Any) -> None:
            if number == 0:
                until(lambda: len(offered) == 2)

        receivers.inquiries.append(inquire)
        run_all(payload, publish=Publish(publish, lambda members: pytest.fail("not alone")))
        assert offered == [[1, 2, 3], [4, 5]]
        assert self.run_numbers(calls) == [0, 4, 5]
