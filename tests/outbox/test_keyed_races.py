"""Keys under real concurrency: senders and workers with connections of their own."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction

from deferred_signals import Signal
from deferred_signals.outbox import keyed
from deferred_signals.outbox.lease import Claim, claim
from deferred_signals.outbox.models import Lock, OutboxDelivery, State
from tests.receivers import first

sent: Any = Signal()

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

#: Seconds after which a test gives up.
DEADLINE = 60.0
FILE = {"timeout": DEADLINE, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"}
SENDS = 20
LEVELS = ["as it is", "repeatable read", "serializable"]


@pytest.fixture(params=LEVELS if connection.vendor != "sqlite" else LEVELS[:1])
def alias(transactional_db: None, request: Any, tmp_path: Any) -> Iterator[str]:
    """The other database, with an isolation level; with SQLite it is a file, which threads can share."""
    ours, settings = connections["other"], connections.settings["other"]
    changed = {**ours.settings_dict, "OPTIONS": dict(ours.settings_dict["OPTIONS"])}
    if connection.vendor == "sqlite":
        # As a check tells users to have it.
        changed |= {"NAME": tmp_path / "outbox.sqlite3", "OPTIONS": FILE}
    elif request.param != LEVELS[0]:
        changed["OPTIONS"]["isolation_level"] = _level(request.param)
    connections.settings["other"] = changed
    connections["other"] = connections.create_connection("other")
    if connection.vendor == "sqlite":
        with connections["other"].schema_editor() as editor:
            editor.create_model(OutboxDelivery)
            editor.create_model(Lock)
    yield "other"
    connections["other"].close()
    connections["other"], connections.settings["other"] = ours, settings


def _level(words: str) -> Any:
    if connection.vendor == "mysql":
        return words
    from psycopg import IsolationLevel

    return IsolationLevel[words.upper().replace(" ", "_")]


@contextmanager
def threads(alias: str, count: int) -> Iterator[Callable[..., Future[Any]]]:
    """Start functions in threads, whose connections are closed at their end."""

    def run(function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        finally:
            connections[alias].close()
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        yield lambda function, *arguments: pool.submit(run, function, *arguments)


class Work:
    """What workers of all threads see of one another."""

    def __init__(self, alias: str, column: str) -> None:
        self.alias = alias
        self.column = column
        self.mutex = threading.Lock()
        self.running: set[Any] = set()
        self.runs: list[int] = []
        self.gave_way = 0
        self.sending = True
        self.until = time.monotonic() + DEADLINE

    def send(self, which: int) -> None:
        chance = random.Random(which)
        for number in range(SENDS):
            key = chance.choice("abc")
            while not self.is_sent(key, (which, number), chance.random() / 500):
                assert time.monotonic() < self.until

    def is_sent(self, key: str, number: tuple[int, int], pause: float) -> bool:
        try:
            with transaction.atomic(using=self.alias):
                sent.send(sender=None, key=key, number=number)
                time.sleep(pause)
        except OperationalError as error:
            # PostgreSQL may choose the sender of two that it cannot put in a row; whoever asks for that retries.
            assert "could not serialize" in str(error)  # noqa: PT017 - of no other is it right to go on
            return False
        return True

    def answer(self, which: int) -> None:
        chance = random.Random(which)
        while time.monotonic() < self.until:
            rows = OutboxDelivery.objects.using(self.alias).filter(state__in=(State.PENDING, State.RUNNING))
            ids = list(rows.values_list("delivery_id", flat=True))
            if not ids and not self.sending:
                return
            chance.shuffle(ids)
            time.sleep(0.005)
            for key in ids[:5]:
                try:
                    made = claim(self.alias, key)
                except OperationalError:
                    self.gave_way += 1
                    continue
                if isinstance(made, Claim):
                    self.run(made, chance)
        raise TimeoutError

    def run(self, made: Claim, chance: random.Random) -> None:
        key = getattr(made.row, self.column)
        with self.mutex:
            assert key not in self.running, f"two of {key} run"
            self.running.add(key)
            self.runs.append(made.row.number)
        time.sleep(chance.random() / 200)
        with self.mutex:
            self.running.remove(key)
        while True:
            try:
                assert made.complete()
            except OperationalError:
                continue  # a serialization failure; the library tries again as well
            return


def worked(alias: str, column: str) -> Work:
    work = Work(alias, column)
    with threads(alias, 6) as start:
        workers = [start(work.answer, number) for number in range(4)]
        for sender in [start(work.send, number) for number in range(2)]:
            sender.result(DEADLINE)
        work.sending = False
        for worker in workers:
            worker.result(DEADLINE)
    return work


def test_of_an_order_key_one_runs_at_a_time_and_what_one_sender_sent_in_its_order(link, alias):
    link(sent, first, durable=True, using=alias, order_by="key")
    work = worked(alias, "order_key")
    assert len(work.runs) == len(set(work.runs)) == 2 * SENDS
    place = {number: index for index, number in enumerate(work.runs)}
    rows = OutboxDelivery.objects.using(alias).filter(state=State.SUCCEEDED)
    found = list(rows.order_by("number").values_list("number", "order_key", "payload"))
    assert len(found) == 2 * SENDS
    for sender in (0, 1):
        for key in {order_key for _, order_key, _ in found}:
            # In each of them, transactions came one after another, and so did the numbers.
            mine = [number for number, order_key, text in found if order_key == key and f"[{sender}," in text]
            assert [place[number] for number in mine] == sorted(place[number] for number in mine)


def test_of_a_unique_key_one_runs_at_a_time_and_the_last_one_does(link, alias):
    link(sent, first, durable=True, using=alias, unique="key")
    work = worked(alias, "unique_key")
    assert len(work.runs) == len(set(work.runs)) < 2 * SENDS
    rows = OutboxDelivery.objects.using(alias)
    assert rows.filter(state__in=(State.SUCCEEDED, State.DISCARDED)).count() == 2 * SENDS
    for key in rows.values_list("unique_key", flat=True).distinct():
        assert rows.filter(unique_key=key).latest("number").state == State.SUCCEEDED


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time, which is a turn as well")
class TestTwoThatDoNotSeeEachOther:
    """Row 2 is claimed while row 1 is not committed; then row 1 is, and is claimed while the claim of 2 is not."""

    @pytest.fixture
    def claims(self, link: Any, monkeypatch: Any) -> Callable[..., list[Any]]:
        link(sent, first, durable=True, order_by="key")

        real = keyed.standing

        def both(*, waits: bool) -> list[Any]:
            stands, goes = threading.Event(), threading.Event()
            with threads("default", 2) as start:
                with transaction.atomic():
                    ((_, one),) = sent.send(sender=None, key="a", number=1)
                    two = start(self.send).result(DEADLINE)
                    seen: list[Any] = []

                    def standing(alias: str, row: Any) -> Any:
                        found = real(alias, row)
                        seen.append(row)
                        if len(seen) == 2:  # of row 2, in its turn
                            stands.set()
                            assert goes.wait(DEADLINE)
                        return found

                    monkeypatch.setattr(keyed, "standing", standing)
                    of_two = start(claim, "default", two)
                    assert stands.wait(DEADLINE)
                of_one = start(claim, "default", one.id)
                # Long enough for a claim that does not wait.
                wait([of_one], timeout=2)
                assert of_one.done() is not waits
                goes.set()
                return [of_one.result(DEADLINE), of_two.result(DEADLINE)]

        return both

    @staticmethod
    def send() -> str:
        with transaction.atomic():
            ((_, delivery),) = sent.send(sender=None, key="a", number=2)
        return str(delivery.id)

    def test_take_turns_and_only_one_of_them_runs(self, claims):
        of_one, of_two = claims(waits=True)
        assert of_one is None
        assert isinstance(of_two, Claim)

    def test_would_both_run_without_a_lock(self, claims, monkeypatch):
        monkeypatch.setattr(keyed, "take", lambda *_: None)
        assert all(isinstance(made, Claim) for made in claims(waits=False))
