"""Deliveries of the default mode that cannot be published, where the outbox is installed: they are kept in it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import TestCase

from deferred_signals import Delivery, Signal, backends, publish_again
from deferred_signals.backends.memory import MemoryBackend
from deferred_signals.bell import is_bell
from deferred_signals.connecting import connect_deferred
from deferred_signals.exceptions import PublishError
from deferred_signals.outbox import backend as backend_module
from deferred_signals.outbox import beside as beside_module
from deferred_signals.outbox import ringing
from deferred_signals.outbox import rows as rows_module
from deferred_signals.outbox.models import OutboxDelivery
from deferred_signals.signals import delivery_published, delivery_unpublished
from tests.outbox.test_durable import without_table
from tests.outbox.waiting import DEADLINE, wait_until
from tests.receivers import first, on_item, second
from tests.shop.models import Customer

order_placed: Any = Signal()

real = pytest.mark.django_db(transaction=True, databases=["default", "other"])


class Broker:
    """In the place of the memory backend's: it can be away, and may take every second delivery only."""

    def __init__(self, memory: MemoryBackend) -> None:
        self.memory = memory
        self.is_away = True
        self.takes: slice | None = None

    def publish(self, deliveries: Sequence[Delivery]) -> list[backends.Failure]:
        if not self.is_away:
            return MemoryBackend.publish(self.memory, deliveries)
        taken = deliveries[self.takes] if self.takes else []
        MemoryBackend.publish(self.memory, taken)
        return [(one, OSError("gone")) for one in deliveries if one not in taken]


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch, memory: MemoryBackend) -> Broker:
    made = Broker(memory)
    monkeypatch.setattr(memory, "publish", made.publish)
    return made


@pytest.fixture
def heard() -> Iterator[list[str]]:
    """What observers were told of."""
    seen: list[str] = []

    def published(**kwargs: Any) -> None:
        seen.append("published")

    def unpublished(**kwargs: Any) -> None:
        seen.append("unpublished")

    delivery_published.connect(published)
    delivery_unpublished.connect(unpublished)
    yield seen
    delivery_published.disconnect(published)
    delivery_unpublished.disconnect(unpublished)


def relayed(memory: MemoryBackend, broker: Broker, alias: str = "default") -> list[str]:
    """The broker is back, and the relay rings for what is due; return how that ended."""
    broker.is_away = False
    assert ringing.ring(alias, OutboxDelivery.objects.using(alias).filter(state="pending").order_by("number"))
    return [outcome.state for _, outcome in memory.deliver()]


@real
class TestABrokerThatIsAway:
    def test_at_the_commit_loses_nothing(self, link, memory, broker, rows, heard, calls, caplog):
        link(order_placed, on_item)
        with transaction.atomic():
            for number in range(3):
                order_placed.send(sender=None, item=number)
        assert rows("state", "origin") == [("pending", "spilled")] * 3
        assert all(ring_at <= created for ring_at, created in rows("ring_at", "created")), "only the relay rings for it"
        assert heard == []
        [record] = [record for record in caplog.records if record.name == "deferred_signals"]
        assert record.levelno == logging.WARNING
        assert "are kept until the relay can ring for them" in record.getMessage()
        assert "deliveries to tests.receivers.on_item (3)" in record.getMessage()
        assert "OSError: gone" in record.getMessage()
        assert relayed(memory, broker) == ["succeeded"]
        assert [kwargs["item"] for _, _, kwargs in calls] == [0, 1, 2]
        assert rows("state") == ["succeeded"] * 3

    def test_outside_a_transaction_loses_nothing(self, link, memory, broker, rows, heard):
        link(order_placed, on_item)
        [(_, delivery)] = order_placed.send(sender=None, item=1)
        assert [str(one) for one in rows("delivery_id")] == [delivery.id]
        assert heard == []
        assert relayed(memory, broker) == ["succeeded"]

    def test_for_some_keeps_those(self, link, memory, broker, rows, heard):
        link(order_placed, on_item)
        broker.takes = slice(1, None, 2)
        with transaction.atomic():
            ids = [order_placed.send(sender=None, item=number)[0][1].id for number in range(4)]
        assert [str(one) for one in rows("delivery_id")] == ids[::2]
        assert [delivery.id for delivery, _ in memory.payloads] == ids[1::2]
        assert heard == ["published"] * 2

    def test_and_a_backend_that_raises_are_the_same(self, link, memory, monkeypatch, rows, heard):
        def publish(deliveries: Sequence[Delivery]) -> None:
            raise RuntimeError("boom")

        monkeypatch.setattr(memory, "publish", publish)
        link(order_placed, on_item)
        with transaction.atomic():
            order_placed.send(sender=None, item=1)
        assert (rows("origin"), heard) == (["spilled"], [])

    def test_for_many_large_ones_keeps_them(self, link, broker, rows):
        """More than a database takes in one statement: MariaDB's limit is 16 MB."""
        link(order_placed, on_item)
        with transaction.atomic():
            for _ in range(rows_module.MOST):
                order_placed.send(sender=None, item="x" * 40_000)
        assert len(rows("number")) == rows_module.MOST

    def test_in_a_coroutine_loses_nothing(self, link, memory, broker, rows, heard):
        """The send itself needs no database there, so what is kept is written in a thread."""
        link(order_placed, on_item)

        async def work() -> None:
            order_placed.send(sender=None, item=1)
            with pytest.raises(SynchronousOnlyOperation):
                connection.cursor()

        asyncio.run(work())
        assert (rows("state", "origin"), heard) == ([("pending", "spilled")], [])
        assert relayed(memory, broker) == ["succeeded"]

    def test_keeps_countdowns_and_routes(self, link, memory, broker, rows):
        link(order_placed, on_item, countdown=60, queue="slow")
        order_placed.send(sender=None, item=1)
        [(created, due, ring_at)] = rows("created", "due", "ring_at")
        assert 59 < (due - created).total_seconds() < 61
        assert ring_at == due
        relayed(memory, broker)
        assert rows("state") == ["pending"], "it is not due yet"

    def test_for_what_is_published_again_keeps_it(self, link, memory, broker, rows):
        link(order_placed, on_item)
        broker.is_away = False
        order_placed.send(sender=None, item=1)
        [(delivery, payload)] = memory.payloads
        broker.is_away = True
        assert publish_again(payload).id == delivery.id
        assert [str(one) for one in rows("delivery_id")] == [delivery.id]


@real
class TestOnCommitFalse:
    def test_in_an_open_transaction_is_an_error_as_it_was(self, link, broker, rows, heard):
        """A row would be rolled back with the transaction, and the delivery was to leave whatever becomes of that."""
        link(order_placed, on_item, on_commit=False)
        with transaction.atomic(), pytest.raises(PublishError, match="on_item"):
            order_placed.send(sender=None, item=1)
        assert (rows(), heard) == ([], ["unpublished"])

    def test_with_autocommit_off_is_an_error_as_it_was(self, link, broker, rows, heard):
        link(order_placed, on_item, on_commit=False)
        transaction.set_autocommit(False)
        try:
            with pytest.raises(PublishError, match="on_item"):
                order_placed.send(sender=None, item=1)
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)
        assert (rows(), heard) == ([], ["unpublished"])

    def test_outside_a_transaction_is_kept_and_no_error(self, link, memory, broker, rows, heard):
        link(order_placed, on_item, on_commit=False)
        order_placed.send(sender=None, item=1)
        assert (rows("origin"), heard) == (["spilled"], [])
        assert relayed(memory, broker) == ["succeeded"]


class ToOther:
    """Routes the outbox's models to ``other``."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "other" if model is OutboxDelivery else None


@real
class TestWhere:
    def test_is_the_database_whose_commit_was_awaited(self, link, memory, broker, rows):
        link(order_placed, on_item, using="other")
        with transaction.atomic(using="other"):
            order_placed.send(sender=None, item=1)
        assert (rows(), rows("origin", alias="other")) == ([], ["spilled"])
        assert relayed(memory, broker, "other") == ["succeeded"]

    def test_is_the_routers_where_that_one_has_no_table(self, link, memory, broker, rows, settings, calls):
        settings.DATABASE_ROUTERS = ["tests.outbox.test_spill.ToOther"]
        link(order_placed, on_item)
        with without_table(), transaction.atomic():
            order_placed.send(sender=None, item=1)
        assert rows("origin", alias="other") == ["spilled"]
        assert relayed(memory, broker, "other") == ["succeeded"]
        assert len(calls) == 1

    def test_is_nowhere_without_any_table(self, link, broker, heard, caplog):
        link(order_placed, on_item)
        with without_table():
            order_placed.send(sender=None, item=1)
        assert heard == ["unpublished"]
        assert "has no table" in caplog.text
        assert "neither be published nor be kept" in caplog.text
        assert "lost unless a receiver of delivery_unpublished keeps them" in caplog.text


@contextmanager
def no_table_on_other() -> Iterator[None]:
    with connections["other"].schema_editor() as editor:
        editor.delete_model(OutboxDelivery)
    try:
        yield
    finally:
        with connections["other"].schema_editor() as editor:
            editor.create_model(OutboxDelivery)


@contextmanager
def no_table(alias: str) -> Iterator[None]:
    """What asks finds none; in a test's transaction it cannot be taken away everywhere."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(backend_module, "has_table", lambda asked: asked != alias)
        yield


class RolledBack(Exception):
    pass


def send_and_roll_back(alias: str, first: Callable[[], Any]) -> None:
    """Commit a send on ``other`` within a transaction of ``alias`` that is rolled back, as with ATOMIC_REQUESTS."""
    with pytest.raises(RolledBack), transaction.atomic(using=alias):
        first()
        with transaction.atomic(using="other"):
            order_placed.send(sender=None, item=1)
        raise RolledBack


@real
class TestWhileATransactionIsOpenWhereTheyAreKept:
    @pytest.fixture(autouse=True)
    def linked(self, link, settings) -> None:
        link(order_placed, on_item, using="other")
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "PUBLISH_TIMEOUT": DEADLINE}

    def test_they_are_kept_beside_it_and_whatever_becomes_of_it(self, memory, broker, rows, heard, calls):
        with no_table_on_other():
            send_and_roll_back("default", lambda: None)
        assert (rows("state", "origin"), heard) == ([("pending", "spilled")], [])
        assert relayed(memory, broker) == ["succeeded"]
        assert len(calls) == 1

    @pytest.mark.skipif(connection.vendor == "sqlite", reason="it has one writer; see below")
    def test_they_are_kept_also_if_it_has_written(self, broker, rows, heard):
        with no_table_on_other():
            send_and_roll_back("default", lambda: Customer.objects.create(name="Ada"))
        assert (rows("origin"), heard) == (["spilled"], [])
        assert not Customer.objects.exists()

    def test_they_are_kept_with_autocommit_off(self, broker, rows, heard):
        with no_table_on_other():
            transaction.set_autocommit(False)
            try:
                with transaction.atomic(using="other"):
                    order_placed.send(sender=None, item=1)
            finally:
                transaction.rollback()
                transaction.set_autocommit(True)
        assert (rows("origin"), heard) == (["spilled"], [])

    @pytest.fixture
    def hangs(self, linked, monkeypatch, settings) -> Iterator[threading.Event]:
        """What is written there hangs until the event is set."""
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "PUBLISH_TIMEOUT": 0.2}
        go_on = threading.Event()

        def insert(*given: Any) -> None:
            assert go_on.wait(DEADLINE)
            rows_module.insert(*given)

        monkeypatch.setattr(backend_module, "insert", insert)
        yield go_on
        go_on.set()
        wait_until(lambda: not beside())

    def test_they_are_not_waited_for_for_long_and_lost_as_it_was_told(self, broker, rows, heard, hangs, caplog):
        """What the database does later changes nothing: who was told that they are lost may have sent them again."""
        with no_table_on_other():
            send_and_roll_back("default", lambda: None)
        assert heard == ["unpublished"]
        assert "neither be published nor be kept" in caplog.text
        assert "did not answer for 0.2 s" in caplog.text
        hangs.set()
        wait_until(lambda: not beside())
        assert rows() == []

    @pytest.mark.parametrize("ends", [True, False])
    def test_a_commit_that_has_begun_is_waited_for_a_little_longer(
        self, broker, rows, heard, hangs, caplog, monkeypatch, ends
    ):
        hangs.set()
        begins, goes_on = threading.Event(), threading.Event()
        commit, is_over = BaseDatabaseWrapper.commit, beside_module._is_over

        def begin(self: BaseDatabaseWrapper) -> None:
            if threading.current_thread() in beside():
                begins.set()
                assert goes_on.wait(DEADLINE)
            commit(self)

        def look(done: Any, seconds: float) -> bool:
            assert begins.wait(DEADLINE)
            found = is_over(done, DEADLINE if goes_on.is_set() else seconds)
            if ends:
                goes_on.set()
            return found

        monkeypatch.setattr(BaseDatabaseWrapper, "commit", begin)
        monkeypatch.setattr(beside_module, "_is_over", look)
        with no_table_on_other():
            send_and_roll_back("default", lambda: None)
            goes_on.set()
            wait_until(lambda: not beside())
        assert rows("origin") == ["spilled"], "either way"
        assert heard == ([] if ends else ["unpublished"])
        assert ("may be kept nevertheless" in caplog.text) is not ends


def beside() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "deferred_signals-spill"]


class ToFile:
    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "file" if model is OutboxDelivery else None


@real
class TestASQLiteInAFile:
    """Where the open transaction has written, or has read in a journal that is not a WAL, nobody else can write."""

    @pytest.fixture(params=["wal", "delete"])
    def journal(self, request) -> str:
        return str(request.param)

    @pytest.fixture(autouse=True)
    def file(self, tmp_path, monkeypatch, settings, journal) -> Iterator[None]:
        database = {
            **connections.databases["default"],
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(tmp_path / "file.sqlite3"),
            "OPTIONS": {"timeout": 30},
        }
        monkeypatch.setitem(connections.databases, "file", database)
        # Django's tests may use the databases of the settings only.
        monkeypatch.setattr(BaseDatabaseWrapper, "ensure_connection", lambda self: self.connection or self.connect())
        settings.DATABASE_ROUTERS = ["tests.outbox.test_spill.ToFile"]
        with connections["file"].cursor() as cursor:
            cursor.execute(f"PRAGMA journal_mode = {journal}")
        with connections["file"].schema_editor() as editor:
            editor.create_model(OutboxDelivery)
            editor.create_model(Customer)
        yield
        # Whoever is not waited for any longer ends all the same, with the connections that it has made.
        for thread in threading.enumerate():
            if thread.name == "deferred_signals-spill":
                thread.join(DEADLINE)
        connections["file"].close()
        del connections["file"]

    @pytest.fixture(autouse=True)
    def linked(self, link) -> None:
        link(order_placed, on_item, using="other")

    @pytest.fixture
    def do(self, settings) -> Callable[[float, Callable[[], Any]], None]:
        def do(patience: float, first: Callable[[], Any]) -> None:
            settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "PUBLISH_TIMEOUT": patience}
            began = time.monotonic()
            with no_table_on_other():
                send_and_roll_back("file", first)
            assert time.monotonic() - began < 25  # of the 30 of its own

        return do

    def test_keeps_them_beside_a_transaction_that_has_done_nothing(self, do, broker, rows, heard):
        do(20, lambda: None)
        assert (rows("origin", alias="file"), heard) == (["spilled"], [])

    def test_loses_them_soon_beside_one_that_has_written_and_says_so(self, do, broker, rows, heard, caplog):
        do(0.3, lambda: Customer.objects.using("file").create(name="Ada"))
        assert (rows(alias="file"), heard) == ([], ["unpublished"])
        assert "neither be published nor be kept" in caplog.text
        assert "lost unless a receiver of delivery_unpublished keeps them" in caplog.text

    def test_beside_one_that_has_read_does_what_it_says(self, do, broker, rows, heard, journal):
        does_write = journal == "wal"
        do(20 if does_write else 0.3, lambda: list(Customer.objects.using("file").all()))
        assert (rows("origin", alias="file"), heard) == ((["spilled"], []) if does_write else ([], ["unpublished"]))


@real
class TestADatabaseThatFails:
    def test_loses_them_as_without_an_outbox(self, link, broker, outbox, heard, caplog):
        outbox.check("default")
        link(order_placed, on_item)
        link(order_placed, second)
        ran = []
        with without_table():
            with transaction.atomic():
                order_placed.send(sender=None, item=1)
                transaction.on_commit(lambda: ran.append("hook"))
        assert heard == ["unpublished"] * 2
        assert ran == ["hook"]
        assert "neither be published nor be kept" in caplog.text

    def test_keeps_all_of_them_or_none(self, link, broker, rows, heard, monkeypatch):
        """Of one that is kept nobody must be told that it is lost: an observer would send it again."""
        link(order_placed, on_item)
        monkeypatch.setattr(rows_module, "MOST", 2)
        with transaction.atomic():
            ids = [order_placed.send(sender=None, item=number)[0][1].id for number in range(5)]
            transaction.on_commit(lambda: None)
            with transaction.atomic(using="other"):
                pass
            # A row of the last one's id is there already.
            OutboxDelivery.objects.create(delivery_id=ids[-1], receiver="x", payload="x", created="2026-01-01T00:00Z")
        assert heard == ["unpublished"] * 5
        assert [str(one) for one in rows("delivery_id")] == ids[-1:]


@real
class TestInterruptions:
    def test_are_the_callers_and_nobody_knows_what_was_published(self, link, memory, monkeypatch, rows, heard, caplog):
        monkeypatch.setattr(MemoryBackend, "interruptions", (SoftTimeLimitExceeded,))

        def publish(deliveries: Sequence[Delivery]) -> list[backends.Failure]:
            raise SoftTimeLimitExceeded

        monkeypatch.setattr(memory, "publish", publish)
        link(order_placed, on_item)
        with pytest.raises(SoftTimeLimitExceeded), transaction.atomic():
            order_placed.send(sender=None, item=1)
        assert (rows(), heard) == ([], [])
        assert "Interrupted by SoftTimeLimitExceeded" in caplog.text

    def test_of_others_take_no_durable_one_with_them(self, link, memory, monkeypatch, rows):
        monkeypatch.setattr(MemoryBackend, "interruptions", (SoftTimeLimitExceeded,))

        def publish(deliveries: Sequence[Delivery]) -> list[backends.Failure]:
            raise SoftTimeLimitExceeded

        monkeypatch.setattr(memory, "publish", publish)
        link(order_placed, on_item)
        link(order_placed, first, durable=True)
        with pytest.raises(SoftTimeLimitExceeded), transaction.atomic():
            order_placed.send(sender=None, item=1)
        assert rows("receiver") == ["tests.receivers.first"]


class TestInsideTestCase(TestCase):
    """Whose transaction nothing else could be in, and nothing be beside."""

    databases = {"default", "other"}  # noqa: RUF012 - Django's own way to write it

    def setUp(self) -> None:
        backend = backends.current()
        assert isinstance(backend, MemoryBackend)
        self.backend = backend
        patch = pytest.MonkeyPatch()
        self.addCleanup(patch.undo)
        patch.setattr(backend, "publish", Broker(backend).publish)
        connect_deferred(order_placed, on_item, None, None, {})
        self.addCleanup(order_placed.disconnect, on_item)

    def test_what_cannot_be_published_is_kept(self):
        with self.captureOnCommitCallbacks(execute=True):
            order_placed.send(sender=None, item=1)
        assert [row.origin for row in OutboxDelivery.objects.all()] == ["spilled"]
        assert not any(is_bell(payload) for _, payload in self.backend.payloads)

    def test_a_transaction_in_it_is_one(self):
        with transaction.atomic(), self.captureOnCommitCallbacks(execute=True):
            order_placed.send(sender=None, item=1)
        assert not OutboxDelivery.objects.exists()

    def test_one_of_the_database_where_they_are_kept_is_the_tests_own(self):
        order_placed.disconnect(on_item)
        connect_deferred(order_placed, on_item, None, None, {"using": "other"})
        with no_table("other"), transaction.atomic(), self.captureOnCommitCallbacks(using="other", execute=True):
            order_placed.send(sender=None, item=1)
        assert [row.origin for row in OutboxDelivery.objects.all()] == ["spilled"]

    def test_a_database_error_leaves_the_test_its_transaction(self):
        with self.captureOnCommitCallbacks(execute=True):
            [(_, delivery)] = order_placed.send(sender=None, item=1)
            OutboxDelivery.objects.create(
                delivery_id=delivery.id, receiver="x", payload="x", created="2026-01-01T00:00Z"
            )
        assert OutboxDelivery.objects.count() == 1
        assert connections["default"].in_atomic_block
