"""What is special about some of Django's own signals, told without importing their modules."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from django.dispatch import Signal

from .codec import Encoder
from .codec.base import type_name
from .codec.requests import environ_snapshot, scope_snapshot
from .codec.stand_ins import not_carried
from .exceptions import EncodeError
from .references import is_instance
from .signal_names import is_signal
from .signals import __name__ as OUR_SIGNALS  # noqa: N812 - a constant to us

MODELS = "django.db.models.signals"

#: Signals for which deferring cannot mean anything: module, attribute, the reason and the alternative.
_REFUSED = (
    (MODELS, "class_prepared",
     "it is sent while models are being loaded, when no delivery can be made. Use AppConfig.ready()."),
    (MODELS, "pre_init",
     "it is sent for every instance that any process makes, the worker's own included. Use pre_save or post_save."),
    (MODELS, "post_init",
     "it is sent for every row that any process reads, the worker's own included. Use post_save."),
    ("django.db.backends.signals", "connection_created",
     "it concerns one connection of one process, and the worker's own connecting would send it again. Connect inline."),
    ("django.test.signals", "template_rendered",
     "it is sent only while tests run, with the live objects of a template's context. Connect inline."),
    *((OUR_SIGNALS, name, "it tells about deliveries, and each delivery would cause another. Connect inline.")
      for name in ("delivery_published", "delivery_unpublished", "delivery_started", "delivery_finished")),
)  # fmt: skip

Reduce = Callable[[Encoder, Any], Any]


def refusal(signal: Signal) -> str | None:
    """Why the signal cannot have deferred receivers, and what to do instead; None if it can."""
    for module, name, reason in _REFUSED:
        if is_signal(signal, module, name):
            return f"{module}.{name} cannot have deferred receivers: {reason}"
    return None


def is_model_signal(signal: Signal) -> bool:
    """Whether it is one of ``django.db.models.signals``, whose ``using`` and ``raw`` mean what Django says."""
    module = sys.modules.get(MODELS)
    return module is not None and any(value is signal for value in vars(module).values())


def wants_snapshots(signal: Signal) -> bool:
    """Whether its instances are, or are about to be, other than the row: a reference would show the wrong state."""
    return is_signal(signal, MODELS, "pre_save", "pre_delete", "post_delete")


def is_post_save(signal: Signal) -> bool:
    """Whether it is the signal of a save, whose ``using`` is the database that the row was written to."""
    return is_signal(signal, MODELS, "post_save")


def is_asked(signal: Signal) -> bool:
    """Whether its sender acts on what the receivers answer.

    ``runserver`` does not reload for a changed file that a receiver says, by any true answer, it has handled.
    """
    return is_signal(signal, "django.utils.autoreload", "file_changed")


def reductions(signal: Signal, named: frozenset[str]) -> dict[str, Reduce]:
    """The arguments of the signal that travel in another form than their type's; ``named`` by the receiver."""
    found: dict[str, Reduce] = {}
    if is_signal(signal, MODELS, "pre_delete", "post_delete") and "origin" not in named:
        found["origin"] = _origin
    if is_signal(signal, "django.core.signals", "request_started"):
        found["environ"] = lambda encoder, value: encoder.encode(environ_snapshot(value))
        found["scope"] = lambda encoder, value: encoder.encode(scope_snapshot(value))
    return found


def _origin(encoder: Encoder, value: Any) -> Any:
    """The ``origin`` of Django's delete signals, for a receiver that does not name it.

    A queryset would be asked for all its rows again at the send for each of them.
    """
    if is_instance(value):
        return encoder.encode(value)
    reason = "it is the queryset that is being deleted. Name origin in the receiver to get its rows."
    return not_carried(EncodeError(reason, type_name(value)).under("kwargs['origin']"))
