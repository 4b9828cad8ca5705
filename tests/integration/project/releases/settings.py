import os

from ..settings import *  # noqa: F403
from . import release
from .routes import to_the_queue_of_the_test

INSTALLED_APPS = [
    "deferred_signals",
    "tests.integration.project.releases",
    *(
        ["tests.integration.project.releases.archive"]
        if release.NEW
        else ["tests.integration.project.releases.loyalty"]
    ),
    *(["django.contrib.auth", "django.contrib.contenttypes", "tests.shop"] if release.SPECIMENS else []),
]
ALLOWED_HOSTS = ["testserver"]
CELERY_TASK_ROUTES = [to_the_queue_of_the_test]
DEFERRED_SIGNALS = {
    "SIGNING_KEYS": os.environ.get("SHOP_SIGNING_KEYS", "the key").split(","),
    "RELEASE_WINDOW": float(os.environ.get("SHOP_RELEASE_WINDOW", "3600")),
    "SELF_LIMIT": 2,  # one of the specimens is a second run
}
