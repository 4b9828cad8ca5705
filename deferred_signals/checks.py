"""System checks: what can be known to be wrong before a delivery is lost over it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core import checks
from django.db import connections

from . import backends, conf, registry
from .exceptions import ConfigurationError
from .references import look_up, path_of

_BACKENDS = (
    "It is 'celery', 'immediate', 'memory', or the dotted path of a Backend. The broker is Celery's own setting, "
    "CELERY_BROKER_URL."
)


def check_settings(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """E001: a mistake in DEFERRED_SIGNALS. E002: its backend is none. W001: this process has no Celery app."""
    _, problems = conf.read(getattr(settings, "DEFERRED_SIGNALS", None) or {})
    if problems:
        return [checks.Error(p.message, hint=p.hint, obj=p.key or None, id="deferred_signals.E001") for p in problems]
    try:
        backend = backends.current()
    except ConfigurationError as error:
        return [checks.Error(str(error), hint=_BACKENDS, id="deferred_signals.E002")]
    try:
        backend.check()
    except ConfigurationError as error:
        hint = "Only a process that makes no deliveries can do without."
        return [checks.Warning(str(error), hint=hint, id="deferred_signals.W001")]
    return []


def check_receivers(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """E003: a deferred receiver's dotted path leads elsewhere. E004: its ``using`` names no database."""
    found: list[checks.CheckMessage] = []
    for registration in registry.registrations():
        path = registry.name_of(registration.function)
        target = look_up(path)
        if (
            registration.options.name is None
            and target is not registration.function
            and not _is_method(target, registration)
        ):
            found.append(
                checks.Error(
                    f"The deferred receiver {path!r} is not what stands under that path.",
                    hint="Put @receiver outermost, above other decorators, or give the connection a name=.",
                    obj=path_of(registration.function),
                    id="deferred_signals.E003",
                )
            )
        for stand_in in registration.connections():
            alias = stand_in.options.using
            if alias is not None and alias not in connections:
                found.append(
                    checks.Error(
                        f"The deferred receiver {registration.name!r} waits for {alias!r}, which is not in DATABASES.",
                        hint=f"using= must be one of {', '.join(map(repr, connections))}.",
                        obj=path,
                        id="deferred_signals.E004",
                    )
                )
    return found


def _is_method(target: Any, registration: registry.Registration) -> bool:
    """Whether the path leads to the class method that was connected, which look_up does not bind."""
    return isinstance(target, classmethod) and target.__func__ is getattr(registration.function, "__func__", None)
