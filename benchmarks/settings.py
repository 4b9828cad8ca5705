"""Settings of the benchmarks. ``BENCH_DATABASE=postgresql`` takes the database that libpq's ``PG*`` variables name."""

import os
from importlib.util import find_spec
from typing import Any

SECRET_KEY = "only for the benchmarks"
USE_TZ = True
INSTALLED_APPS = ["deferred_signals", "deferred_signals.outbox", "benchmarks"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"


def _private(name: str) -> dict[str, Any]:
    port = os.environ.get("BENCH_POSTGRESQL_PORT", "")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "HOST": "127.0.0.1",
        "PORT": port,
        "USER": "postgres",
        # As is advised for workers, with Celery's CELERY_DB_REUSE_MAX.
        "CONN_MAX_AGE": None,
    }


def _database() -> dict[str, Any]:
    if os.environ.get("BENCH_WORKER"):
        return _private("postgres")
    if os.environ.get("BENCH_DATABASE") == "postgresql":
        return {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ.get("PGDATABASE", "postgres")}
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}


DATABASES = {
    "default": _database(),
    # The outbox's, and one that is full of finished rows: a private server, which tells its port when it runs.
    "postgresql": _private("postgres"),
    "full": _private("full"),
}

if os.environ.get("BENCH_WORKER"):
    # The relay is measured by itself.
    DEFERRED_SIGNALS = {"RELAY": False}

# The peers, those that are installed, as their documentation has it.
EVENT_SIGNALS_CELERY_APP = "celery.current_app"  # which is another one for each broker
if find_spec("django_q_signals"):
    INSTALLED_APPS += ["django_q"]
    Q_CLUSTER = {
        "name": "benchmarks",
        "workers": 2,
        "timeout": 60,
        "retry": 120,
        "redis": os.environ.get("BENCH_BROKER", ""),
        # In its favour: no line of the log for each task, no row for each that succeeds, no schedules to look for.
        "log_level": "WARNING",
        "recycle": 1_000_000,
        "save_limit": -1,
        "scheduler": False,
    }
if find_spec("django_domain_events"):
    INSTALLED_APPS += ["django.contrib.contenttypes", "django.contrib.auth", "django_domain_events"]
    DJANGO_DOMAIN_EVENTS = {"TASK_BACKEND": "django_domain_events.delivery.celery_backend.CeleryBackend"}
