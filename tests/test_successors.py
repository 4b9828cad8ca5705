"""What Celery's task publishes in the place of a batch, and that it gives back what it could not publish."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.app import app_or_default
from celery.exceptions import Reject, SoftTimeLimitExceeded
from django.db import transaction
from kombu import Queue
from kombu.exceptions import OperationalError

from deferred_signals import Retry, Signal, batch, batch_run, handing_on, successors, tasks, time_limits
from deferred_signals.envelope import seal, unseal
from deferred_signals.exceptions import SeveralDied, WorkerLost
from deferred_signals.signals import delivery_finished
from deferred_signals.tasks import deliver
from tests import receivers
from tests.receivers import curious, first, troubled

bell: Any = Signal()

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def app(request: pytest.FixtureRequest) -> Iterator[Celery]:
    """The current app of this process, without a worker; its broker is kombu's own, inside this process."""
    before = app_or_default()
    app = Celery("project", broker="memory://", set_as_current=False)
    app.conf.update(task_default_queue=request.node.name, task_publish_retry_policy={"max_retries": 0})
    app.set_current()
    yield app
    before.set_current()


@pytest.fixture(autouse=True)
def _in_peace(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine nothing is handed on by itself."""
    settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "PARALLELISM": 1}
    monkeypatch.setattr(handing_on, "PATIENCE", 3600.0)
    monkeypatch.setattr(batch_run, "LONGEST", 3600.0)


@pytest.fixture
def payload(link: Any, memory: Any) -> Callable[..., str]:
    """Of a batch of three to ``curious``."""

    def make(function: Any = curious, **options: Any) -> str:
        link(bell, function, batch_size=10, **options)
        with transaction.atomic():
            for number in range(3):
                bell.send(sender=None, number=number)
        payload: str = memory.payloads.pop()[1]
        return payload

    return make


@pytest.fixture
def perform(app: Celery) -> Callable[..., Any]:
    """Have the task run a payload as a worker does."""

    def run(payload: str, *, redelivered: bool = False, **request: Any) -> Any:
        deliver.push_request(
            **{
                "id": "x", "args": (payload,), "kwargs": {}, "called_directly": False, "retries": 0,
                "delivery_info": {"routing_key": app.conf.task_default_queue, "redelivered": redelivered},
                "timelimit": [None, None], **request,
            }
        )  # fmt: skip
        try:
            return deliver.run(payload)
        finally:
            deliver.pop_request()

    return run


@pytest.fixture
def messages(app: Celery) -> Callable[[], list[Any]]:
    """What stands in the queue, taken out."""

    def take() -> list[Any]:
        with app.connection_for_read() as connection:
            queue = Queue(app.conf.task_default_queue, channel=connection.default_channel)
            return list(iter(lambda: queue.get(no_ack=True), None))

    return take


def payload_in(message: Any) -> str:
    (payload,), _, _ = message.payload
    assert isinstance(payload, str)
    return payload


def broken(app: Celery) -> None:
    """From now on nobody listens where its broker was."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        app.conf.update(broker_write_url=f"redis://127.0.0.1:{closed.getsockname()[1]}/0")


class TestRetries:
    def test_members_that_are_retried_leave_alone_each_under_its_own_id(self, payload, perform, messages):
        def inquire(number: int, **kwargs: Any) -> None:
            if number != 1:
                raise Retry(countdown=number * 30)

        receivers.inquiries.append(inquire)
        assert perform(payload(time_limit=9, soft_time_limit=5)) is None
        one, two = messages()
        for message, number in ((one, 0), (two, 2)):
            envelope = unseal(payload_in(message))
            assert (envelope.kwargs["number"], envelope.attempt) == (number, 2)
            headers = message.headers
            assert headers["id"] == message.properties["correlation_id"] == envelope.id
            assert headers["shadow"] == "tests.receivers.curious"
            assert headers["timelimit"] == [9, 5]
            assert "number" not in headers["argsrepr"]
        assert (one.headers["eta"], bool(two.headers["eta"])) == (None, True)

    def test_nothing_is_published_where_all_have_succeeded(self, payload, perform, messages, calls):
        assert perform(payload()) is None
        assert len(calls) == 3
        assert messages() == []

    def test_a_member_of_a_newer_wire_goes_on_under_an_id_of_its_own(self, payload, perform, messages):
        text = payload().rpartition(":")[0].replace('"of":[{', '"of":[{"v":9,', 1)
        perform(seal(text))
        (message,) = messages()
        assert payload_in(message).startswith('{"v":9,')
        assert message.headers["id"] == message.properties["correlation_id"]

    def test_a_batch_of_a_newer_version_goes_on_as_it_is(self, payload, perform, messages, calls):
        perform(seal(payload().rpartition(":")[0].replace('{"batch":1', '{"batch":2', 1)))
        (message,) = messages()
        assert payload_in(message).startswith('{"batch":2,"all":{"v":1,')
        assert not calls

    def test_those_that_die_are_the_end_of_the_message(self, payload, perform, messages):
        def inquire(number: int, **kwargs: Any) -> None:
            if number:
                raise ValueError(f"number {number}")

        receivers.inquiries.append(inquire)
        with pytest.raises(SeveralDied, match="2 deliveries of one batch died") as caught:
            perform(payload(max_retries=0))
        assert [str(error) for error in caught.value.exceptions] == ["number 1", "number 2"]
        assert messages() == []

    def test_members_for_a_receiver_that_is_unknown_here_have_no_limits_of_their_own(
        self, payload, perform, messages, monkeypatch
    ):
        text = payload(time_limit=9)
        monkeypatch.setattr("deferred_signals.registry._by_name", {})
        perform(text)
        assert [message.headers["timelimit"] for message in messages()] == [[None, None]] * 3


class TestARedeliveredBatch:
    def test_its_members_leave_alone_and_nobody_is_run(self, payload, perform, messages, calls):
        perform(payload(), redelivered=True)
        left = [unseal(payload_in(message)) for message in messages()]
        assert [(one.kwargs["number"], one.crashes) for one in left] == [(0, 1), (1, 1), (2, 1)]
        assert not calls

    def test_at_the_limit_all_are_dead(self, payload, perform, messages, settings):
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "CRASH_LIMIT": 1}
        with pytest.raises(SeveralDied) as caught:
            perform(payload(), redelivered=True)
        assert {type(error) for error in caught.value.exceptions} == {WorkerLost}
        assert messages() == []

    def test_one_that_came_back_before_its_time_is_run(self, payload, perform, messages, calls):
        perform(payload(), redelivered=True, **{tasks.NOT_BEGUN: True})
        assert len(calls) == 3


class TestWhatCannotBePublished:
    @pytest.fixture
    def pauses(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        found: list[float] = []
        monkeypatch.setattr(successors, "time", SimpleNamespace(sleep=found.append))
        return found

    def test_the_message_is_given_back_after_some_tries(self, payload, perform, app, pauses, caplog):
        receivers.troubles.append(ValueError())
        text = payload(troubled)
        broken(app)
        with pytest.raises(Reject) as caught:
            perform(text)
        assert vars(caught.value)["requeue"] is True
        assert pauses == [0, 1, 2, 4, 8]
        assert caplog.text.count("Members of a batch could not be published: ") == 5

    def test_a_soft_time_limit_meanwhile_gives_it_back_too(self, payload, perform, monkeypatch):
        def sleep(seconds: float) -> None:
            raise SoftTimeLimitExceeded

        monkeypatch.setattr(successors, "time", SimpleNamespace(sleep=sleep))
        receivers.troubles.append(ValueError())
        with pytest.raises(Reject) as caught:
            perform(payload(troubled))
        assert vars(caught.value)["requeue"] is True

    def test_a_soft_time_limit_in_the_publishing_gives_it_back_too(self, payload, perform, monkeypatch, pauses):
        def confirmed(task: Any) -> Any:
            raise SoftTimeLimitExceeded

        monkeypatch.setattr(successors, "confirmed", confirmed)
        receivers.troubles.append(ValueError())
        with pytest.raises(Reject):
            perform(payload(troubled))
        assert pauses == [0]

    def test_what_the_broker_takes_a_little_later_is_published_once(self, payload, perform, messages, monkeypatch):
        receivers.troubles.extend([ValueError(), ValueError(), ValueError()])
        away = [1, 2]
        confirmed = successors.confirmed

        def at_first_away(task: Any) -> Any:
            if away:
                raise OperationalError(f"away {away.pop()}")
            return confirmed(task)

        monkeypatch.setattr(successors, "confirmed", at_first_away)
        monkeypatch.setattr(successors, "time", SimpleNamespace(sleep=lambda seconds: None))
        perform(payload(troubled))
        assert [unseal(payload_in(message)).kwargs["number"] for message in messages()] == [0, 1, 2]

    def test_those_that_have_left_are_not_published_again(self, payload, perform, messages, monkeypatch, pauses):
        receivers.troubles.extend([ValueError(), ValueError(), ValueError()])
        sealed: list[str] = []

        def once_full(text: str) -> str:
            sealed.append(text)
            if len(sealed) == 2:
                raise OSError("full")
            return seal(text)

        monkeypatch.setattr(successors, "seal", once_full)
        perform(payload(troubled))
        assert [unseal(payload_in(message)).kwargs["number"] for message in messages()] == [0, 1, 2]
        assert pauses == [0, 1]

    @pytest.mark.parametrize("error", [RuntimeError("ours"), SoftTimeLimitExceeded()], ids=repr)
    def test_after_what_breaks_the_run_itself_each_leaves_alone_as_after_a_lost_worker(
        self, error, payload, perform, messages, monkeypatch, caplog
    ):
        """An error of ours, or a time limit of the project's between two receivers: nobody may be lost for it."""

        def breaks(*args: Any, **kwargs: Any) -> None:
            raise error

        text = payload()
        monkeypatch.setattr(batch_run, "Rows", breaks)
        perform(text)
        left = [unseal(payload_in(message)) for message in messages()]
        assert [(one.kwargs["number"], one.crashes) for one in left] == [(0, 1), (1, 1), (2, 1)]
        assert "A batch could not be run to its end" in caplog.text

    def test_what_breaks_the_split_of_one_that_came_back_is_its_end(self, payload, perform, monkeypatch):
        def breaks(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError("ours")

        text = payload()
        monkeypatch.setattr(batch_run, "run_opened", breaks)
        with pytest.raises(RuntimeError, match="ours"):
            perform(text, redelivered=True)

    def test_what_ends_the_worker_is_let_through(self, payload, perform):
        receivers.troubles.append(SystemExit(-241))
        with pytest.raises(SystemExit):
            perform(payload(troubled))


class TestHandingOn:
    def test_the_rest_of_a_batch_is_a_batch_again(self, payload, perform, messages, monkeypatch, calls):
        monkeypatch.setattr(batch_run, "LONGEST", -1.0)
        text = payload(time_limit=9)
        perform(text, timelimit=[100, None])
        (message,) = messages()
        members = batch.read(payload_in(message))
        assert [member["kwargs"]["number"] for member in members] == [1, 2]
        assert [kwargs["number"] for _, _, kwargs in calls] == [0]
        assert message.headers["shadow"] == "tests.receivers.curious (2 deliveries)"
        assert message.headers["timelimit"] == [100, None]
        assert message.headers["eta"] is None
        perform(payload_in(message))
        (message,) = messages()
        perform(payload_in(message))
        assert [kwargs["number"] for _, _, kwargs in calls] == [0, 1, 2]

    def test_what_cannot_be_handed_on_is_run(self, payload, perform, app, monkeypatch, calls):
        monkeypatch.setattr(batch_run, "LONGEST", -1.0)
        text = payload()
        broken(app)
        perform(text)
        assert len(calls) == 3

    def test_a_pool_without_timers_publishes_members_with_limits_alone(
        self, payload, perform, messages, monkeypatch, calls
    ):
        monkeypatch.setattr(time_limits, "among_greenlets", lambda: True)
        finished: list[Any] = []

        def observer(**kwargs: Any) -> None:
            finished.append(kwargs)

        delivery_finished.connect(observer)
        perform(payload(soft_time_limit=5))
        delivery_finished.disconnect(observer)
        taken = messages()
        assert [unseal(payload_in(message)).kwargs["number"] for message in taken] == [0, 1, 2]
        assert [message.headers["timelimit"] for message in taken] == [[None, 5]] * 3
        assert [unseal(payload_in(message)).crashes for message in taken] == [0] * 3
        assert not calls
        assert not finished

    def test_where_it_runs_in_the_senders_process_nothing_is_published(
        self, payload, app, messages, calls, monkeypatch
    ):
        monkeypatch.setattr(batch_run, "LONGEST", -1.0)
        deliver.apply((payload(),), throw=True)
        assert len(calls) == 3
        assert messages() == []


class TestEager:
    def test_each_delivery_is_one(self, app, link, settings, calls):
        settings.DEFERRED_SIGNALS = {"PARALLELISM": 1}
        app.conf.task_always_eager = True
        link(bell, first, batch_size=10)
        with transaction.atomic():
            for number in range(3):
                bell.send(sender=None, number=number)
        assert [kwargs["number"] for _, _, kwargs in calls] == [0, 1, 2]

    def test_an_error_is_the_callers_where_the_project_asks_for_it_and_the_others_run(self, app, link, settings, calls):
        settings.DEFERRED_SIGNALS = {"PARALLELISM": 1}
        app.conf.update(task_always_eager=True, task_eager_propagates=True)
        link(bell, troubled, batch_size=10, max_retries=0)
        receivers.troubles.append(ValueError("for good"))
        with pytest.raises(ValueError, match="for good"):
            with transaction.atomic():
                for _ in range(3):
                    bell.send(sender=None)
        assert len(calls) == 3
