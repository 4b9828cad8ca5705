"""The shop's settings, with receivers that are dangerous to workers."""

import os

from ..settings import *  # noqa: F403
from ..settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.integration.project.perils"]
CELERY_WORKER_PREFETCH_MULTIPLIER = int(os.environ.get("SHOP_PREFETCH", "1"))
DEFERRED_SIGNALS = {"CRASH_LIMIT": int(os.environ["SHOP_CRASH_LIMIT"])}
