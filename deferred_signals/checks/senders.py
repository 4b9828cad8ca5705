"""A system check of the senders that deferred receivers wait for: whether Django ever sends for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import apps
from django.core import checks
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save

from .. import registry
from ..references import is_model, model_by_label
from .messages import once, warning

_SAVING = {
    pre_save: "pre_save",
    post_save: "post_save",
    pre_delete: "pre_delete",
    post_delete: "post_delete",
    m2m_changed: "m2m_changed",
}


def check_senders(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """W003: a connection to one of Django's signals of models waits for a sender that none of their sends has."""
    return once([message for one in registry.registrations() for message in _unheard(one)])


def _unheard(registration: registry.Registration) -> Iterator[checks.CheckMessage]:
    for stand_in in registration.connections():
        signal = _SAVING.get(stand_in.signal)
        sender = stand_in.sender
        model = model_by_label(sender) if isinstance(sender, str) else sender
        # Of an "app.Model" that is not there Django tells itself.
        if signal is not None and model is not None and (found := _why_never(signal, model)) is not None:
            why, hint = found
            yield warning(
                "deferred_signals.W003",
                f"The deferred receiver {registration.name!r} waits for a {signal} that Django never sends: {why}.",
                hint,
                registration.name,
            )


def _why_never(signal: str, model: Any) -> tuple[str, str] | None:
    """Why no send of the signal has this sender, and what to do; None if there may be some."""
    if not is_model(model):
        return f"its sender is no model but a {type(model).__name__}", "sender= is one model; connect once for each."
    name = model._meta.label
    if signal == "m2m_changed":
        through = {field.remote_field.through for one in apps.get_models() for field in one._meta.many_to_many}
        if model in through:
            return None
        own = [f"{model.__name__}.{field.name}.through" for field in model._meta.many_to_many]
        return (
            f"{name} is the through model of no many-to-many field",
            f"sender={' or '.join(own) or 'Model.field.through'}",
        )
    if model._meta.abstract:
        return f"{name} is abstract", "Connect once for each model, or without a sender, and when= says which."
    if model._meta.swapped:
        return f"{name} is swapped for {model._meta.swapped}", f"sender={model._meta.swapped!r}, or get_user_model()"
    if model._meta.auto_created:
        return f"{name} is made and written by a many-to-many field", "m2m_changed"
    return None
