import os
from pathlib import Path

HOME = Path(os.environ["MAGAZINE_HOME"])

SECRET_KEY = "third parties, in the tests only, and long enough for their checks"
ALLOWED_HOSTS = ["testserver"]
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
ROOT_URLCONF = "tests.third_party.project.urls"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "allauth",
    "allauth.account",
    "djmoney",
    "easy_thumbnails",
    "knox",
    "oauth2_provider",
    "rest_framework",
    "simple_history",
    "deferred_signals",
    "tests.third_party.project.apps.MagazineConfig",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "simple_history.middleware.HistoryRequestMiddleware",
]
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
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
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": HOME / "magazine.sqlite3",
        "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"},
    }
}
EMAIL_BACKEND = "tests.third_party.project.journal.EmailBackend"
MEDIA_ROOT = HOME / "media"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    "easy_thumbnails": {"BACKEND": "easy_thumbnails.storage.ThumbnailFileSystemStorage"},
}

ACCOUNT_EMAIL_VERIFICATION = "mandatory"
ACCOUNT_RATE_LIMITS = False
ACCOUNT_SIGNUP_FIELDS = ["username*", "email*", "password1*", "password2*"]
LOGIN_REDIRECT_URL = "/articles/"
OAUTH2_PROVIDER = {"PKCE_REQUIRED": False}
THUMBNAIL_ALIASES = {"": {"front page": {"size": (40, 40)}, "list": {"size": (10, 10)}}}
# Ours go to MEDIA_ROOT, beside the covers.
THUMBNAIL_MEDIA_ROOT = str(MEDIA_ROOT)

# Without a broker the same visits are delivered in the visitor's own process.
CELERY_BROKER_URL = os.environ.get("MAGAZINE_BROKER_URL", "")
DEFERRED_SIGNALS = {"BACKEND": "celery" if CELERY_BROKER_URL else "memory"}
CELERY_TASK_IGNORE_RESULT = True
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
}
