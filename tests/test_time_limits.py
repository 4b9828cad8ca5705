"""Time limits of each receiver in a batch, where Celery's are for the whole message."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.db import transaction

from deferred_signals import Signal, time_limits
from deferred_signals.batch_run import Publish, run_all
from tests import receivers
from tests.receivers import curious

bell: Any = Signal()


def wait(seconds: float = 20) -> None:
    """What a receiver does that takes too long: an alarm interrupts it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.01)
    raise AssertionError("nothing has interrupted it")


@pytest.fixture(autouse=True)
def _no_alarm_is_left() -> Iterator[None]:
    yield
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


class TestTheBlock:
    def test_the_soft_limit_raises_in_it(self):
        with pytest.raises(SoftTimeLimitExceeded):
            with time_limits.limited(0.05, None):
                wait()

    def test_the_soft_limit_comes_before_the_hard_one(self):
        with pytest.raises(SoftTimeLimitExceeded):
            with time_limits.limited(0.05, 60):
                wait()

    @pytest.mark.parametrize("limits", [(None, None), (60, None), (None, 60), (60, 60)], ids=str)
    def test_what_is_in_time_is_let_alone(self, limits):
        with time_limits.limited(*limits):
            pass

    def test_what_is_raised_in_it_comes_out(self):
        with pytest.raises(ValueError, match="mine"):
            with time_limits.limited(60, 60):
                raise ValueError("mine")

    def test_an_alarm_of_the_projects_own_is_there_again(self):
        def own(*args: Any) -> None: ...

        signal.signal(signal.SIGALRM, own)
        try:
            with time_limits.limited(60, None):
                assert signal.getsignal(signal.SIGALRM) is not own
            assert signal.getsignal(signal.SIGALRM) is own
        finally:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)

    @pytest.mark.parametrize("soft", [None, 0.05])
    def test_the_hard_limit_ends_the_process_also_of_who_swallows_the_soft_one(self, soft, monkeypatch, caplog):
        killed: list[int] = []

        def kill(pid: int, number: int) -> None:
            killed.append(number)
            raise InterruptedError  # in real life, it is over

        monkeypatch.setattr(os, "kill", kill)
        with pytest.raises(InterruptedError):
            with time_limits.limited(soft, 0.1):
                with contextlib.suppress(SoftTimeLimitExceeded):
                    wait()
                wait()
        assert killed == [signal.SIGKILL]
        assert "ran into its hard time limit (0.1 s)" in caplog.text

    def test_an_alarm_at_the_very_end_leaves_no_other_behind(self, monkeypatch):
        """It has set the next one, for the hard limit, which would end the process while it runs another receiver."""
        alarms = [1]

        def setitimer(which: int, seconds: float) -> Any:
            if not seconds and alarms:
                alarms.pop()
                os.kill(os.getpid(), signal.SIGALRM)
            return real(which, seconds)

        real = signal.setitimer
        monkeypatch.setattr(signal, "setitimer", setitimer)
        with pytest.raises(SoftTimeLimitExceeded):
            with time_limits.limited(60, 61):
                pass
        assert not alarms


class TestWhereTheyCanBeHad:
    def test_in_the_main_thread(self):
        assert time_limits.can_be_had()

    def test_not_in_another(self):
        found: list[bool] = []
        thread = threading.Thread(target=lambda: found.append(time_limits.can_be_had()))
        thread.start()
        thread.join()
        assert found == [False]

    def test_not_among_greenlets(self, monkeypatch):
        monkeypatch.setattr(time_limits, "among_greenlets", lambda: True)
        assert not time_limits.can_be_had()


HARD = """
import django
django.setup()
from django.test.utils import setup_databases
setup_databases(0, False)
from django.db import transaction
from deferred_signals import Signal, connect, backends
from tests import receivers
import time
signal = Signal(name="bell")
connect(signal, receivers.curious, deferred=True, batch_size=10, time_limit=1)
def inquire(number, **kwargs):
    print("runs", number, flush=True)
    if number == 1:
        while True:
            try:
                time.sleep(60)
            except Exception:
                pass
receivers.inquiries.append(inquire)
with transaction.atomic():
    for number in range(3):
        signal.send(sender=None, number=number)
backends.current().deliver()
print("goes on", flush=True)
"""


def test_the_hard_limit_ends_the_process_as_celery_does_it():
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    root = Path(__file__).resolve().parent.parent
    script = f"from django.conf import settings; settings.DEFERRED_SIGNALS['PARALLELISM'] = 1\n{HARD}"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout == "runs 0\nruns 1\n"
    assert "A receiver ran into its hard time limit (1 s): its process is ended" in done.stderr


@pytest.mark.django_db(transaction=True)
class TestMembersOfABatch:
    @pytest.fixture(autouse=True)
    def _one_worker(self, settings: Any) -> None:
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "PARALLELISM": 1}

    @pytest.fixture
    def payload(self, link, memory):
        def make(**limits: Any) -> str:
            link(bell, curious, batch_size=10, **limits)
            with transaction.atomic():
                for number in range(3):
                    bell.send(sender=None, number=number)
            payload: str = memory.payloads.pop()[1]
            return payload

        return make

    def test_the_soft_limit_is_raised_in_that_one_only(self, payload, calls):
        def inquire(number: int, **kwargs: Any) -> None:
            if number == 1:
                wait()

        receivers.inquiries.append(inquire)
        ended = run_all(payload(soft_time_limit=0.1))
        assert [outcome.state for _, outcome in ended] == ["succeeded", "retry", "succeeded"]
        assert isinstance(ended[1][1].error, SoftTimeLimitExceeded)
        assert len(calls) == 3

    def test_each_has_its_time_anew(self, payload):
        ended = run_all(payload(soft_time_limit=60, time_limit=60))
        assert [outcome.state for _, outcome in ended] == ["succeeded"] * 3

    def test_where_they_cannot_be_had_each_leaves_for_a_message_of_its_own(self, payload, calls, monkeypatch):
        monkeypatch.setattr(time_limits, "among_greenlets", lambda: True)
        left: list[Any] = []

        def alone(members: Any) -> bool:
            left.extend(members)
            return True

        publish = Publish(lambda members: pytest.fail("not together"), alone)
        assert run_all(payload(time_limit=5), publish=publish) == []
        assert [member.envelope.kwargs["number"] for member in left] == [0, 1, 2]
        assert not calls

    @pytest.mark.parametrize("publish", [None, Publish(lambda members: False, lambda members: False)])
    def test_where_they_cannot_be_had_and_the_broker_is_away_all_are_run_without(
        self, publish, payload, calls, monkeypatch
    ):
        monkeypatch.setattr(time_limits, "among_greenlets", lambda: True)
        monkeypatch.setattr(time_limits, "limited", lambda soft, hard: pytest.fail("not limited"))
        ended = run_all(payload(soft_time_limit=5), publish=publish)
        assert [outcome.state for _, outcome in ended] == ["succeeded"] * 3
        assert len(calls) == 3

    def test_without_limits_no_pool_splits_a_batch(self, payload, calls, monkeypatch):
        monkeypatch.setattr(time_limits, "among_greenlets", lambda: True)
        publish = Publish(lambda members: pytest.fail("not together"), lambda members: pytest.fail("not alone"))
        assert len(run_all(payload(), publish=publish)) == 3
