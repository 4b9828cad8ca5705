"""The tests' settings with the libraries from which ``docs/move-from-peers.md`` leads to us, as each documents it."""

from .settings import *  # noqa: F403
from .settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "django_q", "django_domain_events"]
EVENT_SIGNALS_CELERY_APP = "celery.current_app"
# In the sender's process, at once: what its cluster would do.
Q_CLUSTER = {"name": "docs", "sync": True, "orm": "default", "timeout": 60, "retry": 120}
