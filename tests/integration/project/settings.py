import json
import os
from typing import Any
from urllib.parse import urlsplit

from tests.servers import mariadb_driver

SECRET_KEY = "integration"
INSTALLED_APPS = ["deferred_signals", "tests.integration.project.shop"]
if "SHOP_OUTBOX" in os.environ:  # see with_outbox in tests/integration/shop.py
    INSTALLED_APPS += ["deferred_signals.outbox", "tests.integration.project.bookkeeping"]
    DEFERRED_SIGNALS = json.loads(os.environ["SHOP_OUTBOX"])
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

_database = urlsplit(os.environ["SHOP_DATABASE_URL"])
_default: dict[str, Any]
if _database.scheme == "postgresql":
    _default = {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": _database.hostname,
        "PORT": _database.port,
        "USER": _database.username,
        "NAME": _database.path.lstrip("/"),
    }
elif _database.scheme == "mysql":
    mariadb_driver()
    _default = {
        "ENGINE": "django.db.backends.mysql",
        "HOST": _database.hostname,
        "PORT": _database.port,
        "USER": _database.username,
        "NAME": _database.path.lstrip("/"),
    }
else:
    _default = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": _database.path,
        "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"},
    }
DATABASES = {"default": _default}

CELERY_BROKER_URL = os.environ["SHOP_BROKER_URL"]
CELERY_TASK_DEFAULT_QUEUE = os.environ["SHOP_QUEUE"]
CELERY_TASK_IGNORE_RESULT = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
if CELERY_BROKER_URL.startswith("redis"):
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "visibility_timeout": int(os.environ["SHOP_VISIBILITY_TIMEOUT"]),
        # Look every second for what a killed worker held; by default kombu does so every 100 s.
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        # A worker that is killed while it looks keeps the others from looking for so long; five minutes by default.
        "unacked_mutex_expire": 3,
    }

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
}
