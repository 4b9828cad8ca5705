"""The testing kit: delivering what was captured, and the faults that can be asked for."""

import asyncio
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import SynchronousOnlyOperation
from django.db import DatabaseError, connection, transaction
from django.db.models.signals import post_save

from deferred_signals import Retry, Signal, current_delivery
from deferred_signals.exceptions import DecodeError, ReceiverInterrupted, TooDeep, WorkerLost
from deferred_signals.testing import WorkerKilled, assert_idempotent, capture_deliveries, immediate_deliveries
from deferred_signals.testing.idempotence import frozen
from tests import receivers
from tests.shop.models import Customer

ordered, paid = Signal(), Signal()
FIRST, CURIOUS = "tests.receivers.first", "tests.receivers.curious"


def attempts():
    return [kwargs.get("number") for name, _, kwargs in receivers.calls]


def asked(**kwargs):
    receivers.inquiries.append(mock.Mock(**kwargs))
    return receivers.inquiries[-1]


class TestDeliver:
    def test_it_goes_through_the_wire(self, link, calls):
        link(ordered, receivers.first)
        items = [1, 2]
        with capture_deliveries() as captured:
            ordered.send("shop", items=items)
        items.append(3)
        ((delivery, outcome),) = captured.deliver()
        assert (delivery, outcome.state, delivery.state) == (captured[0], "succeeded", "succeeded")
        assert calls == [("first", "shop", {"items": [1, 2], "signal": ordered})]
        assert captured.waiting == []
        assert captured.deliver() == []

    def test_what_was_tampered_with_is_dead(self, link, calls):
        link(ordered, receivers.first)
        with capture_deliveries() as captured:
            ordered.send("shop")
        captured[0]._payload = captured[0].payload.replace("shop", "cafe")
        ((_, outcome),) = captured.deliver(raises=False)
        assert outcome.state == "dead"
        assert calls == []

    @pytest.mark.django_db
    def test_what_keeps_a_row_from_being_read_is_shown(self, link):
        link(ordered, receivers.on_instance)
        with capture_deliveries() as captured:
            ordered.send("shop", instance=Customer.objects.create(name="Ada"))
        error = SynchronousOnlyOperation("not in a coroutine")
        with mock.patch("deferred_signals.rows.read", side_effect=error):
            with pytest.raises(DecodeError, match="SynchronousOnlyOperation") as raised:
                captured.deliver()
        assert raised.value.__cause__ is error

    def test_it_goes_on_with_what_receivers_send(self, link):
        link(ordered, receivers.curious)
        link(paid, receivers.first)
        inquiry = asked(side_effect=lambda **_: paid.send(None, number=1))
        with capture_deliveries() as captured:
            ordered.send(None)
        assert [run.delivery.receiver for run in captured.deliver()] == [CURIOUS, FIRST]
        assert len(captured) == 2
        assert captured[1].delivery.depth == 1
        inquiry.assert_called_once()

    def test_once_is_what_waits_now(self, link):
        link(ordered, receivers.curious)
        link(paid, receivers.first)
        asked(side_effect=lambda **_: paid.send(None))
        with capture_deliveries() as captured:
            ordered.send(None)
        assert [run.delivery.receiver for run in captured.deliver(once=True)] == [CURIOUS]
        assert [one.receiver for one in captured.waiting] == [FIRST]

    def test_only_those_to_one_receiver(self, link, calls):
        link(ordered, receivers.first)
        link(ordered, receivers.second)
        with capture_deliveries() as captured:
            ordered.send(None)
        captured.deliver(receivers.second)
        assert [name for name, *_ in calls] == ["second"]
        assert [one.receiver for one in captured.waiting] == [FIRST]

    def test_retries_follow_at_once(self, link, calls):
        link(ordered, receivers.troubled, max_retries=2)
        receivers.troubles[:] = [LookupError("one"), Retry("two", countdown=3600)]
        with capture_deliveries() as captured:
            ordered.send(None)
        assert [run.outcome.state for run in captured.deliver()] == ["retry", "retry", "succeeded"]
        assert [kwargs["attempt"] for *_, kwargs in calls] == [1, 2, 3]
        assert [end.state for end in captured[0].outcomes] == ["retry", "retry", "succeeded"]

    def test_what_a_receiver_has_died_of_is_raised(self, link, calls):
        link(ordered, receivers.troubled, max_retries=1)
        link(ordered, receivers.first)
        receivers.troubles[:] = [LookupError("one"), LookupError("two")]
        with capture_deliveries() as captured:
            ordered.send(None)
        with pytest.raises(LookupError, match=r"^two\b") as raised:
            captured.deliver()
        reason = "the receiver raised in attempt 2, the last (max_retries)"
        assert raised.value.__notes__ == [
            f"So died the delivery {captured[0].id} to tests.receivers.troubled: {reason}"
        ]
        assert [name for name, *_ in calls] == ["troubled", "first", "troubled"]

    def test_or_only_told(self, link):
        link(ordered, receivers.troubled, max_retries=0)
        link(ordered, receivers.discards)
        receivers.troubles[:] = [LookupError()]
        with capture_deliveries() as captured:
            ordered.send(None)
        assert [run.outcome.state for run in captured.deliver(raises=False)] == ["dead", "discarded"]

    def test_what_does_not_end_is_a_failure(self, link):
        link(ordered, receivers.troubled, max_retries=None)
        receivers.troubles[:] = [LookupError() for _ in range(60)]
        with capture_deliveries() as captured:
            ordered.send(None)
        with pytest.raises(AssertionError, match=r"^There is no end after 50 runs, the last was of tests.*troubled\."):
            captured.deliver(limit=50)

    def test_a_chain_ends_where_it_does_at_work(self, link):
        link(ordered, receivers.curious)
        asked(side_effect=lambda **_: ordered.send(None))
        with capture_deliveries() as captured:
            ordered.send(None)
        with pytest.raises(TooDeep):
            captured.deliver()

    def test_an_exit_is_the_receivers(self, link):
        link(ordered, receivers.troubled, max_retries=0)
        receivers.troubles[:] = [SystemExit(1)]
        with capture_deliveries() as captured:
            ordered.send(None)
        with pytest.raises(ReceiverInterrupted):
            captured.deliver()

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), pytest.skip.Exception("not here")])
    def test_what_is_for_the_test_run_is_not(self, error, link):
        link(ordered, receivers.troubled)
        receivers.troubles[:] = [error]
        with capture_deliveries() as captured:
            ordered.send(None)
        with pytest.raises(type(error)):
            captured.deliver()

    async def test_an_async_receiver_in_a_coroutine(self, link, calls):
        link(ordered, receivers.asynchronous)
        with capture_deliveries() as captured:
            await ordered.asend(None)
        assert [run.outcome.state for run in await captured.adeliver()] == ["succeeded"]
        assert [name for name, *_ in calls] == ["asynchronous"]

    @pytest.mark.django_db
    def test_what_the_database_refuses_does_not_end_the_test(self, link):
        def insert(**kwargs):
            User.objects.create(username="ada")

        link(ordered, receivers.curious, max_retries=1)
        User.objects.create(username="ada")
        asked(side_effect=insert)
        with capture_deliveries() as captured:
            ordered.send(None)
        assert [run.outcome.state for run in captured.deliver(raises=False)] == ["retry", "dead"]
        assert User.objects.count() == 1

    @pytest.mark.django_db
    def test_neither_does_a_statement_that_the_receiver_has_written_itself(self, link):
        def insert(**kwargs):
            Customer.objects.create(name="Ada")
            with connection.cursor() as cursor:
                cursor.execute("SELECT nonsense FROM nowhere")

        link(ordered, receivers.curious, max_retries=0)
        asked(side_effect=insert)
        with capture_deliveries() as captured:
            ordered.send(None)
        assert [run.outcome.state for run in captured.deliver(raises=False)] == ["dead"]
        assert Customer.objects.count() in {0, 1}  # PostgreSQL ends the transaction with the statement

    @pytest.mark.django_db
    def test_a_savepoint_that_cannot_be_released_is_gone_back_to(self, link, monkeypatch):
        link(ordered, receivers.curious, max_retries=0)
        asked(side_effect=lambda **_: Customer.objects.create(name="Ada"))
        with capture_deliveries() as captured:
            ordered.send(None)
        release = transaction.savepoint_commit
        refused: list[object] = []

        def refuse(*args, **kwargs):
            if not refused:
                refused.append(args)
                raise DatabaseError("the transaction is aborted")
            release(*args, **kwargs)

        monkeypatch.setattr(transaction, "savepoint_commit", refuse)
        captured.deliver()
        assert Customer.objects.count() == 0

    @pytest.mark.django_db
    def test_in_a_transaction_that_is_broken_already_no_savepoint_is_made(self, link, calls):
        link(ordered, receivers.first)
        with capture_deliveries() as captured:
            ordered.send(None)
            with transaction.atomic():
                transaction.set_rollback(True)
                captured.deliver()
        assert len(calls) == 1


class TestFaults:
    @pytest.fixture(autouse=True)
    def _listening(self, link):
        link(ordered, receivers.curious)

    def test_a_duplicate_is_the_same_payload_once_more(self):
        inquiry = asked()
        with capture_deliveries() as captured:
            ordered.send(None, number=1)
            ordered.send(None, number=2)
        assert [run.outcome.state for run in captured.deliver(duplicate=True)] == ["succeeded"] * 4
        assert [call.kwargs["number"] for call in inquiry.mock_calls] == [1, 1, 2, 2]

    def test_a_duplicate_comes_when_the_first_has_ended(self, link):
        link(paid, receivers.troubled)
        receivers.troubles[:] = [LookupError()]
        with capture_deliveries() as captured:
            paid.send(None)
        assert [run.outcome.state for run in captured.deliver(duplicate=True)] == ["retry", "succeeded", "succeeded"]

    def test_what_a_duplicate_raises_fails_the_test(self, link):
        link(paid, receivers.troubled, max_retries=0)
        with capture_deliveries() as captured:
            paid.send(None)
        with mock.patch.object(receivers, "current_delivery", side_effect=[None, LookupError("there already")]):
            with pytest.raises(LookupError, match="there already"):
                captured.deliver(duplicate=True)

    @pytest.mark.parametrize(("crash", "runs"), [("before", 1), ("after", 2)])
    def test_a_worker_is_lost_once_for_each(self, crash, runs):
        seen: list[tuple[int, int]] = []

        def note(number, **kwargs):
            delivery = current_delivery()
            assert delivery
            seen.append((number, delivery.crashes))

        asked(side_effect=note)
        with capture_deliveries() as captured:
            ordered.send(None, number=1)
            ordered.send(None, number=2)
        ended = captured.deliver(crash=crash)
        assert [run.outcome.state for run in ended] == ["retry", "retry", "succeeded", "succeeded"]
        assert isinstance(ended[0].outcome.error, WorkerLost)
        assert seen == ([(1, 0), (2, 0)] if runs == 2 else []) + [(1, 1), (2, 1)]

    def test_a_worker_can_be_lost_in_the_midst_of_a_receiver(self):
        asked(side_effect=[WorkerKilled, None])
        with capture_deliveries() as captured:
            ordered.send(None)
        assert [run.outcome.state for run in captured.deliver()] == ["retry", "succeeded"]

    def test_and_in_an_async_one(self, link):
        link(paid, receivers.asynchronous)
        with capture_deliveries() as captured:
            paid.send(None)
        calls = mock.Mock(side_effect=[WorkerKilled, None])
        with mock.patch.object(receivers, "calls", mock.Mock(append=calls)):
            assert [run.outcome.state for run in captured.deliver()] == ["retry", "succeeded"]

    def test_who_always_loses_its_worker_is_dead_as_at_work(self, settings):
        asked(side_effect=WorkerKilled)
        with capture_deliveries() as captured:
            ordered.send(None)
        with pytest.raises(WorkerLost, match="came back 10 times"):
            captured.deliver()

    def test_crash_takes_two_words(self):
        with capture_deliveries() as captured, pytest.raises(ValueError, match="'before' or 'after'"):
            captured.deliver(crash="now")  # type: ignore[arg-type]

    def test_the_order_can_be_by_chance_and_repeated(self):
        def numbers(seed):
            receivers.calls.clear()
            with capture_deliveries() as captured:
                for number in range(8):
                    ordered.send(None, number=number)
            captured.deliver(order=seed)
            return attempts()

        assert sorted(numbers(1)) == [*range(8)]
        assert numbers(1) == numbers(1) != numbers(2)

    def test_the_order_can_be_given(self):
        with capture_deliveries() as captured:
            for number in range(3):
                ordered.send(None, number=number)
        captured.deliver(order=reversed)
        assert attempts() == [2, 1, 0]

    @pytest.mark.parametrize(
        "wrong", [lambda given: given[:1], lambda given: given[:1] * 2, lambda given: [*given, *given]]
    )
    def test_an_order_that_is_none_is_refused(self, wrong):
        with capture_deliveries() as captured:
            ordered.send(None)
            ordered.send(None)
        with pytest.raises(ValueError, match="each of them once"):
            captured.deliver(order=wrong)


class TestIdempotence:
    @pytest.fixture
    def one(self, link):
        link(ordered, receivers.curious)
        with capture_deliveries() as captured:
            ordered.send(None, number=1)
        return captured[0]

    def test_a_receiver_that_adds_up_is_found(self, one):
        stock = [5]
        asked(side_effect=lambda **_: stock.append(stock.pop() - 1))
        with pytest.raises(AssertionError) as failure:
            assert_idempotent(one, state=lambda: {"stock": stock})
        assert str(failure.value).splitlines() == [
            f"{CURIOUS} is not idempotent.",
            "  After one run:  {'stock': [4]}",
            "  after two runs: {'stock': [3]}",
        ]

    def test_a_receiver_that_sets_passes(self, one):
        stock = {"level": 5}
        asked(side_effect=lambda **_: stock.update(level=4))
        assert_idempotent(one, state=lambda: stock)
        assert [end.state for end in one.outcomes] == ["succeeded"] * 2

    def test_what_the_first_run_does_not_change_proves_nothing(self, one):
        with pytest.raises(AssertionError, match="has changed nothing that state"):
            assert_idempotent(one, state=lambda: 1)

    def test_a_second_run_that_raises_is_not_idempotent(self, one, link):
        done: list[int] = []

        def only_once(**kwargs):
            if done:
                raise LookupError("there already")
            done.append(1)

        asked(side_effect=only_once)
        with pytest.raises(AssertionError, match="its second run has raised LookupError") as failure:
            assert_idempotent(one, state=lambda: done)
        assert isinstance(failure.value.__cause__, LookupError)

    def test_a_first_run_that_raises_is_no_proof(self, one):
        asked(side_effect=LookupError("broken"))
        with pytest.raises(LookupError, match="broken"):
            assert_idempotent(one, state=list)

    def test_neither_is_one_that_dies(self, link):
        link(ordered, receivers.troubled, max_retries=0)
        receivers.troubles[:] = [LookupError("broken")]
        with capture_deliveries() as captured:
            ordered.send(None)
        with pytest.raises(LookupError, match="broken") as raised:
            assert_idempotent(captured[0], state=list)
        assert raised.value.__notes__[0].startswith(f"So died the delivery {captured[0].id} ")

    def test_one_that_has_ended_cannot_tell(self, one):
        asked()
        assert_idempotent(one, state=lambda: len(receivers.calls) and 1)
        with pytest.raises(ValueError, match="this one has ended"):
            assert_idempotent(one, state=list)

    def test_what_a_receiver_sends_belongs_to_its_effects(self, one, link):
        link(paid, receivers.first)
        asked(side_effect=lambda **_: paid.send(None))
        with pytest.raises(AssertionError, match="is not idempotent"):
            assert_idempotent(one, state=lambda: [name for name, *_ in receivers.calls if name == "first"])

    @pytest.mark.django_db
    def test_rows_are_compared_by_what_is_in_them(self):
        ada = Customer.objects.create(name="Ada")
        asked_for = {"rows": Customer.objects.all(), "ids": {ada.pk}, "one": ada, "pair": (1, "x")}
        before = frozen(asked_for)
        fields = {"id": ada.pk, "name": "Ada", "email": ""}
        assert before == {
            "rows": [("shop.Customer", fields)],
            "ids": {ada.pk},
            "one": ("shop.Customer", fields),
            "pair": [1, "x"],
        }
        Customer.objects.update(name="Grace")
        assert frozen(asked_for)["rows"] == [("shop.Customer", fields | {"name": "Grace"})]


class TestImmediate:
    @pytest.fixture(autouse=True)
    def _listening(self, link):
        link(ordered, receivers.curious)
        link(post_save, receivers.on_instance, Customer)

    def test_what_is_sent_is_run_at_once(self):
        with immediate_deliveries() as deliveries:
            ordered.send(None, number=1)
            assert attempts() == [1]
        deliveries.assert_deferred(receivers.curious, number=1, count=1)

    @pytest.mark.django_db
    def test_in_a_block_at_its_end(self):
        with immediate_deliveries():
            with transaction.atomic():
                Customer.objects.create(name="Ada")
                assert receivers.calls == []
            assert [name for name, *_ in receivers.calls] == ["on_instance"]

    def test_what_a_receiver_sends_comes_after_it(self, link, calls):
        link(paid, receivers.first)
        asked(side_effect=lambda **_: paid.send(None))
        asked(side_effect=lambda **_: calls.append(("end of curious", None, {})))
        with immediate_deliveries():
            ordered.send(None)
        assert [name for name, *_ in calls] == ["curious", "end of curious", "first"]

    def test_what_kills_a_delivery_reaches_the_test_and_not_the_sender(self, link):
        link(paid, receivers.troubled, max_retries=0)
        receivers.troubles[:] = [LookupError("one"), LookupError("two")]
        with pytest.raises(LookupError, match=r"^one\b") as raised:
            with immediate_deliveries():
                paid.send(None)
                paid.send(None)
                sent = True
        assert sent
        first, second = raised.value.__notes__
        assert first.startswith("So died the delivery ")
        assert second.startswith("So did the delivery ")

    def test_unless_the_test_does_not_want_it_or_has_raised_itself(self, link):
        link(paid, receivers.troubled, max_retries=0)
        receivers.troubles[:] = [LookupError("one"), LookupError("two")]
        with immediate_deliveries(raises=False) as deliveries:
            paid.send(None)
        assert deliveries[0].state == "dead"
        with pytest.raises(ZeroDivisionError), immediate_deliveries():
            paid.send(None)
            raise ZeroDivisionError

    def test_what_does_not_end_is_a_failure(self, link):
        link(paid, receivers.troubled, max_retries=None)
        receivers.troubles[:] = [LookupError() for _ in range(1100)]
        with pytest.raises(AssertionError, match="no end after 1000 runs"), immediate_deliveries():
            paid.send(None)

    @immediate_deliveries()
    def test_it_decorates_tests(self):
        ordered.send(None, number=1)
        assert attempts() == [1]

    @immediate_deliveries()
    async def test_and_coroutines(self):
        await ordered.asend(None, number=1)
        await asyncio.sleep(0)
        assert attempts() == [1]

    def test_a_capture_outside_of_it_has_them_too(self):
        with capture_deliveries() as captured:
            with immediate_deliveries():
                ordered.send(None, number=1)
            ordered.send(None, number=2)
        assert [one.state for one in captured] == ["succeeded", "waiting"]
