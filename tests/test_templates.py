"""Celery makes the first message of a receiver's connection; the next ones are the same but for what is their own."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, Task, signals
from celery.app import app_or_default
from celery.app.amqp import AMQP
from django.db import transaction
from kombu import Queue

from deferred_signals import Delivery, Signal, backends
from deferred_signals.backends import messenger as messengers
from deferred_signals.backends.celery import CeleryBackend
from deferred_signals.backends.template import Template, is_celerys_own
from deferred_signals.envelope import unseal
from deferred_signals.signals import delivery_unpublished
from deferred_signals.tasks import deliver
from tests.receivers import first

bell: Any = Signal()
other_bell: Any = Signal()


def ring(signal: Any = bell, **kwargs: Any) -> Delivery:
    delivery = signal.send(sender=None, **kwargs)[0][1]
    assert isinstance(delivery, Delivery)
    return delivery


def made_app(name: str, kind: type[Celery] = Celery, **more: Any) -> Celery:
    app = kind("project", broker="memory://", set_as_current=False, **more)
    app.conf.update(task_default_queue=name)
    return app


@pytest.fixture
def use(request: pytest.FixtureRequest, settings: Any) -> Iterator[Callable[[Celery], CeleryBackend]]:
    """Make an app the current one of this process."""
    before = app_or_default()
    settings.DEFERRED_SIGNALS = {"PUBLISH_TIMEOUT": 20}

    def make(app: Celery) -> CeleryBackend:
        app.set_current()
        backend = backends.current()
        assert isinstance(backend, CeleryBackend)
        backend._ready = False
        backend._brokers.clear()
        return backend

    yield make
    before.set_current()


@pytest.fixture
def app(request: pytest.FixtureRequest, use: Callable[[Celery], CeleryBackend]) -> Celery:
    app = made_app(request.node.name)
    use(app)
    return app


@pytest.fixture
def filled_in(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the deliveries whose messages Celery has not made."""
    found: list[str] = []
    message = Template.message

    def spied(self: Template, delivery: Delivery, ancestry: dict[str, Any]) -> Any:
        found.append(delivery.id)
        return message(self, delivery, ancestry)

    monkeypatch.setattr(Template, "message", spied)
    return found


@pytest.fixture(autouse=True)
def _nothing_is_lost() -> Iterator[None]:
    lost: list[Exception] = []

    def observer(error: Exception, **kwargs: Any) -> None:
        lost.append(error)

    delivery_unpublished.connect(observer)
    yield
    delivery_unpublished.disconnect(observer)
    assert not lost


def messages(app: Celery) -> list[Any]:
    """What stands in the app's default queue, taken out."""
    with app.connection_for_read() as connection:
        queue = Queue(app.conf.task_default_queue, channel=connection.default_channel)
        return list(iter(lambda: queue.get(no_ack=True), None))


def picture(message: Any) -> dict[str, Any]:
    """All of a message, with its own id and payload as such."""
    (payload,), kwargs, embedded = json.loads(message.body)
    own = unseal(payload).id
    headers = {name: "its own" if value == own else value for name, value in message.headers.items()}
    properties = {name: "its own" if value == own else value for name, value in message.properties.items()}
    properties.pop("delivery_tag")
    return {
        "headers": headers,
        "properties": properties,
        "content": (message.content_type, message.content_encoding),
        "body": (message.body.decode().replace(json.dumps(payload), "its own"), kwargs, embedded),
        "info": {name: value for name, value in message.delivery_info.items() if name != "delivery_tag"},
    }


def both_are_alike(app: Celery) -> None:
    one, two, *more = messages(app)
    assert not more
    assert picture(one) == picture(two)
    assert one.headers["id"] != two.headers["id"]
    assert one.body != two.body


class TestTheSecondMessage:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"priority": 3},
            {"time_limit": 9, "soft_time_limit": 5},
            {"headers": {"tenant": "acme"}, "ignore_result": False},
        ],
        ids=str,
    )
    def test_it_is_the_first_but_for_id_and_payload(self, options, app, link, filled_in):
        link(bell, first, **options)
        ring(secret="one")
        two = ring(secret='two "é" \u2028 \\')
        assert filled_in == [two.id]
        both_are_alike(app)

    def test_what_it_carries_arrives(self, app, link, filled_in):
        link(bell, first)
        sent = [ring(text=text) for text in ("one", 'two "é" \u2028 \\ 🦊', "three")]
        taken = messages(app)
        assert len(filled_in) == 2
        assert [unseal(message.payload[0][0]).kwargs["text"] for message in taken] == [
            "one", 'two "é" \u2028 \\ 🦊', "three"
        ]  # fmt: skip
        assert [message.headers["id"] for message in taken] == [one.id for one in sent]

    def test_each_connection_of_a_receiver_has_its_own(self, app, link, filled_in):
        link(bell, first, priority=1)
        link(other_bell, first, priority=2)
        for _ in range(2):
            ring()
            ring(other_bell)
        assert len(filled_in) == 2
        assert [message.properties["priority"] for message in messages(app)] == [1, 2, 1, 2]

    def test_a_batch_has_one_too(self, app, link, filled_in, settings, transactional_db):
        settings.DEFERRED_SIGNALS = {"PUBLISH_TIMEOUT": 20, "PARALLELISM": 1}
        link(bell, first, batch_size=2, time_limit=5)
        with transaction.atomic():
            for _ in range(6):
                ring()
        taken = messages(app)
        assert len(taken) == 3
        assert len(filled_in) == 2
        assert [message.headers["timelimit"] for message in taken] == [[12, None]] * 3
        assert {message.headers["shadow"] for message in taken} == {"tests.receivers.first (2 deliveries)"}

    @pytest.mark.parametrize("order", ["inside last", "inside first"])
    def test_inside_a_task_it_has_that_tasks_ancestry(self, order, app, link, filled_in):
        link(bell, first)

        def parent() -> None: ...

        task = app.task(parent, shared=False)
        stack: Any = import_module("celery._state")._task_stack  # what a running worker fills

        def inside() -> None:
            task.push_request(id="parent-id", root_id="root-id")
            stack.push(task)
            try:
                ring()
            finally:
                stack.pop()
                task.pop_request()

        (ring if order == "inside last" else inside)()
        (inside if order == "inside last" else ring)()
        found = {
            (message.headers["root_id"] == message.headers["id"], message.headers["parent_id"])
            for message in messages(app)
        }
        assert len(filled_in) == 1
        assert found == {(True, None), (False, "parent-id")}


class TestWhatIsNeverFilledIn:
    """Where there is more to a message, all of Celery makes each."""

    def test_with_a_countdown_each_has_its_own_time(self, app, link, filled_in):
        link(bell, first, countdown=60)
        ring()
        time.sleep(0.002)  # so that two times differ
        ring()
        one, two = messages(app)
        assert one.headers["eta"] != two.headers["eta"]
        assert not filled_in

    @pytest.mark.parametrize("listened", ["before_task_publish", "after_task_publish"])
    def test_where_somebody_listens(self, listened, app, link, filled_in):
        heard: list[Any] = []

        def listens(**kwargs: Any) -> None:
            heard.append(kwargs)

        link(bell, first)
        ring()
        signal = getattr(signals, listened)
        signal.connect(listens)
        try:
            ring()
            ring()
        finally:
            signal.disconnect(listens)
        assert len(heard) == 2
        assert not filled_in
        ring()
        assert len(filled_in) == 1

    def test_where_an_event_is_sent_of_each(self, app, link, filled_in):
        app.conf.task_send_sent_event = True
        link(bell, first)
        ring()
        ring()
        assert not filled_in

    def test_where_functions_of_the_project_choose_the_route(self, app, link, filled_in):
        asked: list[str] = []

        def route(name: str, *args: Any, **kwargs: Any) -> None:
            asked.append(name)

        app.conf.task_routes = [route]
        link(bell, first)
        ring()
        ring()
        assert len(asked) == 2
        assert not filled_in

    @pytest.mark.parametrize("how", ["wraps", "proxy", "on the class"])
    def test_where_a_method_is_replaced_as_instrumentation_does_it(self, how, app, link, filled_in, monkeypatch):
        seen: list[Any] = []
        link(bell, first)
        ring()
        task = app.tasks[deliver.name]
        real = Task.apply_async

        @functools.wraps(real)
        def traced(*args: Any, **kwargs: Any) -> Any:
            seen.append(kwargs)
            return real(*args, **kwargs)

        if how == "on the class":
            monkeypatch.setattr(Task, "apply_async", traced)
        elif how == "wraps":
            monkeypatch.setattr(task, "apply_async", functools.partial(traced, task), raising=False)
        else:
            monkeypatch.setattr(task, "apply_async", Proxy(task.apply_async, seen), raising=False)
        ring()
        ring()
        assert len(seen) == 2
        assert not filled_in

    def test_where_the_apps_way_to_send_is_its_own(self, request, use, link, filled_in):
        sent: list[Any] = []

        class Own(Celery):
            def send_task(self, *args: Any, **kwargs: Any) -> Any:
                sent.append(args)
                return super().send_task(*args, **kwargs)

        app = made_app(request.node.name, Own)
        use(app)
        link(bell, first)
        ring()
        ring()
        assert not filled_in
        assert not is_celerys_own(app, app.tasks[deliver.name])

    def test_where_the_tasks_way_to_send_is_its_own(self, request, use, link, filled_in):
        class Own(Task[Any, Any]):
            def apply_async(self, *args: Any, **kwargs: Any) -> Any:
                return super().apply_async(*args, **kwargs)

        app = made_app(request.node.name, task_cls=Own)
        use(app)
        link(bell, first)
        ring()
        ring()
        assert len(messages(app)) == 2
        assert not filled_in

    def test_where_the_message_is_made_by_the_projects_own(self, request, use, link, filled_in):
        class Own(AMQP):
            def as_task_v2(self, *args: Any, **kwargs: Any) -> Any:
                made = super().as_task_v2(*args, **kwargs)
                made.headers["number"] = len(numbers)
                numbers.append(1)
                return made

        numbers: list[int] = []
        app = made_app(request.node.name, amqp=Own)
        use(app)
        link(bell, first)
        ring()
        ring()
        assert [message.headers["number"] for message in messages(app)] == [0, 1]
        assert not filled_in

    def test_what_is_compressed(self, app, link, filled_in):
        app.conf.task_compression = "zlib"
        link(bell, first)
        ring()
        ring()
        assert [message.headers["compression"] for message in messages(app)] == ["application/x-gzip"] * 2
        assert not filled_in

    def test_the_old_protocol(self, app, link, filled_in):
        app.conf.task_protocol = 1
        link(bell, first)
        ring()
        ring()
        assert len(messages(app)) == 2
        assert not filled_in

    @pytest.mark.parametrize(
        ("body", "given"),
        [
            ((("payload",), {}, {}), {"serializer": "yaml"}),
            ((("another",), {}, {}), {"serializer": "json", "headers": {"id": "other"}}),
            ((("payload",), {}, {}), {"compression": "zlib"}),
            ((("payload",), {}, {}), {"retry": True}),
            ((("payload",), {}, {}), {"correlation_id": "other"}),
            ((("payload",), {}, {}), {"headers": {"id": "x", "expires": "soon"}}),
            ((("payload",), {}, {}), {"headers": None}),
        ],
        ids=str,
    )
    def test_what_has_more_in_it_than_can_be_filled_in(self, body, given):
        how = {"headers": {"id": "x"}, "correlation_id": "x", "serializer": "json", **given}
        assert Template.of(SimpleNamespace(id="x"), body, how) is None  # type: ignore[arg-type]


class Proxy:
    """What wrapt puts in the place of a method: it says of itself all that the method says."""

    def __init__(self, wrapped: Any, seen: list[Any]) -> None:
        self.wrapped, self.seen = wrapped, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.seen.append(kwargs)
        return self.wrapped(*args, **kwargs)


class TestForgetting:
    def test_other_settings_of_celerys_begin_anew(self, app, link, filled_in):
        link(bell, first)
        ring()
        ring()
        app.conf.task_default_priority = 7
        ids = [ring().id, ring().id]
        assert len(filled_in) == 2
        assert filled_in[1:] == ids[1:]  # the first one went all the way through Celery

    def test_options_that_are_made_anew_each_time_do_not_pile_up(self, app, link, monkeypatch, filled_in):
        monkeypatch.setattr(messengers, "TEMPLATES", 3)
        backend = backends.current()
        assert isinstance(backend, CeleryBackend)
        for number in range(10):
            link(bell, first, headers={"number": str(number)})
            ring()
            bell.disconnect(first)
        (broker,) = backend._brokers.values()
        assert len(broker.free[0].messenger._templates) <= 4
        assert [message.headers["number"] for message in messages(app)] == [str(number) for number in range(10)]
