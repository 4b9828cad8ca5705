"""What has arrived, in a file for each delivery: written by the worker, read by the sender's process."""

import os
import pickle
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

from django.apps import AppConfig, apps
from django.core.management.base import OutputWrapper
from django.db.models import Model, QuerySet
from django.dispatch import Signal

from deferred_signals import Delivery, current_delivery

from . import jobs
from .expectations import Local, queryset
from .installed_signals import name_of


def write(arrived: dict[str, Any]) -> None:
    delivery = current_delivery()
    assert delivery
    beside = _place(delivery).with_suffix(".new")
    with beside.open("wb") as file:
        _Pickler(file).dump(arrived)
    beside.rename(_place(delivery))


def write_end(delivery: Delivery, why: str) -> None:
    """Why nothing has arrived."""
    beside = _place(delivery).with_suffix(".new")
    beside.write_text(why)
    beside.rename(_place(delivery).with_suffix(".ended"))


def has_ended(delivery: Delivery) -> bool:
    return _place(delivery).exists() or _place(delivery).with_suffix(".ended").exists()


def read(delivery: Delivery) -> dict[str, Any] | str:
    """What has arrived, or why nothing has."""
    if not has_ended(delivery):
        return f"{delivery} has not arrived"
    if not _place(delivery).exists():
        return _place(delivery).with_suffix(".ended").read_text()
    with _place(delivery).open("rb") as file:
        found: dict[str, Any] = _Unpickler(file).load()
    return found


def _place(delivery: Delivery) -> Path:
    return Path(os.environ["SHOP_JOURNAL"]).with_name(f"{delivery.id}.pickle")


class _Pickler(pickle.Pickler):
    """Writes ``Local`` for what cannot be pickled, if it is this process's own indeed."""

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, Signal):
            return Local("Signal", name_of(value))
        if isinstance(value, type) and issubclass(value, Model) and apps.get_model(value._meta.label) is value:
            return Local("Model", value._meta.label)  # no module holds what Django makes for a ManyToManyField
        if isinstance(value, FunctionType) and value in jobs.FUNCTIONS.values():
            return Local("Function", value.__name__)  # where its path leads stands the task that was made of it
        if isinstance(value, AppConfig) and apps.get_app_config(value.label) is value:
            return Local("AppConfig", value.label)
        if value is apps:
            return Local("Apps")
        if type(value) is OutputWrapper and value._out is sys.stdout:
            return Local("OutputWrapper")
        if isinstance(value, QuerySet):
            # Which rows it looks for: they may be gone.
            lookups: list[Any] = list(value.query.where.children)
            return queryset(value, [pk for lookup in lookups for pk in lookup.rhs])
        return None


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, pid: Any) -> Any:
        if pid.kind == "Model":
            return apps.get_model(pid.name)
        return jobs.FUNCTIONS[pid.name] if pid.kind == "Function" else pid
