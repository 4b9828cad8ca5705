"""The guard at the worker's door, before Celery's own strategy: nothing that stands in the queue makes that raise."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from celery import Celery, signals
from celery.worker import state
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st
from kombu.message import Message
from kombu.utils import json as kombu_json

from deferred_signals import worker_guard
from deferred_signals.tasks import deliver
from deferred_signals.worker_guard import clean
from deferred_signals.worker_pattern import Pattern
from tests.integration.letters import HOSTILE, REFUSED, Letter, letter

PAYLOAD = '{"v":1,"id":"1"}:signature'


class Received(Message):
    """A message as a transport hands it over; says what has become of it."""

    rejected = False

    def reject_log_error(self, logger: Any, errors: Any, requeue: bool = False) -> None:
        assert not requeue
        self.rejected = True


class Pool:
    def __init__(self) -> None:
        self.given: list[Any] = []

    def apply_async(self, trace: Any, args: Any, **options: Any) -> None:
        # As billiard does, and then as the child does.
        self.given.append((pickle.loads(pickle.dumps(args)), options))


class Consumer(SimpleNamespace):
    __hash__ = object.__hash__  # type: ignore[assignment]  # it sends signals


class Worker(NamedTuple):
    pool: Pool
    message: Received


def app(**settings: Any) -> Celery:
    made = Celery("guarded", broker="memory://", set_as_current=False, changes=settings)
    made.finalize()
    return made


APP = app()


def received(made: Letter, **parts: Any) -> Received:
    """A message as Redis's transport makes it; ``parts`` of it are others."""
    body = made.body if isinstance(made.body, bytes) else json.dumps(made.body).encode()
    said: dict[str, Any] = {
        "body": body,
        "content_type": made.content_type,
        "content_encoding": made.content_encoding,
        "headers": {name: value for name, value in made.headers.items() if name != "compression"},
        "properties": {"correlation_id": "1", **made.properties},
        "delivery_info": {"exchange": "", "routing_key": "celery"},
        "accept": {"application/json"},
    }
    message = Received(**{**said, **parts})
    if "compression" in made.headers:
        message.headers["compression"] = made.headers["compression"]  # after its body was decompressed
    return message


def receive(made: Letter, celery: Celery = APP, *, after: Letter | Received | None = None, **parts: Any) -> Worker:
    """Let a worker of Celery's, without its loop and its processes, have a message, perhaps ``after`` another one."""
    message = received(made, **parts)
    pool = Pool()
    consumer = Consumer(
        hostname="worker",
        connection_errors=(),
        event_dispatcher=None,
        timer=SimpleNamespace(call_at=lambda eta, call, args, priority: call(*args)),
        qos=SimpleNamespace(increment_eventually=lambda: None),
        disable_rate_limits=True,
        task_buckets={},
        on_task_request=lambda request: request.execute_using_pool(pool),
        _limit_task=None,
        _limit_post_eta=None,
        controller=SimpleNamespace(state=state),
        pool=pool,
    )
    consumer.apply_eta_task = consumer.on_task_request
    handle = celery.tasks[deliver.name].start_strategy(celery, consumer)
    # As Celery's consumer does: what has no task in its headers is decoded there.
    try:
        for one in ([] if after is None else [received(after) if isinstance(after, Letter) else after]) + [message]:
            pool.given.clear()
            decoded = None if "task" in one.headers else one.decode()
            handle(one, decoded, lambda *args: None, lambda *args: None, [])
    finally:
        state.reserved_requests.clear()
        state.requests.clear()
        state.revoked.clear()
    return Worker(pool, message)


def arguments(worker: Worker) -> list[Any]:
    """What the child process will call the task with."""
    [((*_, body, content_type, _), _)] = worker.pool.given
    return list((json.loads(body) if content_type else body)[:2])


def test_what_a_sender_of_ours_writes_is_run_as_it_is() -> None:
    worker = receive(
        letter(PAYLOAD, shadow="shop.receivers.welcome", timelimit=[5, 3.5], retries=2, trace={"id": ["x"]})
    )
    [((name, number, request, body, content_type, _), options)] = worker.pool.given
    assert (name, number) == (deliver.name, worker.message.headers["id"])
    assert (options["timeout"], options["soft_timeout"]) == (5, 3.5)
    assert (request["shadow"], request["retries"], request["trace"]) == ("shop.receivers.welcome", 2, {"id": ["x"]})
    assert content_type == "application/json"
    assert body == worker.message.body
    assert json.loads(body) == [[PAYLOAD], {}, dict.fromkeys(["callbacks", "errbacks", "chain", "chord"])]
    assert not worker.message.rejected


@pytest.mark.parametrize("after", [None, letter(PAYLOAD)], ids=["first", "after a usual one"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_message_is_refused_or_cleaned(
    name: str, after: Letter | None, caplog: pytest.LogCaptureFixture
) -> None:
    hostile = HOSTILE[name]
    caplog.set_level(logging.ERROR)
    worker = receive(hostile.make(PAYLOAD), after=after)
    refused = hostile.said == REFUSED
    assert worker.message.rejected is refused
    assert len(worker.pool.given) == (not refused)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == refused
    assert all(line.startswith("A message for deferred_signals.deliver is refused: ") for line in lines)
    assert all(line.isprintable() and len(line) < 300 for line in lines)
    for (_, number, request, body, _, _), _ in worker.pool.given:
        assert number.isprintable()
        assert not any(map(request.get, ["callbacks", "errbacks", "chain", "chord", "group", "get", "is_eager"]))
        assert "alarm" not in str(body)
        assert str(request.get("shadow")).isprintable()


def test_who_listens_to_celery_hears_of_what_is_refused() -> None:
    heard: list[Any] = []

    def listen(sender: Any, message: Any, exc: Any, **kwargs: Any) -> None:
        heard.append((message, str(exc)))

    signals.task_rejected.connect(listen, weak=False)
    try:
        worker = receive(HOSTILE["a number"].make(PAYLOAD))
    finally:
        signals.task_rejected.disconnect(listen)
    assert heard == [(worker.message, "its arguments are not one string.")]


@pytest.mark.parametrize("eta", ["2020-01-01T00:00:00+00:00", "2020-01-01T00:00:00", "3000-01-01T00:00:00+00:00"])
def test_a_time_is_a_time(eta: str) -> None:
    assert len(receive(letter(PAYLOAD, eta=eta, expires="3000-01-01T00:00:00+00:00")).pool.given) == 1


@pytest.mark.parametrize("kind", [str, bytes, bytearray])
def test_a_body_may_be_of_any_kind_that_transports_make(kind: Any) -> None:
    text = b'[["\\ud83d\\ude00"], {}, {}]'
    assert arguments(receive(letter(PAYLOAD), body=text.decode() if kind is str else kind(text))) == [
        ["\U0001f600"],
        {},
    ]


@pytest.mark.parametrize(
    "parts",
    [
        {"body": None},
        {"body": 5},
        {"body": ["x"]},
        {"content_type": ["x"]},
        {"content_type": None},
        {"content_encoding": ["x"]},
        {"delivery_info": {"exchange": {"a": 1}, "routing_key": "x"}},
        {"delivery_info": {"exchange": "", "routing_key": ["x"]}},
        {"delivery_info": {"exchange": "a\nb"}},
        {"delivery_info": {"x": [[[[[[[[[[]]]]]]]]]]}},
        {"properties": {"x": [[[[[[[[[[]]]]]]]]]]}},
        {"properties": {"x": "x" * 100_000}},
    ],
    ids=str,
)
def test_what_only_a_raw_message_can_say_is_refused(parts: dict[str, Any]) -> None:
    assert receive(letter(PAYLOAD), **parts).message.rejected


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -0.5, 10**400, True, "5", [5]])
def test_a_time_limit_is_a_number_of_seconds(number: Any) -> None:
    made = letter(PAYLOAD, timelimit=[None, number])
    worker = receive(made, headers=made.headers)
    assert worker.message.rejected


def test_compression_is_refused_unless_the_project_compresses_its_messages() -> None:
    made = letter(PAYLOAD, compression="application/x-gzip")
    assert receive(made).message.rejected
    assert not receive(made, app(task_compression="gzip")).message.rejected


@override_settings(DEFERRED_SIGNALS={"MAX_AGE": "never"})
def test_a_worker_whose_settings_are_wrong_is_not_ended_by_a_message() -> None:
    # The task has it wait for another worker.
    worker = receive(letter(PAYLOAD, shadow=5))
    assert arguments(worker) == [[PAYLOAD], {}]
    assert not worker.message.rejected
    assert receive(HOSTILE["a number"].make(PAYLOAD)).message.rejected


@override_settings(DEFERRED_SIGNALS={"MAX_SIZE": 1000, "BACKEND": "memory"})
def test_the_largest_payload_that_can_be_sent_is_let_in() -> None:
    # Each of these is three bytes in the payload, and six in Celery's JSON; the worst there are.
    assert not receive(letter("\u0100" * 500)).message.rejected
    assert receive(letter("x" * 70_000)).message.rejected


@pytest.mark.parametrize("protocol", [1, 2])
def test_both_protocols_of_celery_are_served(protocol: int) -> None:
    celery = app(task_protocol=protocol)
    made = celery.amqp.create_task_message("1", deliver.name, [PAYLOAD], {}, countdown=5, time_limit=7, retries=3)
    worker = receive(Letter(made.body, dict(made.headers), properties=dict(made.properties)), celery)
    [((name, number, request, *_), options)] = worker.pool.given
    assert arguments(worker) == [[PAYLOAD], {}]
    assert (name, number, request["retries"], options["timeout"]) == (deliver.name, "1", 3, 7)


HEADERS = [
    *("id", "shadow", "eta", "expires", "retries", "timelimit", "root_id", "parent_id", "group", "stamps", "x", "utc"),
    *("stamped_headers", "ignore_result", "argsrepr", "kwargsrepr", "origin", "headers", "callbacks", "chain", "get"),
    *("chord", "errbacks", "delivery_info", "properties", "replaced_task_nesting"),
]
PARTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.datetimes().map(str)
    | st.sampled_from(["x", "2026-01-02T03:04:05", "9999-12-31T23:59:59-14:00", 10**400, "\n"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.sampled_from(HEADERS), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from(HEADERS), PARTS, max_size=4),
    st.none() | PARTS | st.lists(PARTS, min_size=3, max_size=3) | st.tuples(st.just([PAYLOAD]), st.just({}), PARTS),
    st.dictionaries(st.sampled_from(["exchange", "routing_key", "redelivered", "priority", "reply_to"]), PARTS),
)
def test_no_message_makes_celery_raise_in_the_main_process(
    headers: dict[str, Any], body: Any, said: dict[str, Any]
) -> None:
    made = letter(PAYLOAD, **headers)
    if body is not None:
        made.body = body
    for after in (None, letter(PAYLOAD)):
        worker = receive(made, after=after, delivery_info=said, properties=said)
        assert worker.message.rejected + len(worker.pool.given) <= 1
        for (_, number, *_), _ in worker.pool.given:
            assert type(number) is str
            [[payload], kwargs] = arguments(worker)
            assert (type(payload), kwargs) == (str, {})


#: What the guard passes over in a message that is written as the last one was.
USUAL: dict[str, Any] = {"id": "1", "shadow": "shop.welcome", "root_id": "1", "parent_id": None, "timelimit": [5, None]}
OWN: list[dict[str, Any]] = [
    {},
    {"id": "2", "root_id": "2", "shadow": "shop.other", "origin": "gen7@host", "parent_id": "1"},
    {"shadow": None},
    {"shadow": ""},
    {"shadow": "a\nb"},
    {"shadow": ["x"]},
    {"id": ""},
    {"id": None},
    {"id": 5},
    {"id": "x" * 256},
    {"root_id": "\n"},
    {"origin": {"a": 1}},
    {"retries": 1},
    {"retries": -1},
    {"timelimit": [5, 6]},
    {"timelimit": [5]},
    {"timelimit": [5.0, None]},
    {"retries": False},
    {"ignore_result": 1},
    {"eta": "2020-01-01T00:00:00+00:00"},
    {"group": "g"},
    {"stamps": {"a": [1]}},
    {"tenant": "t"},
    {"urgent": 1},
]


def told(worker: Worker) -> Any:
    """What the child gets, and the pool."""
    limits = [(options["timeout"], options["soft_timeout"]) for _, options in worker.pool.given]
    return worker.message.rejected, [args for args, _ in worker.pool.given], limits


@pytest.mark.parametrize("own", OWN, ids=str)
@pytest.mark.parametrize("again", [False, True], ids=["Redis", "RabbitMQ"])
def test_a_message_that_is_written_as_the_last_one_is_treated_as_the_first_one(own: Any, again: bool) -> None:
    def made(**headers: Any) -> Received:
        one = received(letter(PAYLOAD, **{**USUAL, **headers}))
        more: dict[str, Any] = (
            {"application_headers": one.headers} if again else {"reply_to": "me", "delivery_tag": "t"}
        )
        one.properties |= more
        return one

    def got(after: Received | None) -> Any:
        one = made(**own)
        return told(receive(letter(PAYLOAD), after=after, headers=one.headers, properties=one.properties))

    assert got(made()) == got(None)


@pytest.mark.parametrize(
    "parts",
    [
        {"properties": {"correlation_id": "1", "priority": 3}},
        {"properties": {"correlation_id": 5}},
        {"properties": {"correlation_id": "1", "reply_to": ["x"]}},
        {"properties": {"correlation_id": "1", "reply_to": "me"}},
        {"properties": {"correlation_id": "1", "application_headers": {"task": "other"}}},
        {"properties": ["x"]},
        {"delivery_info": {"exchange": "", "routing_key": "celery", "delivery_tag": 5}},
        {"delivery_info": {"exchange": "", "routing_key": "celery", "delivery_tag": "t"}},
        {"delivery_info": {"exchange": "", "routing_key": "celery", "delivery_tag": [[[[[[[[[]]]]]]]]]}},
        {"delivery_info": {"exchange": "", "routing_key": "other"}},
        {"content_encoding": "latin-1"},
        {"content_encoding": "no encoding"},
        {"content_type": "text/plain"},
    ],
    ids=str,
)
def test_so_is_one_that_comes_in_another_way(parts: dict[str, Any]) -> None:
    def got(after: Letter | None) -> Any:
        return told(receive(letter(PAYLOAD, **USUAL), after=after, **parts))

    assert got(letter(PAYLOAD, **USUAL)) == got(None)


@pytest.mark.parametrize(
    ("first", "own"),
    [
        ({"ignore_result": 1}, {"ignore_result": True}),
        ({"retries": 0}, {"retries": False}),
        ({"timelimit": [1, None]}, {"timelimit": [True, None]}),
        ({"urgent": 1}, {"urgent": True}),
        ({"urgent": [{"by": 1}]}, {"urgent": [{"by": 1.0}]}),
        ({"headers": {"by": 1}}, {"headers": {"by": True}}),
        # Of RabbitMQ's own, as in x-death.
        ({"since": datetime(2026, 1, 2, tzinfo=UTC)}, {"since": datetime(2026, 1, 2, tzinfo=UTC)}),
    ],
    ids=str,
)
def test_a_message_that_is_equal_to_the_last_one_and_yet_another_is_treated_as_the_first_one(
    first: dict[str, Any], own: dict[str, Any]
) -> None:
    def got(after: Letter | None) -> str:
        # In which True is not 1.
        return json.dumps(told(receive(letter(PAYLOAD, **USUAL | own), after=after)), sort_keys=True, default=repr)

    assert got(letter(PAYLOAD, **USUAL | first)) == got(None)


def test_messages_that_are_written_in_the_same_way_share_nothing_that_can_be_changed() -> None:
    said = {**USUAL, "headers": {"trace": {"id": 1}}, "tenant": ["t"]}
    pattern = Pattern()
    messages: list[Any] = [received(letter(PAYLOAD, **copy.deepcopy(said))) for _ in range(3)]
    first, headers = messages[0], messages[0].headers
    clean(first, None)
    pattern.learn(first, headers)
    for message in messages[1:]:
        message.headers = pattern.cleaned(message)
    # As instrumentation does in a worker whose threads run the deliveries.
    messages[1].headers["headers"]["trace"]["id"] = 2
    messages[1].headers["tenant"].append("u")
    messages[1].headers["timelimit"][0] = 7
    for message in (messages[0], messages[2]):
        assert said == {key: message.headers.get(key) for key in said}


class Marked:
    """What a project has taught kombu to write as JSON."""


def test_no_type_that_the_project_has_taught_kombu_is_made_of_a_body(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def noted(value: Any) -> Any:
        made.append(value)
        return value

    for table in ("_encoders", "_decoders"):
        monkeypatch.setattr(kombu_json, table, dict(getattr(kombu_json, table)))
    kombu_json.register_type(Marked, "marked", str, noted)
    marked = {"__type__": "marked", "__value__": PAYLOAD}
    for arguments in ([marked], [PAYLOAD, marked], ["\\", {"\\": marked}]):
        hostile = letter(PAYLOAD)
        hostile.body = [arguments, {}, dict.fromkeys(["callbacks", "errbacks", "chain", "chord"])]
        assert receive(hostile).message.rejected
    assert made == []


@pytest.mark.parametrize(
    "hidden", ['{"__type__": "marked", "__value__": "x"}', "[" * 600 + "]" * 600], ids=["type", "deep"]
)
def test_what_a_key_hides_that_stands_twice_reaches_neither_celery_nor_the_child(
    hidden: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two equal keys the last one counts, and kombu makes its objects of both."""
    made: list[Any] = []
    monkeypatch.setattr(kombu_json, "_decoders", {"marked": made.append})
    hostile = letter(PAYLOAD)
    hostile.body = f'[[{json.dumps(PAYLOAD)}], {{}}, {{"chain": {hidden}, "chain": null}}]'.encode()
    for after in (None, letter(PAYLOAD)):
        worker = receive(hostile, after=after)
        [((*_, body, _, _), _)] = worker.pool.given
        assert arguments(worker) == [[PAYLOAD], {}]
        assert hidden.encode() not in body
    assert made == []


def test_a_worker_that_does_not_accept_json_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert receive(letter(PAYLOAD), accept={"application/x-yaml"}).message.rejected
    assert "is refused: this worker's accept_content has no 'json'." in caplog.text


@pytest.mark.parametrize("payload", ["\\", "\\\\", '"', '\\"', '"\\', '{"a":"\\\\\\""}', 'ä\u2028"', ""], ids=repr)
def test_any_payload_passes_as_it_is(payload: str) -> None:
    assert arguments(receive(letter(payload))) == [[payload], {}]


def test_the_body_of_a_usual_message_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[int] = []
    decode = Message._decode

    def counting(message: Message) -> Any:
        times.append(1)
        return decode(message)

    monkeypatch.setattr(Message, "_decode", counting)
    receive(letter(PAYLOAD))
    assert len(times) == 1


def test_a_message_that_is_written_as_the_last_one_is_not_looked_through_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Any] = []

    def noting(message: Any, *args: Any, **how: Any) -> None:
        looked.append(message)
        clean(message, *args, **how)

    monkeypatch.setattr(worker_guard, "clean", noting)
    for _ in range(2):
        receive(letter(PAYLOAD), after=letter(PAYLOAD))
    assert len(looked) == 2
