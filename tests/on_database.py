"""Run the in-process tests on a private server: ``python -m tests.on_database mariadb [arguments of pytest]``."""

import os
import subprocess
import sys

from tests.servers import MariaDB, PostgreSQL

SERVERS: dict[str, type[MariaDB | PostgreSQL]] = {"postgresql": PostgreSQL, "mariadb": MariaDB}
#: What ``tests.settings`` asks for, by the kind.
WHERE = {
    "postgresql": {"PGHOST": "127.0.0.1", "PGPORT": "{port}", "PGUSER": "postgres"},
    "mariadb": {"MARIADB_PORT": "{port}"},
}

if __name__ == "__main__":
    kind = sys.argv[1] if len(sys.argv) > 1 else ""
    if kind not in SERVERS:
        sys.exit(__doc__)
    if missing := SERVERS[kind].missing():
        sys.exit(f"NOT RUN on {SERVERS[kind].title}: {missing}")
    server = SERVERS[kind]()
    server.wait_ready()
    print(f"on {server.version}")
    where = {"TEST_DATABASE": kind, **{key: value.format(port=server.port) for key, value in WHERE[kind].items()}}
    ignored = ["--ignore=tests/integration", "--ignore=tests/django_suites"]
    command = [sys.executable, "-m", "pytest", *ignored, *sys.argv[2:]]
    try:
        sys.exit(subprocess.run(command, env={**os.environ, **where}, check=False).returncode)
    finally:
        server.remove()
