"""System check of durable deliveries where nothing can keep them. The outbox has checks of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core import checks

from .. import conf, keeping, registry


def check_durable(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """E301: deliveries are to be durable, and the outbox is not installed."""
    if keeping.current() is not None:
        return []
    by_setting = conf.read(getattr(settings, "DEFERRED_SIGNALS", None) or {})[0].get("durable", False)
    by_option = sorted({one.name for one in registry.registrations() for c in one.connections() if c.options.durable})
    if not (by_setting or by_option):
        return []
    wanted = "DEFERRED_SIGNALS['DURABLE'] makes" if by_setting else f"The options of {', '.join(by_option)} make"
    return [
        checks.Error(
            f"{wanted} deliveries durable, and the outbox is not installed: every send of one would fail.",
            hint="INSTALLED_APPS = [..., 'deferred_signals.outbox'], and manage.py migrate.",
            id="deferred_signals.E301",
        )
    ]
