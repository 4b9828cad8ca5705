"""The shop's settings, the workshop, and what a test adds: a JSON object in SHOP_SETTINGS."""

import json
import os

from ..settings import *  # noqa: F403
from ..settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.integration.project.workshop"]
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "tests.integration.project.workshop.urls"

globals().update(json.loads(os.environ.get("SHOP_SETTINGS", "{}")))
