"""The shop's settings, the clinic, and what a test adds: a JSON object in SHOP_SETTINGS."""

import json
import os

from ..settings import *  # noqa: F403
from ..settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.integration.project.clinic"]
SECRET_KEY = "a key of the integration tests that nobody needs to guess, for it is here"

globals().update(json.loads(os.environ.get("SHOP_SETTINGS", "{}")))
