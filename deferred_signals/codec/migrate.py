"""The codecs of what comes with the signals of ``migrate``: app configs, app registries, migrations, the output."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from django.apps import AppConfig, apps
from django.apps.registry import Apps

from ..exceptions import EncodeError, UnknownName
from .base import Decoder, Encoder, add, type_name


def _app_config(encoder: Encoder, value: AppConfig) -> Any:
    installed = apps.app_configs.get(value.label)
    # By its type, not by identity: tests that modify INSTALLED_APPS make them anew.
    if type(installed) is not type(value):
        raise EncodeError("it is not of an installed app. Send its label.", type_name(value))
    return {"$appconfig": value.label}


def _decode_app_config(decoder: Decoder, data: Any) -> AppConfig:
    try:
        return apps.get_app_config(data)
    except LookupError:
        raise UnknownName("An app that the payload names is not installed in this process.") from None


@dataclass(frozen=True)
class MigrationSnapshot:
    """Stands on the worker for a ``Migration``: whose it is, and its name."""

    app_label: str
    name: str


def _migration(encoder: Encoder, value: Any) -> Any:
    return {"$migration": [encoder.encode(value.app_label), encoder.encode(value.name)]}


def _decode_migration(decoder: Decoder, data: Any) -> MigrationSnapshot:
    app_label, name = data
    if type(app_label) is not str or type(name) is not str:
        raise ValueError("not names")
    return MigrationSnapshot(app_label, name)


def _decode_output(decoder: Decoder, data: Any) -> Any:
    # Imported when the value comes: only commands need it.
    from django.core.management.base import OutputWrapper  # noqa: PLC0415

    return OutputWrapper(sys.stdout)


add(AppConfig, _app_config, tag="$appconfig", decode=_decode_app_config, subclasses=True)
# Whichever it is, a migration's historical one too: the worker has one.
add(Apps, lambda encoder, value: {"$apps": None}, tag="$apps", decode=lambda decoder, data: apps, subclasses=True)
for _kind in ("django.db.migrations.migration.Migration", MigrationSnapshot):
    add(_kind, _migration, tag="$migration", decode=_decode_migration)
add(
    "django.core.management.base.OutputWrapper",
    lambda encoder, value: {"$output": None},
    tag="$output",
    decode=_decode_output,
)
