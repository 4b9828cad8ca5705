"""System checks of our own settings, and of the connections of deferred receivers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from django.conf import settings
from django.core import checks
from django.db import connections, models

from .. import backends, conf, django_signals, encryption, registry
from ..codec.snapshots import carried
from ..exceptions import ConfigurationError
from ..references import is_model, look_up, model_by_label, path_of

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


def check_encryption(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """E006: deliveries are to be encrypted, or keys for it are there, and this process cannot do it."""
    values, problems = conf.read(getattr(settings, "DEFERRED_SIGNALS", None) or {})
    if problems:
        return []  # E001 says so
    stand_ins = [stand_in for one in registry.registrations() for stand_in in one.connections()]
    by_option = sorted({stand_in.registration.name for stand_in in stand_ins if stand_in.options.encrypt})
    if not (by_option or values.get("encrypt") or values.get("encryption_keys")):
        return []
    try:
        encryption.check()
    except ConfigurationError as error:
        wanted = f"The option encrypt=True of {', '.join(by_option)}" if by_option else "DEFERRED_SIGNALS"
        return [
            checks.Error(
                f"{wanted} asks for encryption. {error}",
                hint="Every process that sends or delivers needs cryptography and the same ENCRYPTION_KEYS; "
                "cryptography.fernet.Fernet.generate_key() makes one.",
                id="deferred_signals.E006",
            )
        ]
    return []


def check_receivers(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """What is wrong with a connection.

    E003: the receiver's dotted path leads elsewhere. E004: its ``using`` names no database. E005: ``fields`` or
    ``exclude`` names what the sender does not have. W002: a snapshot of the sender would carry secrets.
    """
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
            model: Any = model_by_label(stand_in.sender) if isinstance(stand_in.sender, str) else stand_in.sender
            if is_model(model):
                found += _named_fields(registration.name, model, stand_in.options)
                found += _sensitive_fields(registration.name, model, stand_in)
    return found


def _named_fields(receiver: str, model: type[models.Model], options: Any) -> Iterator[checks.CheckMessage]:
    fields = model._meta.concrete_fields
    known = {name for field in fields for name in (field.name, field.attname)}
    for option in ("fields", "exclude"):
        if unknown := sorted({*(getattr(options, option) or ())} - known):
            yield checks.Error(
                f"The deferred receiver {receiver!r} has {option}= with {', '.join(map(repr, unknown))}, which no "
                f"column of {model._meta.label} is called.",
                hint=f"The fields are {', '.join(field.name for field in fields)}.",
                obj=receiver,
                id="deferred_signals.E005",
            )


def _sensitive_fields(receiver: str, model: type[models.Model], stand_in: Any) -> Iterator[checks.CheckMessage]:
    options = stand_in.options
    of_itself = options.instance is None and django_signals.wants_snapshots(stand_in.signal)
    # Who says fields= has chosen; and a key cannot be left out.
    if options.fields is not None or not (options.instance == "snapshot" or of_itself or options.changes):
        return
    by_setting = conf.read(getattr(settings, "DEFERRED_SIGNALS", None) or {})[0].get("encrypt", False)
    if by_setting if options.encrypt is None else options.encrypt:
        return
    keys = {field.name for field in carried(model, (), ())}
    names = [
        field.name
        for field in carried(model, None, options.exclude)
        if field.name not in keys and _may_hold_text(field) and is_sensitive(field.name)
    ]
    if names:
        what = "the changes" if options.changes else "snapshots"
        exclude = ", ".join(map(repr, sorted({*options.exclude, *names})))
        yield checks.Warning(
            f"The deferred receiver {receiver!r} gets {what} of {model._meta.label}, which carry "
            f"{', '.join(map(repr, names))} to the broker, where they can be read.",
            hint=f"Leave them out with exclude=({exclude},), name what the receiver needs with fields=(...), or let "
            "them travel with encrypt=True.",
            obj=receiver,
            id="deferred_signals.W002",
        )


_HARMLESS_FIELDS = (
    models.BooleanField, models.DateField, models.TimeField, models.DurationField,
    models.IntegerField, models.FloatField, models.DecimalField, models.FileField,
)  # fmt: skip


def _may_hold_text(field: Any) -> bool:
    """Whether a secret could be in the field: ``has_password`` and ``token_expires`` only tell about one."""
    return not (field.is_relation or field.choices or isinstance(field, _HARMLESS_FIELDS))


#: What keys are called that open nothing.
_HARMLESS_KEYS = {
    "cache", "foreign", "group", "grouping", "lookup", "message", "natural", "object", "order", "partition", "primary",
    "public", "row", "sort", "sorting", "translation",
}  # fmt: skip
#: What follows the name of a secret where a form of it is kept.
_FORMS = {"digest", "encrypted", "hash", "value"}


def is_sensitive(name: str) -> bool:
    """Whether a field's name says that it holds a secret.

    The words are those that ``django.contrib.auth`` masks in credentials: api, token, key, secret, password, signature.
    They count where they are what the name is about: ``api_key`` and ``token_hash``, but not ``key_points``.
    """
    words = [word.lower().removesuffix("s") for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]
    if any(word.endswith(("password", "secret")) for word in words):
        return True
    while len(words) > 1 and words[-1] in _FORMS:
        words.pop()
    *before, last = words or [""]
    if last == "key":
        return not (before and before[-1] in _HARMLESS_KEYS)
    return last.endswith(("token", "apikey")) or last in {"api", "signature"}


def _is_method(target: Any, registration: registry.Registration) -> bool:
    """Whether the path leads to the class method that was connected, which look_up does not bind."""
    return isinstance(target, classmethod) and target.__func__ is getattr(registration.function, "__func__", None)
