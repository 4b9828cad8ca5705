"""The app: ``INSTALLED_APPS = [..., "deferred_signals"]``."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

from celery.signals import worker_init
from django.apps import AppConfig
from django.core import checks

from .checks import (
    check_celery,
    check_deployment,
    check_durable,
    check_encryption,
    check_receivers,
    check_senders,
    check_server,
    check_settings,
    check_signals,
)

logger = logging.getLogger("deferred_signals")


class DeferredSignalsConfig(AppConfig):
    """Registers the Celery task, so that a worker has it whatever it autodiscovers, and the system checks."""

    name = "deferred_signals"
    verbose_name = "Deferred signals"

    def ready(self) -> None:
        """Called by Django when all apps are loaded."""
        import_module("deferred_signals.tasks")
        checks.register(check_settings, "deferred_signals")
        checks.register(check_encryption, "deferred_signals")
        checks.register(check_receivers, "deferred_signals")
        checks.register(check_senders, "deferred_signals")
        checks.register(check_signals, "deferred_signals")
        checks.register(check_durable, "deferred_signals")
        checks.register(check_celery, "deferred_signals")
        checks.register(check_server, "deferred_signals")
        checks.register(check_deployment, "deferred_signals", deploy=True)
        worker_init.connect(_let_the_worker_tell, weak=False, dispatch_uid="deferred_signals")
        for message in check_server(None):
            logger.warning("%s %s", message.msg, message.hint)


def _let_the_worker_tell(**kwargs: Any) -> None:
    """Add our inspect command; only in workers, for its module imports half of Celery's worker."""
    import_module("deferred_signals.worker_control")
