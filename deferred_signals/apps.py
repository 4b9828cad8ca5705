"""The app: ``INSTALLED_APPS = [..., "deferred_signals"]``."""

from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig
from django.core import checks

from .checks import check_receivers, check_settings


class DeferredSignalsConfig(AppConfig):
    """Registers the Celery task, so that a worker has it whatever it autodiscovers, and the system checks."""

    name = "deferred_signals"
    verbose_name = "Deferred signals"

    def ready(self) -> None:
        """Called by Django when all apps are loaded."""
        import_module("deferred_signals.tasks")
        checks.register(check_settings, "deferred_signals")
        checks.register(check_receivers, "deferred_signals")
