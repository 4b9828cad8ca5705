"""The shop's parts as fixtures: servers for the run, a database, a broker and a worker for each test.

``stack`` names a test's broker and database. Servers that this machine does not have are skipped, with a line in the
summary, or fail the test where ``DEFERRED_SIGNALS_TEST_REQUIRE_SERVICES=1`` says that all must be there.
"""

import itertools
import os
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from celery import Celery, _state
from pytest_celery import CeleryTestBroker, CeleryTestSetup, CeleryTestWorker

from tests.book_shop import Chromium
from tests.servers import MariaDB, PostgreSQL, RabbitMQ, Redis, free_port

from .local_nodes import DOCKER, LocalRabbitMQ, LocalRedis, LocalWorker, Setup, WorkerProcess
from .shop import Shop, with_outbox

REQUIRED = bool(os.environ.get("DEFERRED_SIGNALS_TEST_REQUIRE_SERVICES"))


class Stack(NamedTuple):
    broker: str
    database: str


#: Two that differ in both parts; a test that wants all four says so.
STACKS = ["redis-sqlite", "rabbitmq-postgresql"]
ALL_STACKS = [*STACKS, "redis-postgresql", "rabbitmq-sqlite"]


def covered(request: pytest.FixtureRequest, title: str, version: str) -> None:
    """Note on the test's report (which reaches xdist's controller) what the summary in ``tests/conftest`` counts."""
    request.node.user_properties.append((f"covered {title}", version))


def need(request: pytest.FixtureRequest, server: type[Redis | RabbitMQ | PostgreSQL | MariaDB | Chromium]) -> None:
    if missing := server.missing():
        request.node.user_properties.append((f"missing {server.title}", missing))
        (pytest.fail if REQUIRED else pytest.skip)(f"{server.title}: {missing}")


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest) -> Stack:
    return Stack(*request.param.split("-"))


# The brokers: pytest-celery's nodes, on our processes.

if not DOCKER:

    @pytest.fixture
    def default_redis_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalRedis]:
        need(request, Redis)
        server = Redis(tmp_path)
        yield LocalRedis.of(server)
        server.remove()

    @pytest.fixture(scope="session")
    def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRabbitMQ]:
        """One for the run, for it takes five seconds to start; each test has a queue of its own."""
        server = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
        yield LocalRabbitMQ.of(server)
        server.remove()

    @pytest.fixture
    def default_rabbitmq_broker(request: pytest.FixtureRequest) -> LocalRabbitMQ:
        need(request, RabbitMQ)
        node: LocalRabbitMQ = request.getfixturevalue("rabbitmq")
        if node.status == "exited":  # a test has killed it
            node.restart()
        return node


@pytest.fixture
def celery_broker(request: pytest.FixtureRequest, stack: Stack) -> CeleryTestBroker:
    # Not pytest-celery's parameters: they are a set, in another order in each of xdist's processes.
    broker: CeleryTestBroker = request.getfixturevalue(f"celery_{stack.broker}_broker")
    covered(request, (Redis if stack.broker == "redis" else RabbitMQ).title, broker.container.version())
    return broker


@pytest.fixture
def celery_backend_cluster() -> None:
    """No results: nobody waits for a deferred receiver."""


# The databases: one of each kind is given its tables, the tests get copies.


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("sqlite")
    create_tables(home, f"sqlite://{home}/template.sqlite3")
    return home / "template.sqlite3"


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    server = PostgreSQL().wait_ready()
    server.execute('CREATE DATABASE "template"')
    create_tables(tmp_path_factory.mktemp("postgresql"), server.url("template"))
    yield server
    server.remove()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    server = MariaDB().wait_ready()
    yield server
    server.remove()


def create_tables(home: Path, url: str) -> None:
    env = {"SHOP_DATABASE_URL": url, "SHOP_BROKER_URL": "memory://", "SHOP_QUEUE": "none", **with_outbox()}
    with closing(Shop(home, **env)) as shop:
        shop.call("create_tables")


@pytest.fixture
def database_url(request: pytest.FixtureRequest, stack: Stack, tmp_path: Path) -> str:
    if stack.database == "sqlite":
        covered(request, "SQLite", f"SQLite {sqlite3.sqlite_version}")
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "shop.sqlite3")
        return f"sqlite://{tmp_path}/shop.sqlite3"
    name = f"shop_{uuid.uuid4().hex}"
    if stack.database == "mariadb":
        need(request, MariaDB)
        mariadb: MariaDB = request.getfixturevalue("mariadb")
        covered(request, MariaDB.title, mariadb.version)
        mariadb.execute(f"CREATE DATABASE {name}")
        create_tables(tmp_path, mariadb.url(name))  # it has no templates
        return mariadb.url(name)
    need(request, PostgreSQL)
    server: PostgreSQL = request.getfixturevalue("postgresql")
    covered(request, PostgreSQL.title, server.version)
    server.execute(f'CREATE DATABASE "{name}" TEMPLATE "template"')
    return server.url(name)


# The shop: a sender and, through pytest-celery, a worker.


@pytest.fixture
def visibility_timeout() -> int:
    """Seconds until Redis gives what a worker holds to another; an hour is kombu's own."""
    return 3600


@pytest.fixture
def shop_env() -> dict[str, str]:
    """What a test adds to the environment of the shop's processes."""
    return {}


@pytest.fixture
def shop(
    celery_broker: CeleryTestBroker,
    database_url: str,
    visibility_timeout: int,
    shop_env: dict[str, str],
    tmp_path: Path,
) -> Iterator[Shop]:
    env = {
        "SHOP_BROKER_URL": celery_broker.config()["host_url"],
        "SHOP_DATABASE_URL": database_url,
        "SHOP_QUEUE": f"shop-{uuid.uuid4().hex[:8]}",
        "SHOP_VISIBILITY_TIMEOUT": str(visibility_timeout),
        **shop_env,
    }
    with closing(Shop(tmp_path, **env)) as shop:
        yield shop


Hire = Callable[..., WorkerProcess]


@pytest.fixture
def hire(shop: Shop) -> Iterator[Hire]:
    """Start workers of the shop, with these options of ``celery worker``; without pytest-celery's nodes around them."""
    numbers = itertools.count(1)
    with ExitStack() as ending:

        def hire(*options: str, **env: str) -> WorkerProcess:
            name = f"worker{next(numbers)}"
            worker = WorkerProcess.of_project(shop.home, shop.env | env, shop.project, name, *options)
            ending.callback(worker.remove)
            return worker.wait_ready()

        yield hire


@pytest.fixture
def shop_without_broker(stack: Stack, database_url: str, tmp_path: Path) -> Iterator[Shop]:
    scheme = {"redis": "redis", "rabbitmq": "pyamqp"}[stack.broker]
    broker_url = f"{scheme}://127.0.0.1:{free_port()}/"
    with closing(Shop(tmp_path, SHOP_BROKER_URL=broker_url, SHOP_DATABASE_URL=database_url, SHOP_QUEUE="none")) as shop:
        yield shop


@pytest.fixture
def default_worker_container(shop: Shop) -> Iterator[LocalWorker]:
    worker = LocalWorker.start(shop.home, shop.env)
    yield worker
    worker._container.remove()


@pytest.fixture
def celery_worker(celery_setup_worker: CeleryTestWorker) -> CeleryTestWorker:
    return celery_setup_worker


@pytest.fixture
def celery_setup_cls() -> type[Setup]:
    return Setup


@pytest.fixture
def celery_setup_app(celery_setup_config: dict[str, Any], celery_setup_name: str) -> Iterator[Celery]:
    current = _state._tls.current_app  # type: ignore[attr-defined]
    with Setup.create_setup_app(celery_setup_config, celery_setup_name) as app:
        yield app
    # A node's restart makes the node's app the current one, but other tests of this process have theirs.
    _state._set_current_app(current)  # type: ignore[attr-defined]


@pytest.fixture
def worker(celery_setup: CeleryTestSetup) -> CeleryTestWorker:
    """A running worker of the shop."""
    node = celery_setup.worker
    assert node
    return node


# The families: a sender and a worker that compare what arrives of Django's signals.


class Families(NamedTuple):
    shop: Shop
    broker_version: str
    database_version: str


@pytest.fixture(scope="module")
def families_on(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Stack], Families]]:
    """Sender and worker of ``tests.integration.families``: one pair on each stack for a module, for they take seconds.

    The brokers are local processes here also where pytest-celery's are containers: those live for one test only.
    """
    project = "tests.integration.families"
    made: dict[Stack, Families] = {}
    with ExitStack() as ending:

        def start(stack: Stack) -> Families:
            home = tmp_path_factory.mktemp("families")
            broker: LocalRedis | LocalRabbitMQ
            if stack.broker == "redis":
                broker = LocalRedis.of(Redis(home))
            elif DOCKER:
                broker = LocalRabbitMQ.of(RabbitMQ(home))
            else:
                broker = request.getfixturevalue("rabbitmq")
                if broker.status == "exited":  # a test has killed it
                    broker.restart()
            if DOCKER or stack.broker == "redis":
                ending.callback(broker._container.remove)
            if stack.database == "sqlite":
                url, version = f"sqlite://{home}/families.sqlite3", f"SQLite {sqlite3.sqlite_version}"
            else:
                server: PostgreSQL = request.getfixturevalue("postgresql")
                name = f"families_{uuid.uuid4().hex}"
                server.execute(f'CREATE DATABASE "{name}"')
                url, version = server.url(name), server.version
            env = {
                "SHOP_BROKER_URL": broker.celeryconfig["host_url"],
                "SHOP_DATABASE_URL": url,
                "SHOP_QUEUE": f"families-{uuid.uuid4().hex[:8]}",
            }
            shop = ending.enter_context(closing(Shop(home, project, **env)))
            shop.call("setup.create_tables")
            ending.callback(LocalWorker.start(home, shop.env, project)._container.remove)
            return Families(shop, broker.version(), version)

        yield lambda stack: made.get(stack) or made.setdefault(stack, start(stack))


@pytest.fixture
def families(request: pytest.FixtureRequest, stack: Stack, families_on: Callable[[Stack], Families]) -> Shop:
    broker, database = (Redis if stack.broker == "redis" else RabbitMQ).title, "SQLite"
    need(request, Redis if stack.broker == "redis" else RabbitMQ)
    if stack.database == "postgresql":
        need(request, PostgreSQL)
        database = PostgreSQL.title
    running = families_on(stack)
    covered(request, broker, running.broker_version)
    covered(request, database, running.database_version)
    return running.shop
