"""Rolling releases: senders and workers of two releases of one project at once, with messages under way between them.

``project/releases`` is the project. The old worker waits an hour for a release, the new one two seconds: what the old
one keeps waiting must reach the new one, and what the new release no longer has must end.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from tests.servers import RabbitMQ, Redis
from tests.wire.next_wire import BEFORE, NEXT
from tests.wire.specimen import FOLDER, KEY

from .conftest import Stack, covered, need
from .local_nodes import DOCKER, LocalRabbitMQ, LocalRedis, LocalWorker
from .shop import DEADLINE, Shop

PROJECT = "tests.integration.project.releases"
SPECIMENS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("v*.json"))}
OLD, NEW = "1", "2"
#: Seconds that a new worker waits for a release.
WINDOW = 2


def new_queue() -> str:
    return f"queue-{uuid.uuid4().hex[:8]}"


#: Seconds that a worker may take for its warm shutdown, on a busy machine.
SHUTDOWN = 60


class Worker:
    """A worker that reads a queue when it is told to."""

    def __init__(self, node: LocalWorker, name: str, app: Celery) -> None:
        self.node, self.name, self.app = node, name, app

    def take(self, queue: str) -> None:
        self._tell("add_consumer", queue)

    def leave(self, queue: str) -> None:
        """What it holds already it keeps: when its pause is over, it goes back into the queue."""
        self._tell("cancel_consumer", queue)

    def _tell(self, what: str, queue: str) -> None:
        """Said again until it is answered: over Redis, a worker that has only just started does not hear it yet."""
        command = getattr(self.app.control, what)
        told: dict[str, Any] = {"destination": [self.name], "reply": True, "timeout": 2}
        deadline = time.monotonic() + DEADLINE
        # kombu's pool is the whole process's, and RabbitMQ ends a connection of it that sends no heartbeats.
        with self.app.connection_for_write() as connection:
            while not any(
                "ok" in answer.get(self.name, {}) for answer in command(queue, **told, connection=connection)
            ):
                assert time.monotonic() < deadline, f"{self.name} does not answer to {what}"

    def logs(self) -> str:
        return str(self.node.logs())

    def stop(self) -> None:
        """As a deployment does: SIGTERM, and what it holds goes back into the queue."""
        self.node._container.kill("SIGTERM")
        # Killed, it would take what it holds with it, for as long as the broker's visibility timeout.
        self.node._container._process.wait(SHUTDOWN)


class Fleet:
    """The senders and workers of one project, on one broker and one database."""

    def __init__(self, home: Path, broker_url: str, ending: ExitStack) -> None:
        self.home, self.broker_url, self.ending = home, broker_url, ending
        # The broker is the module's, and what a test that failed has left in it is not for the next one.
        self.queue = new_queue()
        self.app = ending.enter_context(
            closing(
                Celery(
                    "fleet", broker=broker_url, set_as_current=False, fixups=[], changes={"task_ignore_result": True}
                )
            )
        )

    def sender(self, release: str, **env: str) -> Shop:
        return self.ending.enter_context(
            closing(
                Shop(
                    self.home,
                    PROJECT,
                    SHOP_BROKER_URL=self.broker_url,
                    SHOP_DATABASE_URL=f"sqlite://{self.home}/shop.sqlite3",
                    SHOP_QUEUE=f"idle-{uuid.uuid4().hex[:8]}",
                    SHOP_RELEASE=release,
                    **env,
                )
            )
        )

    def worker(self, release: str, **env: str) -> Worker:
        shop = self.sender(release, **env)
        node = LocalWorker.start(self.home, shop.env, PROJECT)
        self.ending.callback(node._container.remove)
        return Worker(node, f"shop@{shop.queue}", self.app)

    def put(self, payload: str, queue: str) -> None:
        self.app.send_task("deferred_signals.deliver", [payload], queue=queue)


class Rollout(Fleet):
    """A fleet with one sender and one worker of each release. A test sends into ``queue``, which nobody reads yet."""

    def __init__(self, home: Path, broker_url: str, ending: ExitStack) -> None:
        super().__init__(home, broker_url, ending)
        self.from_old, self.from_new = self.sender(OLD), self.sender(NEW)
        for sender in (self.from_old, self.from_new):
            sender.call("create_tables")
        self.old, self.new = self.worker(OLD), self.worker(NEW, SHOP_RELEASE_WINDOW=str(WINDOW))

    # What became of a delivery, as the journal of all these processes tells it.

    def runs(self, delivery: str) -> list[dict[str, Any]]:
        return self.from_old.notes("ran", delivery=delivery)

    def wait_for(self, state: str, delivery: str) -> dict[str, Any]:
        return self.from_old.wait_for(state, delivery=delivery)[-1]

    def waits_on_the_old_worker(self, delivery: str, because: str) -> None:
        """It is kept waiting, unread and unspent, and does not stand in the way; then the old worker is replaced."""
        self.old.take(self.queue)
        assert because in self.wait_for("retry", delivery)["reason"]
        other = self.from_old.call("send", queue=self.queue, signal="order_placed")["pack"]
        self.wait_for("succeeded", other)
        assert not self.runs(delivery)
        assert not self.from_old.notes("dead", delivery=delivery)
        self.old.leave(self.queue)

    def runs_once_on_the_new_worker(self, delivery: str) -> dict[str, Any]:
        self.new.take(self.queue)
        self.wait_for("succeeded", delivery)
        [run] = self.runs(delivery)
        assert (run["release"], run["attempt"]) == (2, 1)
        return run

    def dies_on_the_new_worker(self, delivery: str, because: str) -> None:
        """It waits the window and not long beyond it, ends with a clear line, and others go on."""
        self.new.take(self.queue)
        self.wait_for("retry", delivery)
        other = self.from_old.call("send", queue=self.queue, signal="order_placed")["pack"]
        self.wait_for("succeeded", other)
        reason = self.wait_for("dead", delivery)["reason"]
        assert because in reason
        assert f"for more than {WINDOW} s" in reason
        # It is looked at after 0, 1, 2 and 4 seconds.
        assert len(self.from_old.notes("retry", delivery=delivery)) <= 3
        assert not self.runs(delivery)
        [line] = [line for line in self.new.logs().splitlines() if f"Delivery {delivery}" in line and "is dead" in line]
        assert "attempt 1," in line
        assert because in line


@pytest.fixture(scope="module")
def brokers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], tuple[str, str]]]:
    """Start a broker for this module, tell its URL and version. Local processes also where others are containers."""
    made: dict[str, Any] = {}
    with ExitStack() as ending:

        def start(name: str) -> Any:
            broker: LocalRedis | LocalRabbitMQ
            if name == "redis":
                broker = LocalRedis.of(Redis(tmp_path_factory.mktemp("redis")))
                ending.callback(broker._container.remove)
            elif DOCKER:
                broker = LocalRabbitMQ.of(RabbitMQ(tmp_path_factory.mktemp("rabbitmq")))
                ending.callback(broker._container.remove)
            else:
                broker = request.getfixturevalue("rabbitmq")
            return broker

        def url(name: str) -> tuple[str, str]:
            broker = made.get(name) or made.setdefault(name, start(name))
            if broker.status == "exited":  # a test of another module has killed it
                broker.restart()
            return broker.celeryconfig["host_url"], broker.version()

        yield url


@pytest.fixture(params=["redis-sqlite", "rabbitmq-sqlite"])
def broker_url(request: pytest.FixtureRequest, brokers: Callable[[str], tuple[str, str]]) -> str:
    stack = Stack(*request.param.split("-"))
    server: type[Redis | RabbitMQ] = Redis if stack.broker == "redis" else RabbitMQ
    need(request, server)
    url, version = brokers(stack.broker)
    covered(request, server.title, version)
    return url


@pytest.fixture
def fleet(broker_url: str, tmp_path: Path) -> Iterator[Fleet]:
    with ExitStack() as ending:
        yield Fleet(tmp_path, broker_url, ending)


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Rollout]]:
    made: dict[str, Rollout] = {}
    with ExitStack() as ending:

        def get(url: str) -> Rollout:
            return made.get(url) or made.setdefault(url, Rollout(tmp_path_factory.mktemp("rollout"), url, ending))

        yield get


@pytest.fixture
def rollout(broker_url: str, rollouts: Callable[[str], Rollout]) -> Iterator[Rollout]:
    """Both releases, as long as the module's tests need them, for their processes take seconds to start."""
    found = rollouts(broker_url)
    found.queue = new_queue()
    yield found
    for worker in (found.old, found.new):
        worker.leave(found.queue)


class TestNewSendersAndOldWorkers:
    """What the old worker cannot run waits, keeps its retries, and is run by the new worker, once."""

    def test_a_receiver_that_only_the_new_release_has(self, rollout: Rollout):
        ids = rollout.from_new.call("send", queue=rollout.queue, signal="order_placed")
        rollout.waits_on_the_old_worker(ids["insure"], "No receiver of the name")
        # The other receiver of the same signal did not wait for it.
        assert [run["release"] for run in rollout.runs(ids["pack"])] == [1]
        rollout.runs_once_on_the_new_worker(ids["insure"])

    def test_the_new_name_of_a_receiver_that_was_renamed(self, rollout: Rollout):
        ids = rollout.from_new.call("send", queue=rollout.queue, signal="parcel_sent")
        rollout.waits_on_the_old_worker(ids["notify_customer"], "No receiver of the name")
        rollout.runs_once_on_the_new_worker(ids["notify_customer"])

    def test_a_value_with_a_tag_that_only_the_new_release_knows(self, rollout: Rollout):
        ids = rollout.from_new.call("set_price", queue=rollout.queue, cents=990)
        rollout.waits_on_the_old_worker(ids["print_label"], "a type that this process does not know")
        assert rollout.runs_once_on_the_new_worker(ids["print_label"])["cents"] == 990

    def test_a_snapshot_with_a_field_that_was_added(self, rollout: Rollout):
        ids = rollout.from_new.call("spend_voucher", queue=rollout.queue)
        rollout.waits_on_the_old_worker(ids["book_voucher"], "has fields that the model here does not have")
        assert rollout.runs_once_on_the_new_worker(ids["book_voucher"])["deferred"] == []

    def test_a_snapshot_without_a_field_that_was_removed(self, rollout: Rollout):
        ids = rollout.from_new.call("spend_coupon", queue=rollout.queue)
        rollout.old.take(rollout.queue)
        rollout.wait_for("succeeded", ids["book_coupon"])
        [run] = rollout.runs(ids["book_coupon"])
        assert (run["release"], run["deferred"]) == (1, ["remark"])

    @pytest.mark.parametrize(("model", "receiver"), [("Depot", "put_on_the_map"), ("Van", "tax")])
    def test_a_model_that_was_renamed_or_moved_to_another_app(self, rollout: Rollout, model: str, receiver: str):
        ids = rollout.from_new.call("save", queue=rollout.queue, model=model)
        rollout.waits_on_the_old_worker(ids[receiver], "A model that the payload names is not installed")
        assert rollout.runs_once_on_the_new_worker(ids[receiver])["name"] == "Graz"

    def test_an_argument_that_only_the_new_release_sends(self, rollout: Rollout):
        ids = rollout.from_new.call("send", queue=rollout.queue, signal="account_closed", reason="fraud")
        rollout.old.take(rollout.queue)
        rollout.wait_for("succeeded", ids["audit"])
        [run] = rollout.runs(ids["audit"])
        assert (run["release"], run["reason"]) == (1, "fraud")

    def test_a_signal_that_was_moved_where_the_receiver_listens_to_one(self, rollout: Rollout):
        ids = rollout.from_new.call("send", queue=rollout.queue, signal="returned")
        rollout.old.take(rollout.queue)
        rollout.wait_for("succeeded", ids["restock"])
        assert [(run["release"], run["itself"]) for run in rollout.runs(ids["restock"])] == [(1, True)]

    def test_a_signal_that_was_moved_where_the_receiver_listens_to_several(self, rollout: Rollout):
        ids = rollout.from_new.call("send", queue=rollout.queue, signal="returned")
        rollout.waits_on_the_old_worker(ids["keep_books"], "No signal of the name")
        rollout.runs_once_on_the_new_worker(ids["keep_books"])


class TestOldSendersAndNewWorkers:
    """What was sent before the release runs, where the new release can still tell what it means."""

    def test_a_receiver_that_was_renamed_gets_what_was_sent_before_by_its_alias(self, rollout: Rollout):
        ids = rollout.from_old.call("send", queue=rollout.queue, signal="parcel_sent")
        run = rollout.runs_once_on_the_new_worker(ids["tell_customer"])
        assert run["receiver"] == "notify_customer"

    def test_a_receiver_that_was_removed_ends_dead_and_the_signals_others_run(self, rollout: Rollout):
        ids = rollout.from_old.call("send", queue=rollout.queue, signal="points_earned")
        rollout.dies_on_the_new_worker(ids["count_points"], "No receiver of the name")
        assert [run["release"] for run in rollout.runs(ids["thank"])] == [2]

    def test_a_receiver_whose_module_is_gone_ends_dead(self, rollout: Rollout):
        ids = rollout.from_old.call("send", queue=rollout.queue, signal="points_earned")
        rollout.dies_on_the_new_worker(ids["send_a_present"], "No receiver of the name")

    @pytest.mark.parametrize(("model", "receiver"), [("Depot", "put_on_the_map"), ("Van", "tax")])
    def test_a_model_that_was_renamed_or_moved_to_another_app_ends_dead(
        self, rollout: Rollout, model: str, receiver: str
    ):
        ids = rollout.from_old.call("save", queue=rollout.queue, model=model)
        rollout.dies_on_the_new_worker(ids[receiver], "A model that the payload names is not installed")

    def test_a_snapshot_of_before_a_field_was_added_arrives_with_that_field_deferred(self, rollout: Rollout):
        ids = rollout.from_old.call("spend_voucher", queue=rollout.queue)
        run = rollout.runs_once_on_the_new_worker(ids["book_voucher"])
        assert (run["code"], run["deferred"]) == ("V1", ["place"])

    def test_a_snapshot_with_a_field_that_was_removed_ends_dead(self, rollout: Rollout):
        ids = rollout.from_old.call("spend_coupon", queue=rollout.queue)
        rollout.dies_on_the_new_worker(ids["book_coupon"], "has fields that the model here does not have")

    def test_a_receiver_with_a_new_required_argument_raises_is_retried_and_ends_dead(self, rollout: Rollout):
        ids = rollout.from_old.call("send", queue=rollout.queue, signal="account_closed")
        rollout.new.take(rollout.queue)
        assert (
            rollout.wait_for("dead", ids["audit"])["reason"]
            == "the receiver raised in attempt 2, the last (max_retries)"
        )
        assert len(rollout.from_old.notes("retry", delivery=ids["audit"])) == 1
        assert not rollout.runs(ids["audit"])
        rollout.from_old.wait_until(
            lambda: "audit() missing 1 required positional argument: 'reason'" in rollout.new.logs(),
            "the reason in the log",
        )

    def test_a_signal_that_was_moved_is_the_one_that_the_receiver_listens_to(self, rollout: Rollout):
        ids = rollout.from_old.call("send", queue=rollout.queue, signal="returned")
        assert rollout.runs_once_on_the_new_worker(ids["restock"])["itself"] is True

    def test_a_signal_that_was_moved_ends_dead_where_the_receiver_listens_to_several(self, rollout: Rollout):
        ids = rollout.from_old.call("send", queue=rollout.queue, signal="returned")
        rollout.dies_on_the_new_worker(ids["keep_books"], "No signal of the name")

    def test_a_signal_with_a_name_of_its_own_may_move(self, rollout: Rollout):
        ids = rollout.from_old.call("send", queue=rollout.queue, signal="warned")
        assert rollout.runs_once_on_the_new_worker(ids["keep_books"])["itself"] is True


def test_fifty_that_wait_do_not_stand_in_the_way_of_others(rollout: Rollout):
    waiting = [
        rollout.from_new.call("send", queue=rollout.queue, signal="parcel_sent")["notify_customer"] for _ in range(50)
    ]
    other = rollout.from_old.call("send", queue=rollout.queue, signal="order_placed")["pack"]
    rollout.old.take(rollout.queue)
    rollout.wait_for("succeeded", other)
    assert not any(map(rollout.runs, waiting))
    rollout.old.leave(rollout.queue)
    rollout.new.take(rollout.queue)
    for delivery in waiting:
        rollout.wait_for("succeeded", delivery)
    # Each has run once, in its first attempt.
    assert {tuple(run["attempt"] for run in rollout.runs(delivery)) for delivery in waiting} == {(1,)}


class TestOptionsOfTheWorker:
    """They are looked up by the receiver's name and do not travel."""

    @pytest.mark.parametrize(
        ("signal", "receiver", "attempts"), [("payment_due", "charge", 2), ("reminder_due", "remind", 3)]
    )
    def test_max_retries_is_that_of_the_worker_which_runs_it(
        self, rollout: Rollout, signal: str, receiver: str, attempts: int
    ):
        """Release 1 says 5 and 1, release 2 says 1 and 2."""
        ids = rollout.from_old.call("send", queue=rollout.queue, signal=signal)
        rollout.old.take(rollout.queue)
        rollout.wait_for("ran", ids[receiver])
        rollout.old.leave(rollout.queue)
        (rollout.home / f"gate-{ids[receiver]}").touch()
        rollout.wait_for("retry", ids[receiver])
        rollout.new.take(rollout.queue)
        reason = rollout.wait_for("dead", ids[receiver])["reason"]
        assert reason == f"the receiver raised in attempt {attempts}, the last (max_retries)"
        assert [run["attempt"] for run in rollout.runs(ids[receiver])] == list(range(1, attempts + 1))


class TestTheWire:
    """A release that changes the wire writes the next version and reads both: ``tests/wire/next_wire.py``."""

    def test_a_message_of_the_next_version_that_an_old_worker_gets_first_is_run_once_by_the_new_one(self, fleet: Fleet):
        sender = fleet.sender(NEW, SHOP_NEXT_WIRE="1")
        earlier = fleet.sender(NEW)
        old = fleet.worker(NEW)
        ids = sender.call("send", queue=fleet.queue, signal="order_placed")
        old.take(fleet.queue)
        sender.wait_for("retry", 2, receiver=None)
        # It does not stand in the way, and costs nothing.
        before = earlier.call("send", queue=fleet.queue, signal="order_placed")
        sender.wait_for("succeeded", delivery=before["pack"])
        assert not any(sender.notes("ran", delivery=delivery) for delivery in ids.values())
        assert not sender.notes("dead")
        assert f"is of wire version {NEXT}; this release reads up to {BEFORE}" in old.logs()
        # What it is looking at in the moment of the end may come twice, so it ends when it has just looked at both.
        looks = len(sender.notes("retry"))
        sender.wait_for("retry", looks + len(ids), receiver=None)
        old.stop()
        fleet.worker(NEW, SHOP_NEXT_WIRE="1").take(fleet.queue)
        for receiver, delivery in ids.items():
            sender.wait_for("succeeded", delivery=delivery)
            assert [run["attempt"] for run in sender.notes("ran", delivery=delivery)] == [1], receiver

    @pytest.mark.parametrize("version", SPECIMENS)
    def test_messages_of_every_released_version_run_on_a_worker_of_the_next(self, fleet: Fleet, version: str):
        said = SPECIMENS[version]
        settings = {"SHOP_NEXT_WIRE": "1", "SHOP_SPECIMENS": "1", "SHOP_SIGNING_KEYS": KEY}
        sender = fleet.sender(NEW, **settings)
        sender.call("create_tables")
        sender.call("rows_of_the_specimens")
        worker = fleet.worker(NEW, **settings)
        for name in ("first", "retried"):
            fleet.put(said[name]["payload"], fleet.queue)
        worker.take(fleet.queue)
        [run] = sender.wait_for("ran", receiver="welcome")
        assert run["told"] == {name: value for name, value in said["arguments"].items() if name != "rows"}
        assert (run["sender"], run["signal"], run["rows"], run["attempt"]) == ("shop.Customer", True, [42], 1)
        [run] = sender.wait_for("ran", receiver="charge")
        assert (run["signal"], run["attempt"]) == (True, 3)
        sender.wait_for("succeeded", 2)
        assert not sender.notes("retry")

    def test_a_retry_that_a_new_worker_writes_waits_on_an_old_one(self, fleet: Fleet):
        sender = fleet.sender(OLD)
        old, new = fleet.worker(NEW), fleet.worker(NEW, SHOP_NEXT_WIRE="1")
        [delivery] = sender.call("send", queue=fleet.queue, signal="reminder_due").values()
        new.take(fleet.queue)
        sender.wait_for("ran", receiver="remind")
        new.leave(fleet.queue)
        (fleet.home / f"gate-{delivery}").touch()
        sender.wait_for("retry", receiver="remind")
        old.take(fleet.queue)
        sender.wait_for("retry", receiver=None)
        old.leave(fleet.queue)
        new.take(fleet.queue)
        sender.wait_for("dead", receiver="remind")
        assert [run["attempt"] for run in sender.notes("ran", delivery=delivery)] == [1, 2, 3]


class TestContext:
    def test_a_tenant_that_an_old_worker_does_not_know_of_waits_for_the_new_one(self, fleet: Fleet):
        sender = fleet.sender(OLD, SHOP_TENANTS="1")
        old = fleet.worker(OLD)
        ids = sender.call("send_for_tenant", queue=fleet.queue, signal="order_placed", tenant="acme")
        old.take(fleet.queue)
        [retry] = sender.wait_for("retry", delivery=ids["pack"])[:1]
        assert "a context 'tenant' that this process does not know" in retry["reason"]
        assert not sender.notes("ran")
        old.stop()
        fleet.worker(OLD, SHOP_TENANTS="1").take(fleet.queue)
        sender.wait_for("succeeded", delivery=ids["pack"])
        assert [run["tenant"] for run in sender.notes("ran", delivery=ids["pack"])] == ["acme"]

    def test_what_was_sent_before_there_were_tenants_runs_without_one(self, fleet: Fleet):
        sender = fleet.sender(OLD)
        ids = sender.call("send", queue=fleet.queue, signal="order_placed")
        fleet.worker(OLD, SHOP_TENANTS="1").take(fleet.queue)
        sender.wait_for("succeeded", delivery=ids["pack"])
        assert [run["tenant"] for run in sender.notes("ran", delivery=ids["pack"])] == ["nobody"]


class TestSigningKeys:
    """Verify first, sign later: ``docs/wire.md``, "Changing the key"."""

    STEPS = ("old", "old,new", "new,old")

    def test_at_each_step_everybody_accepts_what_the_step_before_and_the_step_after_sign(self, fleet: Fleet):
        senders = [fleet.sender(OLD, SHOP_SIGNING_KEYS=keys) for keys in self.STEPS]
        workers = [fleet.worker(OLD, SHOP_SIGNING_KEYS=keys) for keys in self.STEPS]
        for step, worker in enumerate(workers):
            queue = f"{fleet.queue}-{step}"
            worker.take(queue)
            for sender in senders[max(0, step - 1) : step + 2]:
                delivery = sender.call("send", queue=queue, signal="order_placed")["pack"]
                sender.wait_for("succeeded", delivery=delivery)
        assert not senders[0].notes("dead")

    def test_who_skips_the_first_step_has_what_is_signed_with_the_new_key_dead_at_once(self, fleet: Fleet):
        sender = fleet.sender(OLD, SHOP_SIGNING_KEYS="new,old")
        old = fleet.worker(OLD, SHOP_SIGNING_KEYS="old")
        old.take(fleet.queue)
        sender.call("send", queue=fleet.queue, signal="order_placed")
        [dead] = sender.wait_for("dead", receiver=None)
        assert "signed with a key that is not in this process's SIGNING_KEYS" in dead["reason"]
        assert not sender.notes("ran")
        assert not sender.notes("retry")
