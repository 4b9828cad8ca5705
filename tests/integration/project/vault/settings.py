"""The shop's settings, with everything switched on that logs, shows or keeps what a task is given."""

import os

from ..settings import *  # noqa: F403
from ..settings import INSTALLED_APPS, LOGGING

INSTALLED_APPS = [*INSTALLED_APPS, "django_celery_results", "tests.integration.project.vault"]
CELERY_RESULT_BACKEND = os.environ["VAULT_RESULTS"]
CELERY_RESULT_EXTENDED = True
CELERY_TASK_TRACK_STARTED = True
CELERY_TASK_STORE_ERRORS_EVEN_IF_IGNORED = True
CELERY_TASK_SEND_SENT_EVENT = True
CELERY_WORKER_SEND_TASK_EVENTS = True
LOGGING = {**LOGGING, "root": {"handlers": ["stderr"], "level": "DEBUG"}}
DEFERRED_SIGNALS = {
    "CRASH_LIMIT": 1,
    "SIGNING_KEYS": [os.environ["VAULT_SIGNING_KEY"]],
    "ENCRYPTION_KEYS": [os.environ["VAULT_KEY"]],
    "ENCRYPT": os.environ["VAULT_ENCRYPT"] == "encrypted",
}
