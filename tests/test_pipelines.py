"""Messages of one flush leave for Redis in one round trip; what breaks it costs none of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest
import redis as redis_client
from celery import Celery
from celery.signals import before_task_publish
from django.db import transaction
from kombu import Queue
from kombu.exceptions import OperationalError
from redis.client import Pipeline

from deferred_signals import Signal
from deferred_signals.backends import flush as flushes
from deferred_signals.backends.celery import CeleryBackend
from deferred_signals.backends.producer import Producer
from tests.receivers import curious, first, second
from tests.servers import Redis

bell: Any = Signal()

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """A private Redis, or Valkey from its wheel, which every machine has that runs these tests."""
    server = Redis(tmp_path)
    server.wait_ready()
    yield server
    server.remove()


@pytest.fixture
def app(redis: Redis, publishes_by: Callable[[Celery], CeleryBackend]) -> Celery:
    app = Celery("project", broker=f"redis://127.0.0.1:{redis.port}/0", set_as_current=False)
    app.conf.update(task_default_queue="pipelined", task_queues=[Queue(name) for name in ("pipelined", "a", "b")])
    publishes_by(app)
    return app


def ring(count: int) -> list[str]:
    """Send so often in one transaction; the ids."""
    with transaction.atomic():
        return [response.id for _ in range(count) for _, response in bell.send(sender=None)]


def messages(app: Celery, name: str = "pipelined") -> list[str]:
    """The ids of what stands in a queue, taken out."""
    with app.connection_for_read() as connection:
        queue = Queue(name, channel=connection.default_channel)
        return [message.headers["id"] for message in iter(lambda: queue.get(no_ack=True), None)]


def pushes(pipeline: Any) -> int:
    """How many messages a pipeline takes along; kombu has others, for the lengths of queues."""
    return sum(command[0][0] == "LPUSH" for command in pipeline.command_stack)


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages each pipeline took along that took any."""
    found: list[int] = []
    execute = Pipeline.execute

    def spied(self: Any, *args: Any, **kwargs: Any) -> Any:
        found.extend(filter(None, [pushes(self)]))
        return execute(self, *args, **kwargs)

    monkeypatch.setattr(Pipeline, "execute", spied)
    return found


needs_batches = pytest.mark.skipif(not hasattr(kombu.Producer, "batch"), reason="kombu has batches since 5.7")


class TestOneRoundTrip:
    @needs_batches
    def test_a_flush_is_one_pipeline(self, app, link, heard, executed):
        link(bell, first)
        ring(1)
        ids = ring(50)
        assert executed == [50]
        assert messages(app)[1:] == ids
        assert heard["published"][1:] == ids

    @needs_batches
    def test_the_first_flush_of_a_connection_is_one_too(self, app, link, heard, executed):
        link(bell, first)
        link(bell, second, queue="a")
        ids = ring(10)
        assert executed == [20]
        assert messages(app) == ids[::2]
        assert messages(app, "a") == ids[1::2]
        assert heard["published"] == ids

    @needs_batches
    def test_a_large_flush_goes_in_parts(self, app, link, heard, executed, monkeypatch):
        monkeypatch.setattr(flushes, "MOST", 10)
        link(bell, first)
        ids = ring(25)
        assert executed == [10, 10, 5]
        assert messages(app) == heard["published"] == ids

    def test_a_part_has_a_bound_for_its_characters_too(self, app, link, heard, monkeypatch):
        monkeypatch.setattr(flushes, "LARGEST", 1000)
        link(bell, first)
        ids = ring(12)
        assert messages(app) == heard["published"] == ids

    def test_where_somebody_listens_each_goes_by_itself(self, app, link, heard, executed):
        link(bell, first)
        told: list[Any] = []

        def listens(**kwargs: Any) -> None:
            told.append(kwargs)

        before_task_publish.connect(listens)
        try:
            ids = ring(5)
        finally:
            before_task_publish.disconnect(listens)
        assert len(told) == 5
        assert not executed
        assert messages(app) == heard["published"] == ids

    def test_a_kombu_without_batches_publishes_one_by_one(self, app, link, heard, executed, monkeypatch):
        monkeypatch.delattr(kombu.Producer, "batch", raising=False)
        monkeypatch.delattr(kombu.Producer, "supports_batch_publish", raising=False)
        link(bell, first)
        ids = ring(5)
        assert not executed
        assert messages(app) == heard["published"] == ids


@needs_batches
class TestAPipelineThatBreaks:
    """Its messages are published once more, one by one, under the ids that they have."""

    @pytest.fixture
    def breaks(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """Let the next pipeline with several messages break, before or after Redis has them."""

        def arm(error: Exception, *, after: bool) -> None:
            armed = [error]
            execute = Pipeline.execute

            def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
                if pushes(self) > 1 and armed:
                    error = armed.pop()
                    if after:
                        execute(self, *args, **kwargs)
                    raise error
                return execute(self, *args, **kwargs)

            monkeypatch.setattr(Pipeline, "execute", broken)

        return arm

    @pytest.mark.parametrize(
        "error", [redis_client.ConnectionError("reset"), redis_client.TimeoutError("slow")], ids=str
    )
    def test_before_redis_has_them_each_is_there_once(self, error, app, link, heard, breaks):
        link(bell, first)
        breaks(error, after=False)
        ids = ring(5)
        assert messages(app) == heard["published"] == ids
        assert not heard["unpublished"]

    def test_after_redis_has_them_each_is_there_twice_under_its_id(self, app, link, heard, breaks):
        link(bell, first)
        breaks(redis_client.ConnectionError("reset"), after=True)
        ids = ring(5)
        assert messages(app) == [*ids, *ids]
        assert heard["published"] == ids
        assert not heard["unpublished"]

    @pytest.mark.parametrize(
        "error", [redis_client.ConnectionError("reset"), OperationalError("as Celery says it")], ids=str
    )
    def test_one_that_breaks_while_it_is_filled_leaves_nothing_and_each_is_there_once(
        self, error, app, link, heard, monkeypatch
    ):
        link(bell, first)
        ring(2)
        messages(app)
        heard["published"].clear()
        publish, errors, count = Producer.publish, [error], list[int]()

        def breaks(self: Any, body: Any, *args: Any, **how: Any) -> Any:
            count.append(1)
            if len(count) == 3 and errors:
                raise errors.pop()
            return publish(self, body, *args, **how)

        monkeypatch.setattr(Producer, "publish", breaks)
        ids = ring(5)
        assert messages(app) == heard["published"] == ids

    def test_the_parts_before_and_after_it_are_not_published_again(self, app, link, heard, breaks, monkeypatch):
        monkeypatch.setattr(flushes, "MOST", 4)
        link(bell, first)
        ring(1)
        messages(app)
        breaks(redis_client.ConnectionError("reset"), after=True)
        ids = ring(12)
        assert messages(app) == [*ids[:4], *ids[:4], *ids[4:]]

    def test_one_of_them_that_cannot_even_be_written_fails_alone(self, app, link, heard, monkeypatch):
        link(bell, first)
        ring(2)
        messages(app)
        heard["published"].clear()
        publish = Producer.publish
        wrong: list[str] = []

        def picky(self: Any, body: Any, *args: Any, **how: Any) -> Any:
            wrong[:] = wrong or [how["correlation_id"]]
            if how["correlation_id"] in wrong:
                raise ValueError("not this one")
            return publish(self, body, *args, **how)

        monkeypatch.setattr(Producer, "publish", picky)
        ids = ring(5)
        assert heard["unpublished"] == wrong == ids[:1]
        assert messages(app) == heard["published"] == ids[1:]


class TestARedisThatRefuses:
    def test_a_queue_of_the_wrong_type_fails_only_its_own(self, app, link, heard, redis):
        link(bell, first, queue="a")
        link(bell, second)
        link(bell, curious, queue="b")
        client = redis_client.Redis(port=redis.port or 0)
        client.set("a", "no list")
        ids = ring(4)
        assert sorted(heard["unpublished"]) == sorted(ids[0::3])
        assert all("WRONGTYPE" in str(error) for error in heard["errors"])
        assert set(messages(app)) == set(ids[1::3])
        assert set(messages(app, "b")) == set(ids[2::3])
        assert sorted(heard["published"]) == sorted([*ids[1::3], *ids[2::3]])

    def test_one_that_is_out_of_memory_takes_none_and_each_is_told(self, app, link, heard, redis):
        link(bell, first)
        ring(1)
        messages(app)
        client = redis_client.Redis(port=redis.port or 0)
        client.config_set("maxmemory", "1")
        ids = ring(5)
        assert heard["unpublished"] == ids
        assert all("OOM" in str(error) or "memory" in str(error) for error in heard["errors"])
        client.config_set("maxmemory", "0")
        again = ring(3)
        assert messages(app) == again

    def test_a_connection_that_has_died_since_costs_nothing(self, app, link, heard, redis):
        link(bell, first)
        ring(2)
        redis.restart()
        redis.wait_ready()
        ids = ring(5)
        assert [one for one in messages(app) if one in ids] == ids
        assert not heard["unpublished"]
