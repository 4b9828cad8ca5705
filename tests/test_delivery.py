"""The worker's half: how each run ends, what is retried and for how long, what surrounds the receiver."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import time
from datetime import timedelta, tzinfo
from typing import Any

import pytest
from django.core.exceptions import ObjectDoesNotExist
from django.db import DatabaseError, DataError, InterfaceError, OperationalError, connection, connections, transaction
from django.db.models.signals import post_delete, post_save, pre_save
from django.db.transaction import TransactionManagementError
from django.utils import timezone, translation

from deferred_signals import Retry, Signal, current_delivery, registry
from deferred_signals.attempt import run
from deferred_signals.backends.memory import MemoryBackend
from deferred_signals.envelope import seal
from deferred_signals.exceptions import (
    DecodeError,
    InstanceMissing,
    NewerWire,
    NotCarriedError,
    OpenError,
    ReceiverCancelled,
    TooDeep,
    UnknownName,
    UnknownReceiver,
)
from deferred_signals.references import Reference
from deferred_signals.rows import fetch
from deferred_signals.signals import delivery_finished, delivery_started
from tests import receivers
from tests.receivers import curious, discards, first, on_instance, second, troubled, wants_later
from tests.shop.models import Customer

# Any: Django's stubs say that every response is a string.
rang: Any = Signal()
rang_again: Any = Signal()
rang_for_nobody: Any = Signal()


def send(**kwargs: Any) -> None:
    rang.send(sender=None, **kwargs)


def changed(memory: MemoryBackend, **changes: Any) -> str:
    """The payload that waits, changed and signed again, as another release or another state would have made it."""
    delivery, _ = memory.payloads.pop()
    return seal(json.dumps({**json.loads(delivery.text), **changes}))


class TestOutcomes:
    def test_a_receiver_that_returns_has_succeeded(self, link, outcome_of, calls):
        link(rang, first)
        send(tone="high")
        outcome = outcome_of()
        assert (outcome.state, outcome.error) == ("succeeded", None)
        assert calls == [("first", None, {"signal": rang, "tone": "high"})]

    def test_discard_is_on_purpose_and_not_retried(self, link, outcome_of, memory):
        link(rang, discards)
        send()
        assert outcome_of().reason == "nobody is waiting for it"
        assert not memory.payloads

    def test_retry_comes_back_after_the_asked_time(self, link, outcome_of, memory):
        link(rang, wants_later, max_retries=1)
        send()
        outcome = outcome_of()
        assert (outcome.state, outcome.countdown) == ("retry", 7)
        assert outcome_of().state == "dead"

    def test_what_is_raised_is_retried_and_then_dead(self, link, memory, calls, caplog):
        link(rang, troubled, max_retries=2)
        receivers.troubles += [ValueError("secret")] * 3
        send()
        states = [memory.deliver()[0][1].state for _ in range(3)]
        assert states == ["retry", "retry", "dead"]
        assert [kwargs["attempt"] for _, _, kwargs in calls] == [1, 2, 3]
        assert "attempt 3, is dead: the receiver raised in attempt 3, the last (max_retries)" in caplog.text
        assert "secret" not in caplog.text

    def test_a_later_attempt_may_succeed(self, link, outcome_of):
        link(rang, troubled)
        receivers.troubles.append(ValueError())
        send()
        assert [outcome_of().state, outcome_of().state] == ["retry", "succeeded"]

    def test_no_max_retries_is_for_ever(self, link, memory):
        link(rang, troubled, max_retries=None)
        receivers.troubles += [ValueError()] * 20
        send()
        assert {memory.deliver()[0][1].state for _ in range(20)} == {"retry"}

    @pytest.mark.parametrize(
        "given", [{"autoretry_for": (KeyError,)}, {"dont_autoretry_for": ValueError}, {"max_retries": 0}]
    )
    def test_what_is_not_to_be_retried_is_dead_at_once(self, given, link, outcome_of):
        link(rang, troubled, **given)
        receivers.troubles.append(ValueError("no"))
        send()
        outcome = outcome_of()
        assert (outcome.state, repr(outcome.error)) == ("dead", "ValueError('no')")

    def test_retry_is_heard_whatever_autoretry_for_says(self, link, outcome_of):
        link(rang, troubled, autoretry_for=())
        receivers.troubles.append(Retry("later", countdown=-5))
        send()
        assert (outcome := outcome_of()).state == "retry"
        assert outcome.countdown == 0

    def test_the_backoff_doubles_up_to_its_maximum(self, link, memory):
        link(rang, troubled, retry_backoff=2, retry_backoff_max=10, retry_jitter=False, max_retries=None)
        receivers.troubles += [ValueError()] * 4
        send()
        assert [memory.deliver()[0][1].countdown for _ in range(4)] == [2, 4, 8, 10]

    def test_jitter_stays_below_the_backoff(self, link, memory):
        link(rang, troubled, retry_backoff=100, max_retries=None)
        receivers.troubles += [ValueError()] * 30
        send()
        pauses = [memory.deliver()[0][1].countdown for _ in range(30)]
        assert all(0 <= pause <= 600 for pause in pauses)
        assert len(set(pauses)) == 30

    def test_without_backoff_the_pause_is_celerys_default(self, link, outcome_of):
        link(rang, troubled, retry_backoff=False)
        receivers.troubles.append(ValueError())
        send()
        assert outcome_of().countdown == 180


class TestPayloadsThatCannotRun:
    def test_a_forged_payload_is_dead_and_never_executed(self, link, memory, calls, caplog):
        link(rang, first)
        send()
        (_, payload) = memory.payloads.pop()
        delivery, outcome = run(payload.replace("first", "second"))
        assert (delivery, outcome.state) == (None, "dead")
        assert isinstance(outcome.error, OpenError)
        assert calls == []
        assert caplog.text.count("A payload is dead: The payload's signature is wrong") == 1

    def test_an_unknown_receiver_waits_for_a_release_and_then_is_dead(self, link, memory, settings):
        link(rang, first)
        send()
        payload = changed(memory, to="os.system")
        _, outcome = run(payload)
        assert outcome.state == "retry"
        assert isinstance(outcome.error, UnknownReceiver)
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "RELEASE_WINDOW": 0.001}
        since = json.loads(outcome.text)["waiting"]
        assert time.time() - since < 60
        _, outcome = run(seal(outcome.text.replace(f'"waiting":{since}', f'"waiting":{since - 1}')))
        assert outcome.state == "dead"
        assert "for more than 0.001 s" in outcome.reason

    def test_the_pauses_of_a_wait_double_and_use_up_no_attempt(self, link, memory):
        link(rang, first)
        send()
        started = time.time() - 40
        _, outcome = run(changed(memory, to="gone", waiting=started))
        assert 40 <= outcome.countdown < 60
        assert "attempt" not in json.loads(outcome.text)

    def test_a_newer_wire_version_waits_as_it_is(self, link, memory, settings):
        link(rang, first)
        send()
        payload = changed(memory, v=99, shape="unheard of")
        delivery, outcome = run(payload)
        assert (delivery, outcome.state) == (None, "retry")
        again = json.loads(outcome.text)
        assert (again["v"], again["shape"]) == (99, "unheard of")
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "RELEASE_WINDOW": 10}
        _, outcome = run(seal(json.dumps({**again, "waiting": again["waiting"] - 11})))
        assert outcome.state == "dead"
        assert isinstance(outcome.error, NewerWire)

    def test_an_unknown_type_tag_waits_for_a_release(self, link, memory):
        link(rang, first)
        send()
        _, outcome = run(changed(memory, kwargs={"x": {"$shop.money": 1}}))
        assert outcome.state == "retry"

    def test_a_value_that_makes_no_sense_is_dead(self, link, memory):
        link(rang, first)
        send()
        _, outcome = run(changed(memory, kwargs={"x": {"$decimal": "many"}}))
        assert outcome.state == "dead"
        assert isinstance(outcome.error, DecodeError)

    def test_a_time_zone_that_the_worker_does_not_have_is_waited_for(self, link, memory, calls):
        link(rang, first, max_retries=0)
        send()
        _, outcome = run(changed(memory, context={"timezone": "Middle/Earth"}))
        assert (outcome.state, type(outcome.error)) == ("retry", UnknownName)
        assert calls == []

    def test_a_receiver_that_is_disconnected_gets_what_was_sent_before(self, memory, calls):
        rang.connect(first, deferred=True)
        send()
        assert rang.disconnect(first)
        send()
        ((_, outcome),) = memory.deliver()
        assert outcome.state == "succeeded"
        assert calls == [("first", None, {"signal": rang})]

    def test_a_renamed_receiver_gets_old_deliveries_by_its_alias(self, link, memory, calls):
        link(rang, first, aliases=["shop.receivers.old_name"])
        send()
        run(changed(memory, to="shop.receivers.old_name"))
        assert [name for name, _, _ in calls] == ["first"]

    @pytest.mark.parametrize("name", ["tests.test_delivery.rang_for_nobody", "tests.test_delivery.nothing", None])
    def test_a_signal_of_another_release(self, name, link, memory, calls):
        link(rang, first)
        send()
        _, outcome = run(changed(memory, signal=name))
        assert outcome.state == "succeeded"
        assert calls[0][2]["signal"] is (rang_for_nobody if name and name.endswith("nobody") else rang)

    def test_a_signal_that_cannot_be_told_waits_for_a_release(self, link, memory):
        link(rang, first)
        link(rang_again, first)
        send()
        _, outcome = run(changed(memory, signal="shop.signals.gone"))
        assert outcome.state == "retry"

    def test_a_chain_of_deliveries_has_an_end(self, link, memory):
        link(rang, curious)
        receivers.inquiries.append(lambda **kwargs: send())
        send()
        for depth in range(9):
            ((delivery, outcome),) = memory.deliver()
            assert (delivery.depth, outcome.state) == (depth, "succeeded")
        ((_, outcome),) = memory.deliver()
        assert isinstance(outcome.error, TooDeep)
        assert "CHAIN_LIMIT is 8" in outcome.reason


@pytest.mark.django_db(transaction=True)
class TestReceiversThatSaveWhatTheyListenTo:
    """A receiver's own save of its own instance sends the signal to it again."""

    def test_it_runs_once_and_what_its_save_causes_is_dead_with_an_explanation(self, link, memory, calls, caplog):
        link(post_save, curious, Customer)
        receivers.inquiries.append(lambda instance, **kwargs: instance.save())
        Customer.objects.create(name="Ada")
        ends = [outcome for _ in range(5) for _, outcome in memory.deliver()]
        assert [outcome.state for outcome in ends] == ["succeeded", "dead"]
        assert isinstance(ends[1].error, TooDeep)
        assert "saved the instance that it listens to" in ends[1].reason
        assert "SELF_LIMIT is 1" in caplog.text
        assert len(calls) == 1

    def test_every_retry_of_it_is_seen(self, link, memory, calls):
        link(post_save, curious, Customer, max_retries=1)

        def save_and_fail(instance: Any, **kwargs: Any) -> None:
            instance.save()
            raise ValueError

        receivers.inquiries.append(save_and_fail)
        Customer.objects.create(name="Ada")
        states = [outcome.state for _ in range(5) for _, outcome in memory.deliver()]
        assert sorted(states) == ["dead", "dead", "dead", "retry"]
        assert len(calls) == 2

    def test_the_limit_is_a_setting(self, link, memory, calls, settings):
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "SELF_LIMIT": 3}
        link(post_save, curious, Customer)
        receivers.inquiries.append(lambda instance, **kwargs: instance.save())
        Customer.objects.create(name="Ada")
        states = [outcome.state for _ in range(5) for _, outcome in memory.deliver()]
        assert states == ["succeeded", "succeeded", "succeeded", "dead"]

    def test_another_instance_and_another_receiver_are_only_a_chain(self, link, memory, calls):
        link(post_save, curious, Customer)
        link(post_save, on_instance, Customer)
        receivers.inquiries.append(
            lambda instance, **kwargs: Customer.objects.create(name="Next") if instance.name == "Ada" else None
        )
        Customer.objects.create(name="Ada")
        ends = [end for _ in range(3) for end in memory.deliver()]
        assert [outcome.state for _, outcome in ends] == ["succeeded"] * 4
        assert [(delivery.depth, delivery.repeats) for delivery, _ in ends if delivery] == [(0, 0)] * 2 + [(1, 0)] * 2

    def test_to_delete_what_was_saved_is_another_event(self, link, memory, calls):
        link(post_save, curious, Customer)
        link(post_delete, curious, Customer)
        receivers.inquiries.append(lambda signal, instance, **kwargs: signal is post_save and instance.delete())
        Customer.objects.create(name="Ada")
        assert [outcome.state for _ in range(3) for _, outcome in memory.deliver()] == ["succeeded"] * 2

    def test_before_and_after_a_save_are_one_event(self, link, memory, calls):
        link(pre_save, curious, Customer)
        link(post_save, curious, Customer)
        receivers.inquiries.append(lambda instance, **kwargs: instance.save() if instance.pk else None)
        Customer.objects.create(name="Ada")
        states = [outcome.state for _ in range(9) for _, outcome in memory.deliver()]
        assert sorted(states) == ["dead"] * 2 + ["succeeded"] * 2

    def test_a_save_after_the_receiver_is_no_repetition(self, link, memory, calls):
        link(post_save, curious, Customer)
        ada = Customer.objects.create(name="Ada")
        memory.deliver()
        ada.save()
        ((delivery, outcome),) = memory.deliver()
        assert delivery
        assert (delivery.depth, outcome.state) == (0, "succeeded")

    def test_what_the_remedies_say_is_true(self, link, memory, calls):
        link(post_save, curious, Customer, when=lambda created, **kwargs: created)
        receivers.inquiries.append(lambda instance, **kwargs: instance.save())
        Customer.objects.create(name="Ada")
        assert [outcome.state for _ in range(3) for _, outcome in memory.deliver()] == ["succeeded"]


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
class TestRowsAndDatabases:
    @pytest.mark.parametrize(("missing", "state"), [("discard", "discarded"), ("retry", "retry"), ("dead", "dead")])
    def test_a_row_that_is_gone_follows_the_policy(self, missing, state, link, outcome_of, calls):
        link(post_save, on_instance, Customer, missing=missing)
        Customer.objects.create(name="Ada")
        Customer.objects.all().delete()
        outcome = outcome_of()
        assert (outcome.state, type(outcome.error)) == (state, InstanceMissing)
        assert calls == []

    def test_a_reference_is_the_row_as_it_is_now(self, link, memory, calls):
        link(post_save, on_instance, Customer)
        Customer.objects.create(name="Ada")
        Customer.objects.update(name="Eve")
        memory.deliver()
        assert calls[0][2]["instance"].name == "Eve"

    def test_a_database_error_is_not_a_missing_row(self, link, outcome_of, monkeypatch, calls):
        link(post_save, on_instance, Customer, max_retries=0)
        Customer.objects.create(name="Ada")

        def away(reference: Reference) -> None:
            raise DatabaseError("away")

        monkeypatch.setattr("deferred_signals.codec.models.fetch", away)
        outcome = outcome_of()
        assert (outcome.state, outcome.reason) == ("retry", "the database did not answer")
        assert json.loads(outcome.text)["waiting"] > 0
        assert calls == []

    def test_a_key_that_the_database_cannot_hold_is_dead_and_not_waited_for(self, link, outcome_of, calls):
        """As PostgreSQL says of a NUL in a text."""
        link(rang, first)
        send(instance=Customer.objects.create(name="Ada"))

        def refuse(*args: Any) -> None:
            raise DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")

        with connection.execute_wrapper(refuse):
            outcome = outcome_of()
        assert (outcome.state, type(outcome.error)) == ("dead", DecodeError)
        assert calls == []

    @pytest.mark.parametrize("kind", [OperationalError, InterfaceError])
    def test_a_database_that_goes_away_in_the_receiver_uses_up_no_attempt(self, kind, link, outcome_of, monkeypatch):
        link(rang, troubled, max_retries=0)
        receivers.troubles.append(kind("server closed the connection unexpectedly"))
        send()

        def away() -> None:
            raise OperationalError("away")

        connection.ensure_connection()
        monkeypatch.setattr(connection, "ensure_connection", away)
        assert outcome_of().reason == "a database went away"

    def test_a_connection_that_broke_in_the_receiver_uses_up_no_attempt_though_the_server_is_back(
        self, link, outcome_of, monkeypatch
    ):
        """With a real server: tests/integration/test_worker_faults.py::TestStaleConnections."""
        other = connections["other"]
        closed: list[bool] = []

        def break_it(**kwargs: Any) -> None:
            other.ensure_connection()
            monkeypatch.setattr(other, "errors_occurred", True)
            monkeypatch.setattr(other, "is_usable", lambda: bool(closed))
            monkeypatch.setattr(other, "close", lambda: closed.append(True))
            raise OperationalError("server closed the connection unexpectedly")

        link(rang, curious, max_retries=0)
        receivers.inquiries.append(break_it)
        send()
        outcome = outcome_of()
        assert (outcome.state, outcome.reason) == ("retry", "a database went away")
        assert json.loads(outcome.text).get("attempt", 1) == 1
        assert closed

    def test_a_database_error_of_a_database_that_answers_is_the_receivers(self, link, outcome_of):
        link(rang, troubled, max_retries=0)
        receivers.troubles.append(OperationalError("no such table"))
        send()
        assert outcome_of().state == "dead"

    def test_a_receiver_that_leaves_a_transaction_open_has_failed_for_nothing_of_it_is_committed(
        self, link, outcome_of
    ):
        link(rang, curious)

        def write(**kwargs: Any) -> None:
            transaction.set_autocommit(False)
            Customer.objects.create(name="Ada")

        receivers.inquiries.append(write)
        send()
        outcome = outcome_of()
        assert (outcome.state, type(outcome.error)) == ("retry", TransactionManagementError)
        assert connection.get_autocommit()
        assert not Customer.objects.exists()

    def test_what_a_receiver_raises_before_it_closes_its_transaction_is_its_error(self, link, outcome_of):
        link(rang, curious)

        def fail(**kwargs: Any) -> None:
            transaction.set_autocommit(False)
            raise ValueError("no")

        receivers.inquiries.append(fail)
        send()
        assert type(outcome_of().error) is ValueError
        assert connection.get_autocommit()

    def test_a_transaction_that_was_open_before_stays_open(self, link, memory):
        link(rang, curious)
        receivers.inquiries.append(lambda **kwargs: Customer.objects.create(name="Ada"))
        send()
        with transaction.atomic():
            assert [outcome.state for _, outcome in memory.deliver()] == ["succeeded"]
            assert connection.in_atomic_block
        assert Customer.objects.exists()

    def test_decoding_makes_no_deliveries(self, link, memory, monkeypatch):
        link(post_save, on_instance, Customer)
        link(rang, first)
        ada = Customer.objects.create(name="Ada")

        def fetch_and_send(reference: Reference) -> Any:
            send()
            return fetch(reference)

        monkeypatch.setattr("deferred_signals.codec.models.fetch", fetch_and_send)
        memory.deliver()
        assert receivers.calls[0][2]["instance"] == ada
        assert not memory.payloads

    def test_a_row_that_is_not_found_in_the_receiver_is_the_receivers(self, link, outcome_of):
        link(rang, troubled, max_retries=0)
        receivers.troubles.append(ObjectDoesNotExist())
        send()
        assert outcome_of().state == "dead"


class TestAroundTheReceiver:
    def test_the_current_delivery_is_known_inside_only(self, link, memory):
        link(rang, curious)
        seen: list[Any] = []
        receivers.inquiries.append(lambda **kwargs: seen.append(current_delivery()))
        ((_, sent),) = rang.send(sender=None)
        memory.deliver()
        (delivery,) = seen
        assert (delivery.id, delivery.attempt, delivery.signal) == (sent.id, 1, "tests.test_delivery.rang")
        assert abs((delivery.created - sent.created).total_seconds()) < 0.01
        assert delivery.payload == ""
        assert current_delivery() is None

    @pytest.mark.parametrize("function", [receivers.cancelled, receivers.cancelled_in_a_group])
    def test_an_async_receiver_that_is_cancelled_has_raised(self, function, link, outcome_of):
        link(rang, function)
        send()
        outcome = outcome_of()
        assert (outcome.state, type(outcome.error)) == ("retry", ReceiverCancelled)

    def test_what_ends_the_process_is_not_taken_for_a_cancellation(self, link, memory):
        link(rang, receivers.exits_in_a_group)
        send()
        with pytest.raises(BaseExceptionGroup):
            memory.deliver()

    @pytest.mark.parametrize(
        ("countdown", "seconds"), [(timedelta(minutes=2), 120), (-3, 0), (1.5, 1.5)], ids=["timedelta", "past", "float"]
    )
    def test_retry_takes_seconds_and_timedeltas(self, countdown, seconds, link, outcome_of):
        link(rang, troubled)
        receivers.troubles.append(Retry(countdown=countdown))
        send()
        assert outcome_of().countdown == seconds

    @pytest.mark.parametrize(("countdown", "kind"), [("5", TypeError), (True, TypeError), (float("inf"), ValueError)])
    def test_retry_refuses_what_is_no_time(self, countdown, kind):
        with pytest.raises(kind, match="countdown"):
            Retry(countdown=countdown)

    def test_an_async_receiver_behind_a_plain_decorator_is_awaited(self, link, memory, calls):
        link(rang, receivers.behind_a_decorator)
        send()
        ((_, outcome),) = memory.deliver()
        assert outcome.state == "succeeded"
        assert [name for name, _, _ in calls] == ["behind_a_decorator"]

    def test_language_and_time_zone_are_restored_and_do_not_leak(self, link, memory):
        link(rang, curious)
        seen = []
        receivers.inquiries.append(
            lambda **kwargs: seen.append((translation.get_language(), timezone.get_current_timezone_name()))
        )
        with translation.override("de"), timezone.override("Asia/Tokyo"):
            send()
        with translation.override(None), timezone.override(timezone.get_fixed_timezone(90)):
            send()
        with timezone.override(_Moon()):
            send()
        memory.deliver()
        assert seen == [("de", "Asia/Tokyo"), (None, "+0130"), ("en", "Europe/Vienna")]
        assert (translation.get_language(), timezone.get_current_timezone_name()) == ("en", "Europe/Vienna")

    def test_observers_hear_of_every_attempt(self, link, memory):
        link(rang, troubled)
        receivers.troubles.append(ValueError())
        heard: list[tuple[str, int]] = []

        def on_start(delivery: Any, **kwargs: Any) -> None:
            heard.append(("started", delivery.attempt))

        def on_finish(delivery: Any, outcome: Any, **kwargs: Any) -> None:
            heard.append((outcome.state, delivery.attempt))

        with _observed(delivery_started, on_start), _observed(delivery_finished, on_finish):
            send()
            memory.deliver()
            memory.deliver()
        assert heard == [("started", 1), ("retry", 1), ("started", 2), ("succeeded", 2)]

    def test_the_log_tells_receiver_id_and_outcome(self, link, memory, caplog):
        caplog.set_level(logging.INFO, "deferred_signals")
        link(rang, discards)
        ((_, delivery),) = rang.send(sender=None)
        memory.deliver()
        assert f"Delivery {delivery.id} to tests.receivers.discards, attempt 1, is discarded: nobody" in caplog.text

    def test_a_delivery_knows_its_function_where_it_is_registered(self, link, memory):
        link(rang, second)
        delivery = rang.send(sender=None)[0][1]
        assert delivery.function is second
        assert dataclasses.replace(delivery, receiver="shop.gone").function is None
        with pytest.raises(UnknownReceiver):
            registry.get("shop.gone")


class _Moon(tzinfo):
    """A time zone object of another library."""

    def utcoffset(self, when: Any) -> timedelta:
        return timedelta(minutes=39)

    def tzname(self, when: Any) -> str:
        return "LTC"

    def dst(self, when: Any) -> None: ...


@contextlib.contextmanager
def _observed(signal: Any, observer: Any) -> Any:
    signal.connect(observer, sender=troubled)
    yield
    signal.disconnect(observer, sender=troubled)


@pytest.mark.django_db(transaction=True)
class TestRowsThatNobodyNames:
    """A row that is gone counts only if the receiver asks for it."""

    def test_an_argument_that_the_receiver_does_not_name_is_a_marker(self, link, outcome_of, calls):
        link(rang, first)
        ada = Customer.objects.create(name="Ada")
        send(customer=ada, number=7)
        ada.delete()
        assert outcome_of().state == "succeeded"
        [(_, _, kwargs)] = calls
        assert kwargs["number"] == 7
        with pytest.raises(
            NotCarriedError, match=r"^kwargs\['customer'\] \(a model instance\) did not travel.* is gone"
        ):
            str(kwargs["customer"])

    @pytest.mark.parametrize(("receiver", "name"), [(receivers.on_item, "item"), (first, "instance")])
    def test_one_that_it_names_and_the_instance_follow_the_policy(self, receiver, name, link, outcome_of, calls):
        link(rang, receiver)
        ada = Customer.objects.create(name="Ada")
        send(**{name: ada})
        ada.delete()
        assert (outcome_of().state, calls) == ("discarded", [])
