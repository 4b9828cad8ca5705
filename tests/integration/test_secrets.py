"""What a receiver is given stands nowhere but on the broker, and with ``encrypt`` not there either.

A value that nobody else says, the canary, is sent to receivers that succeed, retry, die, run into their time limit, end
their process, come too late, cannot be encoded, published, verified or decoded, in a project that logs at DEBUG, sends
events and keeps results with their arguments. Then it is looked for everywhere.
"""

import base64
import json
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from cryptography.fernet import Fernet
from pytest_celery import CeleryTestBroker

from .conftest import Stack
from .local_nodes import WorkerProcess
from .shop import Shop

VAULT = "tests.integration.project.vault"
CANARY = "canary-4711-0815"
SIGNING_KEY, KEY = "the signing key of the vault", Fernet.generate_key().decode()
#: The broker, where results are kept, whether all is encrypted.
SETTINGS = ["redis redis plain", "rabbitmq django-db plain", "redis django-db encrypted"]


@pytest.fixture(params=SETTINGS)
def setting(request: pytest.FixtureRequest) -> list[str]:
    return request.param.split()  # type: ignore[no-any-return]


@pytest.fixture
def stack(setting: list[str]) -> Stack:
    return Stack(setting[0], "sqlite")


@pytest.fixture
def shop_env(celery_broker: CeleryTestBroker, setting: list[str]) -> dict[str, str]:
    _, results, encryption = setting
    return {
        "DJANGO_SETTINGS_MODULE": f"{VAULT}.settings",
        "VAULT_RESULTS": celery_broker.config()["host_url"] if results == "redis" else results,
        "VAULT_SIGNING_KEY": SIGNING_KEY,
        "VAULT_KEY": KEY,
        "VAULT_ENCRYPT": encryption,
    }


@pytest.fixture
def app(shop: Shop) -> Celery:
    """Asks workers and puts messages, as a stranger to the project would."""
    return Celery("onlooker", broker=shop.env["SHOP_BROKER_URL"], set_as_current=False, fixups=[])


class Onlooker:
    """Hears every event, as Flower does."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.events: list[Any] = []
        self.listening = threading.Event()
        self.receiver: Any = None
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()
        assert self.listening.wait(20)

    def _listen(self) -> None:
        with self.app.connection_for_read() as connection:
            self.receiver = self.app.events.Receiver(connection, handlers={"*": self.events.append})
            self.receiver.on_consume_ready = lambda *args, **kwargs: self.listening.set()
            for _ in self.receiver.consume(limit=None):
                pass

    def kinds(self) -> set[str]:
        return {event["type"] for event in self.events}

    def close(self) -> None:
        self.receiver.should_stop = True
        self.thread.join()


@pytest.fixture
def onlooker(app: Celery) -> Iterator[Onlooker]:
    onlooker = Onlooker(app)
    yield onlooker
    onlooker.close()


def spellings(secret: str) -> list[str]:
    """How a secret may stand in a text: as it is, and in base64, which is another text for each of three places."""
    found = [secret]
    for before in range(3):
        coded = base64.b64encode(b"x" * before + secret.encode()).decode()
        found.append(coded[4 if before else 0 : -4])
    return found


def finds(text: str, secret: str = CANARY) -> list[str]:
    """The surroundings of a secret in a text."""
    places = [text.find(spelling) for spelling in spellings(secret)]
    return [text[max(0, place - 300) : place + 100] for place in places if place >= 0]


def test_the_search_finds_what_it_looks_for():
    for before in ("", "a", "ab", "abc"):
        text = f'{before}{{"secret":"{CANARY}"}}'
        assert finds(text)
        assert finds(base64.b64encode(text.encode()).decode())


class Vault:
    """The sender, the worker and all that looks at them; ``seen`` is what each place shows."""

    def __init__(self, shop: Shop, app: Celery, onlooker: Onlooker, setting: list[str]) -> None:
        self.shop, self.app, self.onlooker = shop, app, onlooker
        self.broker, self.results, self.encryption = setting
        self.seen: dict[str, str] = {}
        shop.call("create_tables")

    def call(self, scenario: str, **arguments: Any) -> Any:
        return self.shop.call("elsewhere", path=f"{VAULT}.scenarios.{scenario}", **arguments)

    def send(self, *signals: str) -> list[str]:
        return [number for signal in signals for number in self.call("send", signal=signal, secret=CANARY)]

    def redis(self) -> Any:
        return redis.Redis.from_url(self.shop.env["SHOP_BROKER_URL"])

    def refuse_to_encode(self) -> None:
        self.seen["errors of send()"] = said = str(self.call("fail_to_encode", secret=CANARY))
        assert said.count("EncodeError(") == 3
        assert said.count("TooLarge(") == 2

    def end_in_every_way(self) -> None:
        shop = self.shop
        shop.wait_for("keep", secret=CANARY)
        self.send("kept", "kept_apart", "retried", "buried", "late", "timed_out", "crashed")
        genuine = self.call("payload_for", secret=CANARY)
        for payload in [genuine[:-1], f"x{genuine}", *self.call("sealed_nonsense", secret=CANARY)]:
            self.app.send_task("deferred_signals.deliver", (payload,), queue=shop.queue)
        for name in ("keep_apart", "try_again"):
            shop.wait_for("succeeded", receiver=name)
        for name in ("bury", "time_out", "crash"):
            shop.wait_for("dead", receiver=name)
        shop.wait_for("discarded", receiver="come_late")
        shop.wait_for("dead", count=2, receiver=None)
        # Of the nonsense some is dead and some waits for another release.
        shop.wait_for("dead", count=4, receiver="keep")
        shop.wait_for("retry", count=3, receiver="keep")

    def be_asked(self) -> None:
        """By remote control, while one is run, others wait, and some are for later."""
        shop = self.shop
        self.send("guarded", "postponed")
        shop.wait_for("guard")
        ids = self.send("kept", "kept")
        # Of its own: RabbitMQ ends those of kombu's pool, which send no heartbeats.
        with self.app.connection_for_write() as connection:
            # One worker answers; without the limit each question would wait for more.
            inspect = self.app.control.inspect(timeout=20, limit=1, connection=connection)
            shop.wait_until(lambda: ids[1] in str(inspect.reserved()), "a delivery that waits for its turn")
            shop.wait_until(lambda: "postpone" in str(inspect.scheduled()), "a delivery for later")
            asked = {name: getattr(inspect, name)() for name in ("active", "reserved", "scheduled")}
            asked["query_task"] = inspect.query_task(ids)  # type: ignore[arg-type]  # its types know only one id
            for name, answer in asked.items():
                assert "'type': 'deferred_signals.deliver'" in str(answer), f"inspect {name} told nothing"
            asked |= {name: getattr(inspect, name)() for name in ("revoked", "stats", "report", "registered")}
            asked["conf"] = inspect.conf(with_defaults=True)
            self.seen |= {f"inspect {name}": str(answer) for name, answer in asked.items()}
            self.app.control.revoke(ids[0], connection=connection)
            shop.wait_until(lambda: ids[0] in str(inspect.revoked()), "the word that it is revoked")
        shop.open_gate()
        shop.wait_until(lambda: "task-revoked" in self.onlooker.kinds(), "the event that it is revoked")
        shop.wait_for("succeeded", receiver="keep", delivery=ids[1])

    def look_at_results(self) -> None:
        if self.results == "redis":
            client = self.redis()
            kept = [client.get(key).decode() for key in client.scan_iter("celery-task-meta-*")]
        else:
            kept = [str(row) for row in self.call("results")]
        self.seen["results"] = told = "\n".join(kept)
        assert all(state in told for state in ("SUCCESS", "FAILURE", "RETRY", "REVOKED"))
        assert "<signed payload>" in told  # result_extended

    def look_at_redis(self) -> None:
        """What waits there, and how it says that it takes no more."""
        client = self.redis()
        client.delete(self.shop.queue)
        self.send("kept", "retried")
        told = "\n".join(bodies(self.shop))
        if self.encryption == "encrypted":
            self.seen["the broker"] = told
            assert told.count('\\"encrypted\\":') == 2
        else:
            assert finds(told)
        client.config_set("maxmemory", 1)
        self.send("kept")
        client.config_set("maxmemory", 0)
        self.seen["errors of the broker"] = str(self.shop.notes("unpublished"))
        assert "maxmemory" in self.seen["errors of the broker"]


def bodies(shop: Shop) -> list[str]:
    """The bodies of the messages that wait in Redis, decoded."""
    client: Any = redis.Redis.from_url(shop.env["SHOP_BROKER_URL"])
    messages = [json.loads(message) for message in client.lrange(shop.queue, 0, -1)]
    return [base64.b64decode(message["body"]).decode() for message in messages]


def test_no_secret_gets_out(shop: Shop, hire: Any, app: Celery, onlooker: Onlooker, setting: list[str]):
    vault = Vault(shop, app, onlooker, setting)
    vault.refuse_to_encode()
    worker = hire("--concurrency=1", "--loglevel=DEBUG", "-E", "--prefetch-multiplier=10")
    vault.end_in_every_way()
    vault.be_asked()
    worker.stop()
    vault.look_at_results()
    if setting[0] == "redis":
        vault.look_at_redis()
    kinds = {"sent", "received", "started", "succeeded", "failed", "retried", "revoked"}
    assert onlooker.kinds() >= {f"task-{kind}" for kind in kinds}
    ended = [note for state in ("dead", "retry", "discarded") for note in shop.notes(state)]
    seen = vault.seen | {
        "events": json.dumps(onlooker.events, default=str),
        "outcomes": str(ended),
        "the worker's log": worker.logs().decode(errors="replace"),
        "the sender's log": shop.log(),
    }
    assert "TaskPool: Apply" in seen["the worker's log"]
    for secret in (CANARY, SIGNING_KEY, KEY):
        leaks = {where: found for where, text in seen.items() if (found := finds(text, secret))}
        assert not leaks, json.dumps(leaks, indent=1)


@pytest.mark.parametrize("setting", [["redis", "redis", "plain"]])
def test_a_worker_that_lacks_our_app_logs_what_is_not_encrypted(shop: Shop, app: Celery, setting: list[str]):
    """Celery's own dump of a message for a task that it does not know. Nothing of ours runs there."""
    for signal in ("kept", "kept_apart"):
        shop.call("elsewhere", path=f"{VAULT}.scenarios.send", signal=signal, secret=CANARY)
    plain, encrypted = sorted(bodies(shop), key=lambda body: "encrypted" in body)
    program = [sys.executable, "-m", "celery", "-b", shop.env["SHOP_BROKER_URL"], "worker", "--pool=solo"]
    stranger = WorkerProcess([*program, "-Q", shop.queue, "--loglevel=INFO"], home=shop.home)
    try:
        stranger.wait_ready()
        shop.wait_until(lambda: stranger.logs().count(b"Received unregistered task") == 2, "two unknown tasks")
        log = stranger.logs().decode()
    finally:
        stranger.remove()
    told, silent = log.split("Received unregistered task")[1:]
    if "encrypted" in told:
        told, silent = silent, told
    assert finds(plain)
    assert finds(told)
    assert "encrypted" in silent
    assert not finds(encrypted)
    assert not finds(silent)
