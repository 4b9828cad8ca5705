"""A signal to its deferred receivers only, for many instances."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import Model, QuerySet
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from django.dispatch import Signal

from ..connecting import _lookup_id
from ..deferred_receiver import DeferredReceiver
from ..delivery import Delivery
from ..references import has_key, is_instance, is_model, label_of, write_alias
from ..suppression import suppressed

#: Rows of a queryset that are read at a time.
CHUNK = 2000


def send_for(objects: Iterable[Model], signal: Signal, /, *, sender: Any = None, **named: Any) -> list[Delivery]:
    """Send a signal to its deferred receivers, once for each instance, which is the argument ``instance``.

    The sender is the instance's class by default. What Django's own signals of saving and deleting have besides is
    filled in. A queryset is read in pieces. Raises what a send would, TypeError for what is no instance of a model, and
    ValueError for a ``post_save`` of what has no primary key.
    """
    if not isinstance(signal, Signal):
        raise TypeError(f"send_for() takes a signal after the objects, as post_save; not {signal!r}.")
    if not isinstance(objects, Iterable):
        raise TypeError(
            f"send_for() takes a queryset or other instances to go through, as Model.objects.all() or [instance]; not "
            f"{objects!r}."
        )
    if suppressed() or not (stand_ins := _connected(signal)):
        return []
    hearing: dict[type[Model], list[DeferredReceiver]] = {}
    deliveries = []
    for instance in objects.iterator(chunk_size=CHUNK) if isinstance(objects, QuerySet) else objects:
        if not is_instance(instance):
            raise TypeError(f"send_for() takes a queryset or instances of models, not a {type(instance).__name__}.")
        if signal is post_save and not has_key(instance.pk):
            raise ValueError(f"A {instance._meta.label} without a primary key cannot be told of as saved.")
        model = instance.__class__  # not type(), for it may be a lazy object
        announcer = model if sender is None else sender
        if model not in hearing:
            hearing[model] = [one for one in stand_ins if _hears(one, announcer)]
        arguments = {**_arguments_of_django(signal, instance, objects), **named}
        for stand_in in hearing[model]:
            delivery = stand_in(signal=signal, sender=announcer, instance=instance, **arguments)
            if delivery is not None:
                deliveries.append(delivery)
    return deliveries


def is_heard(signal: Signal, sender: Any) -> bool:
    """Whether a send would make deliveries, but for what ``when`` says."""
    return not suppressed() and any(_hears(one, sender) for one in _connected(signal))


def _connected(signal: Signal) -> list[DeferredReceiver]:
    """The stand-ins of a signal, in the order in which they were connected, which the registry does not know.

    As in ``registry.holds``, nothing is taken for granted of an entry but that it contains its receiver.
    """
    return [part for entry in list(signal.receivers) for part in entry if isinstance(part, DeferredReceiver)]


def _hears(stand_in: DeferredReceiver, sender: Any) -> bool:
    """Whether Django would call it for a send of that sender."""
    wanted = stand_in.sender
    if isinstance(wanted, str) and is_model(sender):  # "app.Model", connected before that was loaded
        return wanted.lower() == (label_of(sender) or "").lower()
    return wanted is None or bool(stand_in.key[1] == _lookup_id(sender))


def _arguments_of_django(signal: Signal, instance: Model, objects: Any) -> dict[str, Any]:
    """What Django's own sends of a signal have besides the instance."""
    if signal in {pre_save, post_save}:
        created = {"created": False} if signal is post_save else {}
        return {"raw": False, "using": write_alias(instance), "update_fields": None, **created}
    if signal in {pre_delete, post_delete}:
        origin = objects if isinstance(objects, QuerySet) else instance
        return {"using": write_alias(instance), "origin": origin}
    return {}
