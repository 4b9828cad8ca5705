"""The shop's settings, its neighbours, and what a test adds: a JSON object in SHOP_SETTINGS."""

import json
import os
from importlib.util import find_spec

from ..settings import *  # noqa: F403
from ..settings import INSTALLED_APPS

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    *INSTALLED_APPS,
    "tests.integration.project.neighbours",
    "debug_toolbar",
    "django_celery_results",
    # Releases of Django are ahead of those that it allows.
    *(["django_celery_beat"] if find_spec("django_celery_beat") else []),
]
DEBUG = True
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "tests.integration.project.neighbours.urls"
STATIC_URL = "static/"
MIDDLEWARE = ["debug_toolbar.middleware.DebugToolbarMiddleware"]
DEBUG_TOOLBAR_CONFIG = {
    "SHOW_TOOLBAR_CALLBACK": "tests.integration.project.neighbours.views.always",
    "IS_RUNNING_TESTS": False,
    "RENDER_PANELS": True,  # in the page, not when somebody opens them
}
DEBUG_TOOLBAR_PANELS = ["debug_toolbar.panels.signals.SignalsPanel"]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]

globals().update(json.loads(os.environ.get("SHOP_SETTINGS", "{}")))
