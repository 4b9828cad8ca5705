"""While the broker is away nobody waits for it but one thread, and what reaches no queue is no message published."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kombu
import pytest
from amqp.exceptions import AccessRefused, MessageNacked, NotFound
from celery import Celery
from celery.app import app_or_default
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import before_task_publish
from django.db import transaction
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError
from kombu.transport import memory, pyamqp, virtual

from deferred_signals import Delivery, Signal, backends
from deferred_signals.backends import breaker as breakers
from deferred_signals.backends.breaker import Breaker
from deferred_signals.backends.broker import connect
from deferred_signals.backends.celery import CeleryBackend
from deferred_signals.backends.flush import Flush
from deferred_signals.backends.producer import Producer, Unroutable
from deferred_signals.exceptions import PublishError
from deferred_signals.signals import delivery_unpublished
from tests.receivers import curious, first, second, troubled
from tests.servers import Redis, free_port

bell: Any = Signal(name="breaker.bell")


def eventually(condition: Callable[[], Any], timeout: float = 20) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        threading.Event().wait(0.01)


@pytest.fixture
def app(request: pytest.FixtureRequest) -> Iterator[Celery]:
    """The current app of this process; its broker is kombu's own, inside the process."""
    before = app_or_default()
    made = Celery("project", broker="memory://", set_as_current=False)
    made.conf.update(broker_transport_options={"polling_interval": 0.01}, task_default_queue=request.node.name)
    made.set_current()
    yield made
    before.set_current()


@pytest.fixture
def patience() -> float:
    """Seconds; the broker of most tests is in the process, or away."""
    return 0.3


@pytest.fixture
def backend(app: Celery, settings: Any, patience: float) -> Iterator[CeleryBackend]:
    settings.DEFERRED_SIGNALS = {"BACKEND": "celery", "PUBLISH_TIMEOUT": patience}
    made = backends.current()
    assert isinstance(made, CeleryBackend)
    made._brokers.clear()
    yield made
    for broker in made._brokers.values():
        broker.breaker.close()


@pytest.fixture
def lost() -> Iterator[list[Exception]]:
    """Why deliveries could not be published."""
    errors: list[Exception] = []

    def observer(error: Exception, **kwargs: Any) -> None:
        errors.append(error)

    delivery_unpublished.connect(observer)
    yield errors
    delivery_unpublished.disconnect(observer)


def ring(**kwargs: Any) -> Delivery:
    delivery = bell.send(sender=None, **kwargs)[0][1]
    assert isinstance(delivery, Delivery)
    return delivery


def waiting(app: Celery, queue: str = "") -> list[Any]:
    with app.connection_for_read() as connection:
        found = Queue(queue or app.conf.task_default_queue, channel=connection.default_channel)
        return list(iter(lambda: found.get(no_ack=True), None))


def breaker_of(backend: CeleryBackend) -> Breaker:
    (broker,) = backend._brokers.values()
    return broker.breaker


@pytest.fixture
def refusing(app: Celery) -> int:
    """A port that nobody listens on, as the app's broker."""
    port = free_port()
    app.conf.update(broker_write_url=f"redis://127.0.0.1:{port}/0")
    return port


@pytest.mark.django_db(transaction=True)
class TestAnInterruption:
    @pytest.mark.parametrize("kind", [SoftTimeLimitExceeded, KeyboardInterrupt, SystemExit])
    def test_of_whoever_waits_for_the_broker_leaves_a_line_that_names_what_nobody_knows_any_more(
        self, backend, link, lost, monkeypatch, caplog, kind
    ):
        def interrupted(self: Flush, patience: float) -> bool:
            raise kind

        link(bell, first)
        link(bell, second)
        monkeypatch.setattr(Flush, "wait", interrupted)
        with pytest.raises(kind), transaction.atomic():
            ring()
        assert not lost
        (line,) = [record.getMessage() for record in caplog.records if record.name == "deferred_signals"]
        assert line == (
            f"Interrupted by {kind.__name__} while they were handed over, so nobody is told whether they have been "
            "published: deliveries to tests.receivers.first (1), tests.receivers.second (1)."
        )


@pytest.mark.django_db(transaction=True)
class TestAnOutage:
    def test_only_the_first_send_waits(self, backend, app, link, lost, refusing, settings):
        settings.DEFERRED_SIGNALS = {"BACKEND": "celery", "PUBLISH_TIMEOUT": 5}
        link(bell, first)
        ring()
        started = time.monotonic()
        for _ in range(50):
            ring()
        assert time.monotonic() - started < 1
        assert [type(error) for error in lost] == [OperationalError, *[PublishError] * 50]
        assert "has been away for 0." in str(lost[-1])
        assert lost[-1].__cause__ is lost[0]

    def test_one_thread_looks_for_the_broker_and_publishing_goes_on_when_it_is_back(
        self, backend, app, link, lost, tmp_path, caplog
    ):
        others = set(threading.enumerate())

        def looking() -> int:
            return [one.name for one in threading.enumerate() if one not in others].count("deferred_signals-broker")

        server = Redis(tmp_path).wait_ready()
        try:
            app.conf.broker_url = f"redis://127.0.0.1:{server.port}/0"
            link(bell, first)
            ring()
            server.kill()
            for _ in range(10):
                ring()
            assert looking() == 1
            server.start()
            server.wait_ready()
            eventually(lambda: not breaker_of(backend).is_open, timeout=5)
            delivery = ring()
            assert len(lost) == 10
            assert waiting(app)[-1].headers["id"] == delivery.id
            eventually(lambda: "Deliveries that were refused meanwhile: 9" in caplog.text)
            eventually(lambda: not looking())
        finally:
            server.remove()

    def test_where_the_first_of_two_brokers_hangs_the_second_one_gets_all_that_follows(
        self, backend, app, link, lost, tmp_path
    ):
        server = Redis(tmp_path).wait_ready()
        try:
            with socket.create_server(("127.0.0.1", 0)) as silent:
                ports = (silent.getsockname()[1], server.port)
                app.conf.broker_url = [f"redis://127.0.0.1:{port}/0" for port in ports]
                link(bell, first)
                for _ in range(3):
                    ring()
                    eventually(lambda: not breaker_of(backend).is_open)
                assert len(lost) == 1
            app.conf.broker_url = f"redis://127.0.0.1:{server.port}/0"
            assert len(waiting(app)) == 2
        finally:
            server.remove()

    def test_a_hand_over_that_hung_with_a_broker_that_is_well_costs_no_other_delivery(self, backend, app, link, lost):
        link(bell, first)
        let_go = threading.Event()

        def hangs(**kwargs: Any) -> None:
            let_go.wait(20)

        before_task_publish.connect(hangs)
        try:
            ring()
        finally:
            before_task_publish.disconnect(hangs)
        delivery = ring()
        let_go.set()
        assert [str(error) for error in lost] == ["The broker did not answer for 0.3 s."]
        eventually(lambda: delivery.id in [message.headers["id"] for message in waiting(app)])

    def test_another_broker_is_not_away_and_the_old_one_is_not_looked_for_any_more(
        self, backend, app, link, lost, refusing
    ):
        link(bell, first)
        ring()
        old = breaker_of(backend)
        app.conf.broker_write_url = "memory://"
        ring()
        assert len(lost) == 1
        eventually(lambda: not old.is_open)

    def test_a_process_that_was_forked_begins_afresh(self, backend, link, lost, refusing, monkeypatch):
        link(bell, first)
        ring()
        ring()
        monkeypatch.setattr("os.getpid", lambda: -1)
        ring()
        assert ["has been away" in str(error) for error in lost] == [False, True, False]

    def test_a_broker_that_answers_something_is_not_away(self, backend, app, link, lost):
        link(bell, first)
        link(bell, second)
        app.conf.broker_write_url = f"redis://127.0.0.1:{free_port()}/not-a-number"
        ring()
        assert not breaker_of(backend).is_open
        assert {type(error) for error in lost} == {ValueError}
        assert len(lost) == 2


class TestTheBreaker:
    @pytest.fixture
    def looks(self, app: Celery, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
        """What the looks at the broker find, in their order; while there is none, they last."""
        found: list[bool] = []
        over = threading.Event()

        def look(looking: Celery, timeout: float) -> bool:
            if looking is not app:
                return True  # of another test, whose broker is still looked for
            while not found:
                if over.wait(0.001):
                    return True
            return found.pop(0)

        monkeypatch.setattr(breakers, "takes_messages", look)
        monkeypatch.setattr(breakers, "PAUSE", 0.01)
        monkeypatch.setattr(breakers, "AGAIN", 0.01)
        yield found
        over.set()

    def test_who_comes_during_the_first_look_waits_for_it(self, app, looks):
        breaker = Breaker(app)
        breaker.open(PublishError("hung"), 1)
        answers: list[PublishError | None] = []
        asking = threading.Thread(target=lambda: answers.append(breaker.refusal(1)))
        asking.start()
        looks.append(True)
        asking.join()
        assert answers == [None]

    def test_but_not_for_long(self, app, looks, monkeypatch):
        monkeypatch.setattr(breakers, "GRACE", 0.05)
        breaker = Breaker(app)
        breaker.open(PublishError("hung"), 1)
        started = time.monotonic()
        assert "hung" in str(breaker.refusal(1))
        assert breaker.refusal(1)
        assert time.monotonic() - started < 1
        breaker.open(PublishError("another"), 1)  # nothing new
        looks += [False, False, True]
        eventually(lambda: not breaker.is_open)
        assert breaker.refusal(1) is None

    def test_where_looks_are_over_quickly_who_comes_has_another_one_taken_and_waits_for_it(
        self, app, looks, monkeypatch
    ):
        monkeypatch.setattr(breakers, "GROWTH", 1e6)
        monkeypatch.setattr(breakers, "LONGEST_PAUSE", 1e6)
        breaker = Breaker(app)
        breaker.open(PublishError("refused"), 1)
        looks += [False, False, True]
        eventually(lambda: len(looks) == 1)
        # By itself it would look again only after hours.
        eventually(lambda: breaker.refusal(1) is None)
        assert not looks
        eventually(lambda: not breaker.is_open)

    def test_where_they_hang_nobody_waits_for_them_again(self, app, looks, monkeypatch):
        monkeypatch.setattr(breakers, "GRACE", 0.05)
        monkeypatch.setattr(breakers, "LONGEST_PAUSE", 0.01)
        breaker = Breaker(app)
        breaker.open(PublishError("hung"), 1)
        assert breaker.refusal(1)
        looks.append(False)
        eventually(lambda: not looks)
        started = time.monotonic()
        for _ in range(100):
            assert breaker.refusal(1)
        assert time.monotonic() - started < 2
        looks.append(True)
        eventually(lambda: not breaker.is_open)

    def test_it_goes_on_trying_where_no_thread_can_be_had(self, app, monkeypatch):
        def none_left(self: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", none_left)
        breaker = Breaker(app)
        breaker.open(PublishError("hung"), 1)
        assert not breaker.is_open
        breaker.close()


class TestAnAbandonedFlush:
    def test_each_of_its_deliveries_is_told_once_even_while_the_lane_is_still_at_work(self, memory, link):
        link(bell, first)
        one, two, three = ring(), ring(), ring()
        flush = Flush([one, two, three], {})
        by_itself, left_over = ValueError(), PublishError()
        flush.failures.append((one, by_itself))  # and the lane has not yet taken it out
        assert flush.unpublished(left_over) == [(one, by_itself), (two, left_over), (three, left_over)]
        del flush.open[0], flush.open[1]
        assert flush.unpublished(left_over) == [(one, by_itself), (three, left_over)]


class TestALook:
    def test_one_that_refuses_and_one_that_hangs_are_away(self, app):
        app.conf.broker_url = f"redis://127.0.0.1:{free_port()}/0"
        assert not breakers.takes_messages(app, 0.2)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            for scheme in ("redis", "pyamqp"):
                app.conf.broker_url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/0"
                started = time.monotonic()
                assert not breakers.takes_messages(app, 0.2)
                assert time.monotonic() - started < 2

    @pytest.mark.parametrize("scheme", ["redis", "pyamqp"])
    def test_it_ends_also_where_the_project_lets_its_connections_wait_for_long(self, app, scheme):
        names = ("socket_timeout", "socket_connect_timeout", "read_timeout", "write_timeout")
        app.conf.broker_transport_options = dict.fromkeys(names, 30)
        app.conf.broker_connection_timeout = None
        with socket.create_server(("127.0.0.1", 0)) as silent:
            app.conf.broker_url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/0"
            started = time.monotonic()
            assert not breakers.takes_messages(app, 0.2)
            assert time.monotonic() - started < 5

    def test_the_second_of_two_brokers_is_as_good(self, app):
        app.conf.broker_url = [f"pyamqp://127.0.0.1:{free_port()}//", "memory://"]
        assert breakers.takes_messages(app, 0.2)
        assert breakers.takes_messages(app, 0.2)

    @pytest.mark.parametrize(("error", "takes"), [(AccessRefused("go away"), True), (OSError("gone"), False)])
    def test_one_that_refuses_the_message_is_there(self, app, amqp, error, takes):
        amqp.raising.append(error)
        assert breakers.takes_messages(app, 0.2) is takes

    def test_rabbitmq_has_to_take_a_message(self, app, amqp):
        assert breakers.takes_messages(app, 0.2)
        assert [(exchange, key) for exchange, key, _ in amqp.published] == [("", "deferred_signals.probe")]


class TestTheConnection:
    def test_its_waits_end_unless_the_project_says_otherwise(self, app):
        app.conf.broker_url = "redis://"
        app.conf.broker_transport_options = {"socket_timeout": 77}
        options: Any = connect(app, 5).transport_options
        assert (options["socket_timeout"], options["socket_connect_timeout"]) == (77, 5)
        app.conf.broker_url = "pyamqp://"
        options = connect(app, 5).transport_options
        assert (options["read_timeout"], options["write_timeout"], options["confirm_publish"]) == (5, 5, True)


class Amqp(virtual.Channel):
    """As much of RabbitMQ's channel as a producer sees, over kombu's own broker: it returns and refuses messages."""

    published: list[tuple[str, str, bool]] = []  # noqa: RUF012 - the fixture empties it
    raising: list[Exception] = []  # noqa: RUF012
    returning: list[Exception] = []  # noqa: RUF012

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.events: dict[str, set[Any]] = {"basic_return": set(), "basic_ack": set(), "basic_nack": set()}
        #: What the broker is about to say: the event, and with what.
        self.answers: list[tuple[str, tuple[Any, ...]]] = []
        self.number: int | None = None

    def confirm_select(self) -> None:
        self.number = 0

    def basic_publish(self, message: Any, exchange: str, routing_key: str, mandatory: bool = False, **how: Any) -> None:
        self.published.append((exchange, routing_key, mandatory))
        nacked = bool(self.raising) and isinstance(self.raising[0], MessageNacked)
        if self.raising:
            error = self.raising.pop(0)
            if not nacked:
                raise error
        if mandatory and self.returning:
            told = SimpleNamespace(properties=message["properties"])
            self.answers.append(("basic_return", (self.returning.pop(0), exchange, routing_key, told)))
        elif not nacked:
            super().basic_publish(message, exchange, routing_key)
        if self.number is not None:
            self.number += 1
            self.answers.append(("basic_nack" if nacked else "basic_ack", (self.number, False)))

    def say(self) -> None:
        while self.answers:
            event, said = self.answers.pop(0)
            for tell in self.events[event]:
                tell(*said)


class AmqpChannel(Amqp, memory.Channel):  # type: ignore[misc]  # of the stubs' two kinds of events
    pass


class AmqpTransport(memory.Transport):
    Channel = AmqpChannel

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:  # type: ignore[override]  # two stubs
        for channel in connection.channels:
            channel.say()

    driver_type = "amqp"
    driver_name = "py-amqp"
    connection_errors = recoverable_connection_errors = pyamqp.Transport.recoverable_connection_errors
    channel_errors = pyamqp.Transport.channel_errors
    recoverable_channel_errors = pyamqp.Transport.recoverable_channel_errors


@pytest.fixture
def amqp(app: Celery, monkeypatch: pytest.MonkeyPatch) -> type[Amqp]:
    """The app's broker, as RabbitMQ would behave."""
    monkeypatch.setitem(kombu.transport.TRANSPORT_ALIASES, "amqp-in-process", f"{__name__}:AmqpTransport")
    app.conf.update(broker_url="amqp-in-process://")
    for seen in (Amqp.published, Amqp.raising, Amqp.returning):
        seen.clear()
    return Amqp


@pytest.mark.django_db(transaction=True)
class TestWhatReachesNoQueue:
    def test_a_queue_that_is_gone_is_declared_again_and_the_message_sent_once_more(
        self, backend, app, link, lost, amqp
    ):
        link(bell, first)
        ring()
        amqp.returning.append(OSError("NO_ROUTE"))
        delivery = ring()
        assert not lost
        assert [mandatory for *_, mandatory in amqp.published] == [True] * 3
        assert [message.headers["id"] for message in waiting(app)][1:] == [delivery.id]

    @pytest.mark.parametrize("error", [NotFound("no exchange"), None], ids=["no exchange", "no binding"])
    def test_one_that_cannot_be_routed_is_an_error_that_names_the_route(self, backend, app, link, lost, amqp, error):
        link(bell, first)
        if error:
            amqp.raising += [error, error]
        else:
            amqp.returning += [OSError("NO_ROUTE")] * 2
        ring()
        (found,) = lost
        assert isinstance(found, Unroutable)
        assert f"the exchange '' and the routing key '{app.conf.task_default_queue}'" in str(found)
        ring()
        assert len(lost) == 1

    def test_a_route_that_leads_nowhere_is_declared_again_once_for_a_commit(self, backend, app, link, lost, amqp):
        link(bell, first)
        amqp.returning += [OSError("NO_ROUTE")] * 7
        with transaction.atomic():
            for _ in range(3):
                ring()
        assert len(lost) == 3
        # All of them together, and then each by itself, the first of them twice.
        assert len(amqp.published) == 3 + 4

    def test_one_that_is_refused_is_an_error_that_says_so(self, backend, app, link, lost, amqp):
        link(bell, first)
        amqp.raising.append(MessageNacked())
        ring()
        (found,) = lost
        assert "has refused the message" in str(found)
        assert not breaker_of(backend).is_open

    def test_where_nothing_is_confirmed_nothing_can_be_told(self, backend, app, link, lost, amqp):
        app.conf.broker_transport_options = {"confirm_publish": False}
        link(bell, first)
        ring()
        assert [mandatory for *_, mandatory in amqp.published] == [False]

    def test_what_celery_publishes_beside_it_may_lead_nowhere(self, backend, app, link, lost, amqp):
        app.conf.task_send_sent_event = True
        link(bell, first)
        ring()
        assert not lost
        assert [mandatory for *_, mandatory in amqp.published] == [True, False]

    @pytest.mark.parametrize("kind", ["topic", "direct"])
    def test_with_the_brokers_of_kombu_it_is_told_before(self, backend, app, link, lost, kind):
        name = app.conf.task_default_queue
        app.conf.task_queues = [Queue(name), Queue(f"{name}-2", Exchange(f"{name}-2", type=kind), routing_key="a.b")]
        link(bell, first, exchange=f"{name}-2", routing_key="a.b")
        link(bell, second, exchange=f"{name}-2", routing_key="b.a")
        link(bell, curious, exchange=f"{name}-3", routing_key="a.b")
        ring()
        # Celery declares no queue for a message that names none; the project's are, where they are missing.
        assert [message.headers["shadow"] for message in waiting(app, f"{name}-2")] == ["tests.receivers.first"]
        assert [type(error) for error in lost] == [Unroutable, Unroutable]

    def test_a_fanout_needs_nobody_who_listens(self, backend, app, link, lost):
        name = app.conf.task_default_queue
        app.conf.task_queues = [Queue(name), Queue(f"{name}-2", Exchange(f"{name}-2", type="fanout"))]
        link(bell, first, queue=f"{name}-2")
        ring()
        assert not lost

    def test_a_project_that_collects_what_leads_nowhere_gets_it(self, app):
        app.conf.broker_transport_options = {"polling_interval": 0.01, "deadletter_queue": "letters"}
        with closing(connect(app, 5)) as connection:
            producer = Producer(connection)
            with pytest.warns(virtual.base.UndeliverableWarning):
                producer.publish("x", exchange="nowhere", routing_key="a.b", mandatory=True)


@pytest.mark.django_db(transaction=True)
class TestAMessageThatBreaksItsConnections:
    def test_one_is_its_own_fault_and_the_others_go_on(self, backend, app, link, lost, amqp):
        link(bell, first)
        # Both of them together, and the first one three times by itself.
        amqp.raising += [ConnectionResetError("reset")] * (2 + 3)
        with transaction.atomic():
            ring()
            delivery = ring()
        (found,) = lost
        assert isinstance(found, OperationalError)
        assert not breaker_of(backend).is_open
        assert [message.headers["id"] for message in waiting(app)] == [delivery.id]

    def test_two_are_the_brokers(self, backend, app, link, lost, amqp):
        link(bell, first)
        amqp.raising += [ConnectionResetError("reset")] * (4 + 6)
        with transaction.atomic():
            for _ in range(4):
                ring()
        assert len(lost) == 4
        assert not waiting(app)

    def test_a_connection_that_breaks_is_made_anew(self, backend, app, link, lost, amqp):
        link(bell, first)
        ring()
        amqp.raising += [ConnectionResetError("reset")] * 2
        ring()
        assert not lost
        assert len(waiting(app)) == 2


class TestAnswersOfRedis:
    @pytest.mark.parametrize("patience", [10])
    def test_an_error_of_one_queue_stops_no_other_and_opens_nothing(self, backend, app, link, lost, tmp_path: Path):
        server = Redis(tmp_path).wait_ready()
        try:
            app.conf.broker_url = f"redis://127.0.0.1:{server.port}/0"
            app.conf.task_queues = [Queue(app.conf.task_default_queue), Queue("wrong")]
            with app.connection_for_write() as connection:
                connection.default_channel.client.set("wrong", "not a list")
            link(bell, first, queue="wrong")
            link(bell, troubled)
            ring()
            (found,) = lost
            assert "WRONGTYPE" in str(found)
            assert not breaker_of(backend).is_open
            assert [message.headers["shadow"] for message in waiting(app)] == ["tests.receivers.troubled"]
        finally:
            server.remove()
