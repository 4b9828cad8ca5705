import json
import os

from tests.servers import mariadb_driver

SECRET_KEY = "chaos"
INSTALLED_APPS = ["deferred_signals", "tests.chaos.project"]
if os.environ.get("CHAOS_OUTBOX"):
    INSTALLED_APPS += ["deferred_signals.outbox"]
    DEFERRED_SIGNALS = json.loads(os.environ["CHAOS_OUTBOX"])
TIME_ZONE = "UTC"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATABASES = {"default": json.loads(os.environ["CHAOS_DATABASE"])}
if DATABASES["default"]["ENGINE"].endswith("mysql"):
    mariadb_driver()

CELERY_BROKER_URL = os.environ["CHAOS_BROKER_URL"]
CELERY_BROKER_TRANSPORT_OPTIONS = json.loads(os.environ["CHAOS_TRANSPORT_OPTIONS"])
CELERY_TASK_DEFAULT_QUEUE = "chaos"
CELERY_TASK_DEFAULT_QUEUE_TYPE = os.environ["CHAOS_QUEUE_TYPE"]
CELERY_TASK_IGNORE_RESULT = True
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
# Otherwise Celery opens a database connection for each task.
CELERY_DB_REUSE_MAX = 1_000_000

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
}
