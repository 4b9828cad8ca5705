"""Run the in-process tests on a private PostgreSQL: ``python -m tests.on_postgresql [arguments of pytest]``."""

import os
import subprocess
import sys

from tests.servers import PostgreSQL

if __name__ == "__main__":
    if missing := PostgreSQL.missing():
        sys.exit(f"NOT RUN on PostgreSQL: {missing}")
    server = PostgreSQL()
    server.wait_ready()
    print(f"on {server.version}")
    where = {"TEST_DATABASE": "postgresql", "PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "postgres"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--ignore=tests/integration",
        "--ignore=tests/django_suites",
        *sys.argv[1:],
    ]
    try:
        sys.exit(subprocess.run(command, env={**os.environ, **where}, check=False).returncode)
    finally:
        server.remove()
