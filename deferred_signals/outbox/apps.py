"""The app: ``INSTALLED_APPS = [..., "deferred_signals", "deferred_signals.outbox"]``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from celery.signals import worker_init
from django.apps import AppConfig
from django.core import checks

from deferred_signals import keeping


class OutboxConfig(AppConfig):
    """Brings the tables, and fills the slot that the core has for an outbox."""

    name = "deferred_signals.outbox"
    label = "deferred_signals_outbox"
    verbose_name = "Deferred signals: outbox"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Called by Django when all apps are loaded."""
        # Here, for they import models.
        found = import_module("deferred_signals.outbox.checks")
        checks.register(found.check_outbox, "deferred_signals")
        # Without our tag, by which Django 6 would run it where no database was named.
        checks.register(found.check_tables, checks.Tags.database)
        checks.register(found.check_relay, "deferred_signals", deploy=True)
        keeping.use(import_module("deferred_signals.outbox.backend").DatabaseOutbox())
        worker_init.connect(_have_the_worker_ring, weak=False, dispatch_uid="deferred_signals_outbox")


def _have_the_worker_ring(sender: Any, **kwargs: Any) -> None:
    """Add the bootstep of the relay; only in workers, for its module imports half of Celery's worker."""
    import_module("deferred_signals.outbox.bootstep").install(sender)
