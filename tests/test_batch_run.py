"""What a worker does with a batch: each member is a delivery for itself, with a run and an outcome of its own."""

from __future__ import annotations

import contextvars
import json
import logging
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.db import connection, transaction
from django.utils import translation

from deferred_signals import Delivery, Discard, Signal, batch, batch_run, current_delivery, keeping
from deferred_signals.backends.memory import MemoryBackend
from deferred_signals.batch_run import Run, run_all
from deferred_signals.envelope import seal, unseal
from deferred_signals.exceptions import NewerWire, OpenError, UnknownReceiver, WorkerLost
from deferred_signals.outcome import Outcome
from tests import receivers
from tests.receivers import curious, first, on_instance, troubled
from tests.shop.models import Customer

bell: Any = Signal()
left_behind: contextvars.ContextVar[str] = contextvars.ContextVar("left_behind", default="nothing")

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _one_worker(settings: Any) -> None:
    settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "PARALLELISM": 1}


def send(count: int, **named: Any) -> list[str]:
    """Send so often in one transaction; the ids."""
    with transaction.atomic():
        return [bell.send(sender=None, number=number, **named)[0][1].id for number in range(count)]


def states(ended: list[Run]) -> list[str]:
    return [outcome.state for _, outcome in ended]


def changed(payload: str, place: int, **changes: Any) -> str:
    """The same batch with other values in one of its members, signed again."""
    data = json.loads(payload.rpartition(":")[0])
    data["of"][place] |= changes
    return seal(json.dumps(data))


class TestEachMember:
    def test_it_is_the_current_delivery_while_it_runs(self, link, memory):
        link(bell, curious, batch_size=10)
        found: list[Delivery | None] = []
        receivers.inquiries.append(lambda **kwargs: found.append(current_delivery()))
        ids = send(3)
        memory.deliver()
        assert [one.id for one in found if one] == ids
        assert [one.receiver for one in found if one] == ["tests.receivers.curious"] * 3
        assert current_delivery() is None

    def test_observers_hear_of_each_when_it_begins_and_when_it_ends(self, link, memory, told):
        link(bell, first, batch_size=10)
        ids = send(2)
        memory.deliver()
        assert [(what, delivery.id) for what, delivery, _ in told] == [
            ("started", ids[0]), ("finished", ids[0]), ("started", ids[1]), ("finished", ids[1])
        ]  # fmt: skip

    def test_one_that_raises_does_not_stop_the_others(self, link, memory, calls):
        link(bell, curious, batch_size=10, max_retries=0)

        def inquire(number: int, **kwargs: Any) -> None:
            if number == 1:
                raise ValueError("number one")

        receivers.inquiries.append(inquire)
        send(4)
        assert states(memory.deliver()) == ["succeeded", "dead", "succeeded", "succeeded"]
        assert len(calls) == 4

    def test_one_that_raises_is_retried_alone_under_its_own_id(self, link, memory, calls):
        link(bell, troubled, batch_size=10)
        receivers.troubles.append(ValueError("once"))
        ids = send(3)
        ended = memory.deliver()
        assert states(ended) == ["retry", "succeeded", "succeeded"]
        ((_, payload),) = memory.payloads
        envelope = unseal(payload)
        assert (envelope.id, envelope.attempt) == (ids[0], 2)
        assert states(memory.deliver()) == ["succeeded"]
        assert [kwargs["attempt"] for _, _, kwargs in calls] == [1, 1, 1, 2]

    def test_each_may_end_in_another_way(self, link, memory):
        link(bell, curious, batch_size=10, max_retries=1)
        ends: list[Exception | None] = [None, Discard("not now"), ValueError(), None]

        def inquire(number: int, **kwargs: Any) -> None:
            end = ends[number]
            if end is not None:
                raise end

        receivers.inquiries.append(inquire)
        send(4)
        assert states(memory.deliver()) == ["succeeded", "discarded", "retry", "succeeded"]
        assert states(memory.deliver()) == ["dead"]

    def test_it_has_the_context_of_its_own_send(self, link, memory):
        link(bell, curious, batch_size=10)
        languages: list[str | None] = []
        receivers.inquiries.append(lambda **kwargs: languages.append(translation.get_language()))
        with transaction.atomic():
            for language in ("de", "fr", "de"):
                with translation.override(language):
                    bell.send(sender=None)
        memory.deliver()
        assert languages == ["de", "fr", "de"]

    def test_what_one_leaves_in_a_context_variable_is_not_for_the_next(self, link, memory):
        link(bell, curious, batch_size=10)
        found: list[str] = []

        def inquire(number: int, **kwargs: Any) -> None:
            found.append(left_behind.get())
            left_behind.set(f"by {number}")

        receivers.inquiries.append(inquire)
        send(3)
        memory.deliver()
        assert found == ["nothing"] * 3

    def test_arguments_of_one_are_not_those_of_another(self, link, memory, calls):
        link(bell, first, batch_size=10)
        with transaction.atomic():
            for tones in ([1], [1], [2]):
                bell.send(sender=None, tones=tones)
        memory.deliver()
        assert [kwargs["tones"] for _, _, kwargs in calls] == [[1], [1], [2]]
        assert calls[0][2]["tones"] is not calls[1][2]["tones"]

    def test_one_whose_transaction_breaks_leaves_the_next_an_open_database(self, link, memory):
        link(bell, curious, batch_size=10, max_retries=0)

        def inquire(number: int, **kwargs: Any) -> None:
            with transaction.atomic():
                Customer.objects.create(name=f"number {number}")
                if number == 0:
                    raise ValueError

        receivers.inquiries.append(inquire)
        send(3)
        assert states(memory.deliver()) == ["dead", "succeeded", "succeeded"]
        assert sorted(Customer.objects.values_list("name", flat=True)) == ["number 1", "number 2"]

    @pytest.mark.parametrize(
        "leave_open", [lambda: transaction.atomic().__enter__(), lambda: transaction.set_autocommit(False)]
    )
    def test_one_that_leaves_a_transaction_open_has_failed_and_keeps_nothing_from_the_next(
        self, leave_open, link, memory
    ):
        link(bell, curious, batch_size=10)

        def write(number: int, **kwargs: Any) -> None:
            if number == 1:
                leave_open()
            Customer.objects.create(name=str(number))

        receivers.inquiries.append(write)
        send(3)
        ended = memory.deliver()
        connection.close()  # as a worker does when the message is done
        assert states(ended) == ["succeeded", "retry", "succeeded"]
        assert "left a transaction open on 'default'" in str(ended[1][1].error)
        assert sorted(Customer.objects.values_list("name", flat=True)) == ["0", "2"]

    def test_one_whose_row_is_gone_is_judged_alone(self, link, memory, calls):
        link(bell, on_instance, batch_size=10)
        with transaction.atomic():
            customers = [Customer.objects.create(name=str(number)) for number in range(3)]
            for customer in customers:
                bell.send(sender=None, instance=customer)
        customers[1].delete()
        assert states(memory.deliver()) == ["succeeded", "discarded", "succeeded"]
        assert [kwargs["instance"].name for _, _, kwargs in calls] == ["0", "2"]

    def test_one_that_has_expired_is_discarded_alone(self, link, memory, calls):
        link(bell, first, batch_size=10)
        send(3)
        ((delivery, payload),) = memory.payloads
        memory.payloads[:] = [(delivery, changed(payload, 1, expires=1))]
        ended = memory.deliver()
        assert [(outcome.state, outcome.reason) for _, outcome in ended] == [
            ("succeeded", ""), ("discarded", "expired"), ("succeeded", "")
        ]  # fmt: skip
        assert [kwargs["number"] for _, _, kwargs in calls] == [0, 2]

    def test_encrypted_ones_are_opened_each(self, link, memory, settings, calls):
        settings.DEFERRED_SIGNALS = {
            **settings.DEFERRED_SIGNALS, "ENCRYPTION_KEYS": [Fernet.generate_key().decode()]
        }  # fmt: skip
        link(bell, troubled, batch_size=10, encrypt=True)
        receivers.troubles.append(ValueError())
        send(2)
        assert states(memory.deliver()) == ["retry", "succeeded"]
        assert unseal(memory.payloads[0][1]).encrypted
        assert states(memory.deliver()) == ["succeeded"]

    def test_a_receiver_that_is_not_known_here_holds_each_up(self, link, memory, monkeypatch):
        link(bell, first, batch_size=10, time_limit=5)
        ids = send(2)
        monkeypatch.setattr("deferred_signals.registry._by_name", {})
        ended = memory.deliver()
        assert states(ended) == ["retry", "retry"]
        assert {type(outcome.error) for _, outcome in ended} == {UnknownReceiver}
        assert [unseal(payload).id for _, payload in memory.payloads] == ids

    def test_the_log_has_a_line_for_each_with_what_was_raised(self, link, memory, caplog):
        link(bell, troubled, batch_size=10)
        receivers.troubles.append(ValueError("out of tea"))
        (one, _) = send(2)
        with caplog.at_level(logging.INFO, "deferred_signals"):
            memory.deliver()
        assert f"Delivery {one} to tests.receivers.troubled, attempt 1, will be retried in" in caplog.text
        assert "(ValueError: out of tea)" in caplog.text

    def test_one_that_dies_is_kept_with_a_payload_of_its_own(self, link, memory, monkeypatch):
        class Kept:
            def __init__(self) -> None:
                self.buried: list[tuple[str, Any]] = []

            def bury(self, payload: str, delivery: Any, end: Outcome) -> None:
                self.buried.append((payload, delivery))

        link(bell, troubled, batch_size=10, max_retries=0)
        receivers.troubles.append(ValueError())
        ids = send(2)
        outbox = Kept()
        monkeypatch.setattr(keeping, "_outbox", outbox)
        memory.deliver()
        ((payload, delivery),) = outbox.buried
        assert unseal(payload).id == delivery.id == ids[0]

    def test_receivers_that_send_in_turn_have_its_depth(self, link, memory):
        link(bell, curious, batch_size=10)
        depths: list[int] = []

        def inquire(number: int, **kwargs: Any) -> None:
            delivery = current_delivery()
            assert delivery
            depths.append(delivery.depth)
            if delivery.depth == 0:
                bell.send(sender=None, number=number)

        receivers.inquiries.append(inquire)
        send(2)
        memory.deliver()
        memory.deliver()
        assert depths == [0, 0, 1, 1]


class TestARedeliveredBatch:
    """It may have ended a worker: which of its members did is not known."""

    @pytest.fixture
    def payload(self, link, memory: MemoryBackend) -> str:
        link(bell, first, batch_size=10)
        send(3)
        return memory.payloads.pop()[1]

    def test_nobody_is_run_and_each_leaves_alone_with_a_crash_counted(self, payload, calls):
        ended = run_all(payload, redelivered=True)
        assert calls == []
        assert states(ended) == ["retry"] * 3
        left = [unseal(seal(outcome.text)) for _, outcome in ended]
        assert [envelope.crashes for envelope in left] == [1, 1, 1]
        assert [envelope.kwargs["number"] for envelope in left] == [0, 1, 2]
        assert all(isinstance(outcome.error, WorkerLost) for _, outcome in ended)

    def test_each_then_runs_as_the_same_attempt(self, payload, calls):
        for _, outcome in run_all(payload, redelivered=True):
            ((delivery, end),) = run_all(seal(outcome.text))
            assert delivery
            assert (delivery.attempt, delivery.crashes, end.state) == (1, 1, "succeeded")
        assert len(calls) == 3

    def test_one_at_the_crash_limit_is_dead_and_the_others_are_not(self, payload, calls, settings):
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "CRASH_LIMIT": 3}
        ended = run_all(changed(payload, 1, crashes=2), redelivered=True)
        assert states(ended) == ["retry", "dead", "retry"]

    def test_one_that_has_expired_is_discarded(self, payload):
        assert states(run_all(changed(payload, 2, expires=1), redelivered=True)) == ["retry", "retry", "discarded"]

    def test_one_that_cannot_be_read_is_dead(self, payload):
        ended = run_all(changed(payload, 0, id=5), redelivered=True)
        assert states(ended) == ["dead", "retry", "retry"]


class TestARollingRelease:
    def test_a_member_of_a_newer_wire_waits_alone(self, link, memory, calls):
        link(bell, first, batch_size=10)
        send(3)
        ((_, payload),) = memory.payloads
        ended = run_all(changed(payload, 1, v=99, news="!"))
        assert sorted(states(ended)) == ["retry", "succeeded", "succeeded"]
        ((delivery, outcome),) = [run for run in ended if run[1].state == "retry"]
        assert delivery is None
        assert isinstance(outcome.error, NewerWire)
        data = json.loads(outcome.text)
        assert (data["v"], data["news"]) == (99, "!")
        assert data["waiting"] > 0
        assert [kwargs["number"] for _, _, kwargs in calls] == [0, 2]

    def test_a_batch_of_a_newer_version_waits_as_it_is(self, link, memory, calls):
        link(bell, first, batch_size=10)
        send(2)
        ((_, payload),) = memory.payloads
        data = json.loads(payload.rpartition(":")[0])
        ((delivery, outcome),) = run_all(seal(json.dumps({**data, "batch": 2}, separators=(",", ":"))))
        assert (delivery, outcome.state) == (None, "retry")
        assert "The batch is of version 2; this release reads up to 1." in outcome.reason
        again = json.loads(outcome.text)
        assert again.pop("waiting") > 0
        assert again == {**data, "batch": 2}
        assert batch.is_batch(outcome.text)  # so that the next worker knows it for one
        assert calls == []

    def test_it_waits_no_longer_than_the_window(self, link, memory):
        ((_, outcome),) = run_all(seal('{"batch":2,"of":[],"waiting":1}'))
        assert outcome.state == "dead"


class TestInterruptions:
    """What Celery or its pool says to the worker is no receiver's, and is not obeyed late."""

    @pytest.mark.parametrize("error", [SystemExit(-241), KeyboardInterrupt()], ids=repr)
    def test_what_is_for_the_worker_passes_at_once(self, error, link, memory, calls):
        link(bell, troubled, batch_size=10)
        receivers.troubles.append(error)
        send(3)
        ((_, payload),) = memory.payloads
        with pytest.raises(type(error)):
            run_all(payload)
        assert len(calls) == 1

    def test_what_is_the_receivers_own_is_its_outcome(self, link, memory, calls):
        link(bell, troubled, batch_size=10, max_retries=0)
        receivers.troubles.append(SystemExit(1))
        send(3)
        ((_, payload),) = memory.payloads
        assert states(run_all(payload, passes=lambda error: False)) == ["dead", "succeeded", "succeeded"]
        assert len(calls) == 3


class TestASingleDelivery:
    def test_it_goes_its_own_way(self, link, memory, calls):
        link(bell, first)
        send(1)
        ((_, payload),) = memory.payloads
        assert states(run_all(payload)) == ["succeeded"]

    def test_a_payload_that_is_no_text_is_dead(self):
        ((delivery, outcome),) = run_all(None)
        assert delivery is None
        assert isinstance(outcome.error, OpenError)

    def test_nothing_is_asked_of_limits_where_nothing_could_be_opened(self, monkeypatch):
        monkeypatch.setattr(batch_run, "_limits", None)  # would raise
        ((_, outcome),) = run_all(seal('{"batch":1,"of":[1]}'))
        assert outcome.state == "dead"
