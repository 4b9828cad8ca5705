"""PostgreSQL's NOTIFY: a sender wakes the relay, and does not talk to the broker."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from django.db import connection, connections, transaction
from django.db.models.signals import post_save
from django.test.utils import CaptureQueriesContext, override_settings

from deferred_signals.outbox import notifying, relay, together
from deferred_signals.outbox.models import OutboxDelivery
from deferred_signals.outbox.notifying import Ear, is_on
from deferred_signals.outbox.relay import Relay
from deferred_signals.outbox.ringing import ids_of
from tests import receivers
from tests.outbox.waiting import DEADLINE, wait_until
from tests.settings import DATABASES
from tests.shop.models import Customer

ON = {"BACKEND": "memory", "NOTIFY": True}

pytestmark = pytest.mark.django_db(transaction=True)
on_postgresql = pytest.mark.skipif(
    "postgresql" not in DATABASES["default"]["ENGINE"], reason="NOTIFY is PostgreSQL's; tests.on_database runs this"
)
elsewhere = pytest.mark.skipif("postgresql" in DATABASES["default"]["ENGINE"], reason="about the other databases")


@pytest.fixture(autouse=True)
def _on() -> Iterator[None]:
    with override_settings(DEFERRED_SIGNALS=ON):
        yield


@pytest.fixture
def send(link) -> Any:
    def send() -> None:
        link(post_save, receivers.first, Customer, durable=True, dispatch_uid="notified")
        with transaction.atomic():
            Customer.objects.create(name="Ada")

    return send


@elsewhere
class TestElsewhere:
    def test_the_setting_means_nothing_and_the_sender_rings(self, send, memory, rows):
        assert not is_on(connection)
        send()
        ((_, outcome),) = memory.deliver()
        assert outcome.state == "succeeded"

    def test_the_relay_says_so_once_and_leaves_the_row_to_its_sender_for_a_while(self, send, memory, caplog):
        send()
        memory.payloads.clear()
        one = Relay("default")
        assert 0 < one.turn() <= 1.0
        assert 0 < one.turn() <= 1.0
        assert caplog.text.count("The database 'default' has no NOTIFY") == 1
        assert memory.payloads == []
        assert one._ear.socket is None


@on_postgresql
class TestOnPostgreSQL:
    @pytest.fixture
    def running(self, monkeypatch) -> Iterator[Relay]:
        """A relay that looks at the table once an hour."""
        monkeypatch.setattr(relay, "POLL", 3600.0)
        one = Relay("default")
        thread = threading.Thread(target=one.run)
        thread.start()
        wait_until(lambda: one.leadership.leads, "it leads")
        yield one
        one.stop()
        thread.join(DEADLINE)

    def test_the_sender_does_not_talk_to_the_broker(self, send, memory):
        send()
        assert memory.payloads == []

    def test_it_is_said_once_for_rows_that_are_written_together(self, link):
        link(post_save, receivers.first, Customer, durable=True)
        with CaptureQueriesContext(connection) as queries, together():
            for name in ("Ada", "Eve", "Bob"):
                Customer.objects.create(name=name)
        assert sum(query["sql"].startswith("NOTIFY") for query in queries) == 1

    def test_the_relay_rings_as_soon_as_the_sender_has_committed(self, running, send, memory):
        took = []
        for _ in range(20):
            memory.payloads.clear()
            send()
            committed = time.monotonic()
            wait_until(lambda: memory.payloads, "it rings")
            took.append(time.monotonic() - committed)
        assert sorted(took)[5] < 0.05  # on a machine that is shared: in most cases

    def test_nothing_is_rung_for_before_the_commit(self, running, link, memory):
        link(post_save, receivers.first, Customer, durable=True)
        with transaction.atomic():
            Customer.objects.create(name="Ada")
            assert running.rung == 0
        wait_until(lambda: memory.payloads, "it rings")
        (key,) = ids_of(memory.payloads[0][0])
        assert OutboxDelivery.objects.get().delivery_id == key

    def test_a_lost_notification_costs_the_time_to_the_next_look(self, send, memory, monkeypatch):
        monkeypatch.setattr("deferred_signals.outbox.backend.notify", lambda connection: None)
        one = Relay("default")
        assert one.turn() == 1.0
        send()
        assert one.turn() == 0
        assert len(memory.payloads) == 1

    def test_a_relay_whose_connection_is_ended_listens_on_its_next_one(self, running, send, memory, monkeypatch):
        monkeypatch.setattr(relay, "AWAY_PAUSE", 0.01)
        with psycopg.connect(**_as_psycopg(), autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [running._ear._raw.info.backend_pid])
        for number in range(2):
            memory.payloads.clear()
            send()
            wait_until(lambda: memory.payloads, f"it rings, {number}")

    def test_what_comes_along_with_the_answer_to_a_query_is_heard(self, send):
        ear = Ear("default")
        ear.listen()
        ear.listen()
        assert ear.socket == connection.connection.fileno()
        assert not ear.heard()
        other = connections.create_connection("default")
        try:
            notifying.notify(other)
        finally:
            other.close()
        end = time.monotonic() + DEADLINE
        while not ear.heard():
            assert time.monotonic() < end
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        assert not ear.heard()


class TestByWhateverDriver:
    """On every database, so that what other drivers do is not left to the runs that have them."""

    @pytest.fixture
    def ear(self, monkeypatch) -> Callable[[Any], Ear]:
        """Ears on a connection to PostgreSQL of this driver."""

        def make(raw: Any) -> Ear:
            executed: list[str] = []
            raw.executed = executed
            cursor = SimpleNamespace(execute=executed.append)
            made = SimpleNamespace(
                vendor="postgresql", connection=raw, ensure_connection=lambda: None, cursor=lambda: nullcontext(cursor)
            )
            monkeypatch.setattr(notifying, "connections", {"default": made})
            return Ear("default")

        return make

    def test_psycopg_3_calls(self, ear):
        handlers: list[Callable[[Any], None]] = []
        raw = SimpleNamespace(add_notify_handler=handlers.append, fileno=lambda: 7, notifies=lambda: None)
        one = ear(raw)
        assert one.socket is None
        one.listen()
        one.listen()
        assert raw.executed == ["LISTEN deferred_signals"]
        assert one.socket == 7
        assert not one.heard()
        (handler,) = handlers
        handler(None)
        assert one.heard()
        assert not one.heard()

    def test_psycopg2_has_a_list(self, ear):
        raw = SimpleNamespace(fileno=lambda: 7, notifies=[])
        one = ear(raw)
        one.listen()
        assert not one.heard()
        raw.notifies.append("one")
        assert one.heard()
        assert not one.heard()

    def test_a_sender_calls(self, ear):
        raw = SimpleNamespace()
        ear(raw)
        notifying.notify(vars(notifying)["connections"]["default"])
        assert raw.executed == ["NOTIFY deferred_signals"]


def _as_psycopg() -> dict[str, Any]:
    parameters = connection.settings_dict
    return {"host": parameters["HOST"], "port": parameters["PORT"], "user": parameters["USER"], "dbname": "postgres"}
