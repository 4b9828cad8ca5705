"""Settings of the benchmarks. ``BENCH_DATABASE=postgresql`` takes the database that libpq's ``PG*`` variables name."""

import os
from typing import Any

SECRET_KEY = "only for the benchmarks"
USE_TZ = True
INSTALLED_APPS = ["deferred_signals", "benchmarks"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"


def _database() -> dict[str, Any]:
    if os.environ.get("BENCH_DATABASE") == "postgresql":
        return {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ.get("PGDATABASE", "postgres")}
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}


DATABASES = {"default": _database()}
