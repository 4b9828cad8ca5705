"""Nothing that a receiver is given stands in an error, a log line, a repr or in what Celery shows of a message.

What real workers, result backends and event streams show is looked at in ``tests/integration/test_secrets.py``.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import pickle
import time
import traceback
import types
from collections.abc import Iterator
from typing import Any, Self

import pytest
from celery import Celery
from celery.app import app_or_default
from celery.concurrency.solo import TaskPool
from celery.worker.request import create_request_cls  # type: ignore[attr-defined]
from hypothesis import given, settings
from hypothesis import strategies as st

from deferred_signals import Signal, connect, registry
from deferred_signals.attempt import run
from deferred_signals.codec import Encoder, base
from deferred_signals.envelope import Envelope, seal, unseal
from deferred_signals.exceptions import DeferredSignalsError, EncodeError, InstanceMissing, PublishError
from deferred_signals.outcome import Outcome
from deferred_signals.tasks import REPRS, deliver
from deferred_signals.worker_request import DeliveryRequest
from tests import receivers
from tests.receivers import discards, first, on_instance, on_item, second, troubled, wants_later
from tests.shop.models import Customer

from .travel import envelope, payload

spoken: Any = Signal()
overheard: Any = Signal()
CANARY = "canary-4711"


def told(error: BaseException | None) -> str:
    """All that a log, a tracker or a result backend can make of an exception, frames' variables aside."""
    if error is None:
        return ""
    return "\n".join([str(error), repr(error), repr(error.args), *traceback.format_exception(error)])


class Listening(logging.Handler):
    """What is logged, with the tracebacks."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def __enter__(self) -> Self:
        self.logger = logging.getLogger("deferred_signals")
        self.before = self.logger.level
        self.logger.setLevel(logging.DEBUG)
        self.logger.addHandler(self)
        return self

    def __exit__(self, *args: object) -> None:
        self.logger.removeHandler(self)
        self.logger.setLevel(self.before)


class Secretive:
    """Cannot travel, and says the canary to whoever asks what it is."""

    def __repr__(self) -> str:
        return CANARY

    __str__ = __repr__


@dataclasses.dataclass
class Box:
    content: Any


LEAVES = st.sampled_from(
    [CANARY, f"{CANARY}\ud800", CANARY.encode(), 1, None, Secretive(), ValueError(CANARY), 10**400]
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([CANARY, "name", 5]), inner, max_size=2)
        | st.tuples(inner)
        | st.builds(Box, inner)
        | st.builds(lambda value: ValueError(CANARY, value), inner)
    ),
    max_leaves=6,
)


@given(VALUES)
def test_no_error_of_a_value_that_cannot_travel_tells_it(value: Any) -> None:
    for one in ([value, Secretive()], {CANARY: value, f"{CANARY}\ud800": 1}, Box((value, f"{CANARY}\ud800"))):
        with pytest.raises(EncodeError) as caught:
            Encoder().encode(one)
        assert CANARY not in told(caught.value)


#: JSON with the canary wherever a string stands.
JSON = st.recursive(
    st.sampled_from([CANARY, f"os.{CANARY}", 1, -1, 1.5, 10**30, True, None]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([CANARY, f"${CANARY}", "a"]), inner, max_size=2)
    ),
    max_leaves=5,
)


def tags() -> list[str]:
    base.load()
    return sorted(base.tags)


@pytest.fixture(scope="module")
def _listening() -> Iterator[None]:
    """A receiver of everything, for all examples."""
    connect(overheard, first, deferred=True, name="tests.overheard")
    yield
    overheard.disconnect(first)


@pytest.mark.usefixtures("_listening")
@pytest.mark.django_db
@settings(max_examples=400)
@given(data=st.data())
def test_no_error_of_a_payload_that_cannot_be_decoded_tells_it(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(tags()))
    argument = {name: data.draw(JSON | st.tuples(st.just("shop.customer"), JSON, JSON).map(list))}
    place = data.draw(st.sampled_from(["kwargs", "sender", "context", "signal", "to"]))
    places: dict[str, dict[str, Any]] = {
        "kwargs": {"kwargs": {"word": argument}},
        "sender": {"sender": argument},
        "context": {"context": {"tenant": argument}},
        "signal": {"signal": CANARY},
        "to": {"receiver": CANARY},
    }
    text = envelope(**{"receiver": "tests.overheard", **places[place]}).to_text()
    with Listening() as heard:
        delivery, outcome = run(seal(text))
    shown = [told(outcome.error), repr(outcome), outcome.reason]
    # The name of the receiver is no argument, and is shown.
    shown += [] if place == "to" else ["\n".join(heard.lines)]
    shown += [] if place in {"to", "signal"} else [repr(delivery)]
    for one in shown:
        assert CANARY not in one


@given(
    st.sampled_from(["{}", f'{{"v":1,"id":"{CANARY}"}}', f"{CANARY}", f'{{"v":2,"kwargs":"{CANARY}"}}']), st.booleans()
)
def test_no_error_of_a_payload_that_cannot_be_opened_tells_it(text: str, forged: bool) -> None:
    with Listening() as heard:
        _, outcome = run(f"{text}:{CANARY}" if forged else seal(text))
    for shown in (told(outcome.error), repr(outcome), outcome.reason, *heard.lines):
        assert CANARY not in shown


class TestReprs:
    def test_of_an_envelope(self):
        made = unseal(payload(word=CANARY))
        assert CANARY in made.to_text()
        assert CANARY not in repr(dataclasses.replace(made, sender=CANARY, context={"a": CANARY}, encrypted=CANARY))

    def test_of_a_delivery(self, link, memory):
        link(spoken, first, coalesce=True)
        [(_, delivery)] = spoken.send(sender=None, word=CANARY, instance=Customer(pk=5, name=CANARY))
        assert CANARY in delivery.text
        for shown in (repr(delivery), str(delivery), f"{delivery}", repr([delivery])):
            assert CANARY not in shown

    def test_of_an_outcome(self):
        end = Outcome("retry", ValueError("no"), "the receiver raised", 5, envelope(kwargs={"a": CANARY}).to_text())
        assert CANARY not in repr(end)

    def test_of_a_stand_in_and_its_parts(self, link):
        link(spoken, first, encrypt=False)
        spoken.send(sender=None, word=CANARY)
        [stand_in] = registry.get("tests.receivers.first").connections()
        for shown in map(repr, (stand_in, stand_in.registration, stand_in.options, stand_in._arguments)):
            assert CANARY not in shown

    def test_every_field_of_an_envelope_that_is_shown_is_none_of_the_values(self):
        shown = {field.name for field in dataclasses.fields(Envelope) if field.repr}
        assert shown.isdisjoint({"sender", "kwargs", "context", "encrypted"})


class TestLines:
    """Every line that a send and its deliveries log, at DEBUG."""

    @pytest.mark.django_db(transaction=True)
    def test_how_a_delivery_ends(self, link, memory):
        receivers.troubles += [ValueError("no")] * 2
        for function in (second, troubled, wants_later, discards):
            link(spoken, function, max_retries=1)
        gone = Customer.objects.create(name=CANARY)
        with Listening() as heard:
            spoken.send(sender=Secretive(), word=CANARY, other=Secretive(), who=gone)
            gone.delete()
            ended = memory.deliver() + memory.deliver()
        assert {outcome.state for _, outcome in ended} == {"succeeded", "retry", "dead", "discarded"}
        assert CANARY not in repr(ended)
        assert len(heard.lines) > len(ended) - 1  # what succeeded is not said
        assert CANARY not in "\n".join(heard.lines)

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("missing", ["discard", "retry", "dead"])
    def test_a_row_that_is_gone(self, link, memory, missing):
        link(spoken, on_instance, missing=missing)
        customer = Customer.objects.create(pk=47110815, name=CANARY)
        spoken.send(sender=None, instance=customer)
        customer.delete()
        with Listening() as heard:
            ((_, outcome),) = memory.deliver()
        assert isinstance(outcome.error, InstanceMissing)
        for shown in (told(outcome.error), outcome.reason, repr(outcome), *heard.lines):
            assert "47110815" not in shown
            assert CANARY not in shown

    def test_what_is_too_large(self, link):
        link(spoken, on_item, oversize="log")
        with Listening() as heard:
            spoken.send(sender=None, item=CANARY * 100_000)
        assert "No delivery is made" in heard.lines[0]
        assert CANARY not in "\n".join(heard.lines)

    def test_what_a_backend_does_not_take(self, link, memory, monkeypatch):
        def refuse(deliveries: Any) -> Any:
            return [(delivery, OSError("full")) for delivery in deliveries]

        monkeypatch.setattr(memory, "publish", refuse)
        link(spoken, first)
        link(spoken, second, on_commit=False)
        with Listening() as heard:
            responses = spoken.send_robust(sender=None, word=CANARY)
        assert isinstance(responses[1][1], PublishError)
        assert CANARY not in told(responses[1][1]) + "\n".join(heard.lines) + repr(responses)


def test_no_error_of_ours_loses_its_text_on_the_way_through_celery():
    """A child of the pool pickles it for the main process, a result backend keeps its class and its arguments."""
    for made in (DeferredSignalsError("why"), EncodeError("why", "a type")):
        assert str(pickle.loads(pickle.dumps(made))) == str(made)


class TestCelerysOwn:
    """What Celery's main process shows of a message."""

    @pytest.fixture
    def app(self) -> Iterator[Celery]:
        before = app_or_default()
        yield Celery("secrets", broker="memory://", set_as_current=True)
        before.set_current()

    @pytest.fixture
    def request_of_celery(self, app: Celery) -> Any:
        made = app.amqp.as_task_v2("an-id", deliver.name, (payload(word=CANARY),), {}, **REPRS)
        message = types.SimpleNamespace(
            headers=made.headers, body=made.body, payload=made.body, properties=made.properties, delivery_info={}
        )
        pool = types.SimpleNamespace(apply_async=None)
        kind = create_request_cls(DeliveryRequest, deliver, pool, "here", None, app=app)
        return kind(message, app=app, task=deliver, decoded=True)

    def test_remote_control_is_told_no_argument(self, request_of_celery):
        for shown in (request_of_celery.info(), request_of_celery.info(safe=True)):
            assert CANARY not in str(shown)
            assert shown["id"] == "an-id"

    def test_results_of_the_main_process_and_hooks_are_told_no_argument(self, request_of_celery):
        assert request_of_celery.args == ["(<signed payload>)"]
        assert request_of_celery._context.args == ["(<signed payload>)"]
        assert CANARY not in repr(request_of_celery) + str(request_of_celery)

    def test_the_pool_gets_the_message_all_the_same(self, request_of_celery):
        assert CANARY in str(request_of_celery.body)

    def test_the_pools_line_at_debug_has_no_message_of_ours(self, app, caplog):
        caplog.set_level(logging.DEBUG, "celery.pool")
        pool = TaskPool(1, app=app)
        pool.start()
        ran: list[Any] = []
        options = {"accept_callback": lambda *args: None, "callback": ran.append}
        pool.apply_async(print, (deliver.name, "an-id", {}, payload(word=CANARY)), {"flush": True}, **options)
        pool.apply_async(print, ("shop.tasks.theirs", "an-id", {}, "word"), {"flush": True}, **options)
        ours, theirs = (
            record.getMessage() for record in caplog.records if record.getMessage().startswith("TaskPool: Apply")
        )
        assert len(ran) == 2
        assert CANARY not in ours
        assert "(<signed payload>)" in ours
        assert "shop.tasks.theirs" in theirs


def test_what_waits_for_another_release_shows_nothing_of_it():
    newer = seal(json.dumps({"v": 2, "at": time.time(), "all": {"is": CANARY}}))
    with Listening() as heard:
        _, outcome = run(newer)
    assert outcome.state == "retry"
    for shown in (told(outcome.error), repr(outcome), *heard.lines):
        assert CANARY not in shown
