"""System checks of results that are kept: they fill the backend up, or send the next delivery."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from celery import Celery
from django.apps import apps
from django.core import checks
from django.db.models.signals import post_save, pre_save

from .. import registry
from ..options import Options
from ..references import is_model
from .messages import warning

#: Result backends that delete nothing by themselves.
_SWEPT_BY_BEAT = ("db+", "database", "file:", "mongodb:")


def stores_in_django(app: Celery) -> bool:
    """Whether results become rows of django-celery-results, which send signals as all rows do."""
    backend = str(app.conf.result_backend or "")
    return backend == "django-db" or backend.startswith("django_celery_results.")


def endless(registration: registry.Registration, app: Celery) -> Iterator[checks.CheckMessage]:
    """E103: a receiver that is sent for the row in which its own result is kept."""
    if not stores_in_django(app):
        return
    for stand_in in registration.connections():
        options: Options = stand_in.options
        if options.ignore_result or options.when is not None or stand_in.signal not in (pre_save, post_save):
            continue
        sender: Any = stand_in.sender
        if sender is None or (is_model(sender) and sender._meta.label == "django_celery_results.TaskResult"):
            yield checks.Error(
                f"The deferred receiver {registration.name!r} listens to the rows of all models and keeps its results, "
                "which are such rows: each result would send the next delivery, for ever.",
                hint="Give the connection a sender=, or leave out ignore_result=False.",
                obj=registration.name,
                id="deferred_signals.E103",
            )


def kept_results(app: Celery, connected: list[tuple[str, Options]]) -> Iterator[checks.CheckMessage]:
    """W203: what is kept and never deleted."""
    kept = sorted({name for name, options in connected if not options.ignore_result})
    backend = str(app.conf.result_backend or "")
    if not kept or not backend or backend.startswith("disabled"):
        return
    whose = f"The results of {', '.join(kept)} are kept (ignore_result=False)"
    if not app.conf.result_expires:
        yield warning(
            "deferred_signals.W203",
            f"{whose}, and never expire: the result backend fills up.",
            "CELERY_RESULT_EXPIRES = 86400",
        )
    elif (stores_in_django(app) or backend.startswith(_SWEPT_BY_BEAT)) and not _schedules(app):
        yield warning(
            "deferred_signals.W203",
            f"{whose} in a backend from which only celery beat deletes what has expired (celery.backend_cleanup), "
            "and this project schedules nothing.",
            "Run celery beat beside the workers, or leave out ignore_result=False. If beat runs, silence this check.",
        )


def _schedules(app: Celery) -> bool:
    """Whether beat is likely to run: nobody can know here, but who schedules anything needs it."""
    return bool(app.conf.beat_schedule) or apps.is_installed("django_celery_beat")
