"""Run the in-process tests on a private MariaDB: ``python -m tests.on_mariadb [arguments of pytest]``."""

import os
import subprocess
import sys

from tests.servers import MariaDB

if __name__ == "__main__":
    if missing := MariaDB.missing():
        sys.exit(f"NOT RUN on MariaDB: {missing}")
    server = MariaDB()
    server.wait_ready()
    print(f"on {server.version}")
    where = {"TEST_DATABASE": "mariadb", "MARIADB_PORT": str(server.port)}
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
