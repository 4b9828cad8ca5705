"""Settings of the tests that run in pytest's own process. ``TEST_DATABASE=postgresql`` chooses the other database."""

import os
from typing import Any

SECRET_KEY = "only for the tests"
USE_TZ = True
TIME_ZONE = "Europe/Vienna"
LANGUAGE_CODE = "en"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "deferred_signals",
    "tests.shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
ROOT_URLCONF = "tests.shop.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def _database(name: str) -> dict[str, Any]:
    if os.environ.get("TEST_DATABASE") == "postgresql":
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": name,
            "HOST": os.environ.get("PGHOST", "127.0.0.1"),
            "PORT": os.environ.get("PGPORT", "5432"),
            "USER": os.environ.get("PGUSER", "postgres"),
            "PASSWORD": os.environ.get("PGPASSWORD", ""),
        }
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}


DATABASES = {"default": _database("deferred_signals"), "other": _database("deferred_signals_other")}

DEFERRED_SIGNALS = {"BACKEND": "memory"}
