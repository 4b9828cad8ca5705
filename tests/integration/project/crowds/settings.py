"""The shop's settings, with receivers whose deliveries share messages."""

import os

from .. import settings as shop
from ..settings import *  # noqa: F403
from ..settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.integration.project.crowds"]
DEFERRED_SIGNALS = {
    **getattr(shop, "DEFERRED_SIGNALS", {}),
    "CRASH_LIMIT": 3,
    "PARALLELISM": int(os.environ.get("SHOP_PARALLELISM", "1")),
}
