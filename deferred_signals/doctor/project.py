"""What this process can tell by itself: versions, settings, system checks."""

from __future__ import annotations

import platform
from importlib.metadata import version

import django
from celery import Celery
from django.core import checks

from .. import __version__, backends, registry
from ..exceptions import ConfigurationError
from .findings import Mark, Section


def versions() -> Section:
    """Of what takes part."""
    section = Section("Versions")
    section.add(
        "ok",
        f"deferred_signals {__version__}, Python {platform.python_version()}, Django {django.get_version()}, "
        f"Celery {version('celery')}, kombu {version('kombu')}",
    )
    return section


def this_process(app: Celery | None) -> Section:
    """Where its deliveries go, and who is to get them."""
    section = Section("This process")
    try:
        backend = backends.current()
        backend.check()
    except ConfigurationError as error:
        section.add("problem", str(error))
    else:
        if app is None:
            section.add(
                "warning",
                f"The backend is {type(backend).__qualname__}: deliveries do not go through Celery.",
                "Leave BACKEND out of DEFERRED_SIGNALS wherever receivers are to run on workers.",
            )
        else:
            section.add("ok", f"Deliveries are published by the Celery app {app.main!r}.")
    connected = len(list(registry.registrations()))
    if connected:
        section.add("ok", f"{connected} deferred receiver{'s are' if connected > 1 else ' is'} connected.")
    else:
        section.add(
            "warning",
            "No deferred receiver is connected.",
            "Import the module of your receivers in AppConfig.ready() of its app.",
        )
    return section


def _mark(message: checks.CheckMessage) -> Mark:
    if message.is_serious():
        return "problem"
    return "warning" if message.is_serious(checks.WARNING) else "note"


def system_checks() -> Section:
    """Ours, those for production included."""
    section = Section("System checks")
    found = checks.run_checks(tags=["deferred_signals"], include_deployment_checks=True)
    for message in found:
        if not message.is_silenced():
            section.add(_mark(message), str(message.msg), str(message.hint or ""), id=str(message.id))
    if not section.findings:
        section.add("ok", "Nothing to complain about, nor for production (manage.py check --deploy).")
    return section
