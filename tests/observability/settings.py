"""Those of the tests, with Celery and without tables."""

from tests import settings

SECRET_KEY = settings.SECRET_KEY
USE_TZ = True
INSTALLED_APPS = ["deferred_signals"]
DEFERRED_SIGNALS = {"BACKEND": "celery"}
