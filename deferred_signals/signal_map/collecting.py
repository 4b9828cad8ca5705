"""Who is connected to what in this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from django.apps import apps

from .. import keeping, registry
from ..deferred_receiver import DeferredReceiver
from ..exceptions import ConfigurationError
from . import names
from .connection import Connection, differing
from .receiver_lists import ANY, entries
from .routes import Routes


class Found(NamedTuple):
    """All connections, in the order of their names, and how many more could not be read."""

    connections: list[Connection]
    unread: int


def everything() -> Found:
    """All connections of this process: the inline ones of signals that a module holds, and the deferred ones."""
    senders = names.Senders()
    found = list(_deferred(senders))
    unread = 0
    for signal in names.signals():
        for entry in entries(signal):
            if entry is None:
                unread += 1
            elif not isinstance(entry.receiver, DeferredReceiver):
                sender = "" if entry.sender_id == ANY else senders.name(entry.sender_id, entry.sender)
                found.append(_inline(names.name_of_signal(signal), sender, entry.receiver))
    return Found(sorted(found, key=lambda one: (one.signal, one.sender, one.receiver)), unread)


def _inline(signal: str, sender: str, receiver: Any) -> Connection:
    name = names.name_of_receiver(receiver)
    return Connection(signal, sender, name, deferred=False, apps=_apps(signal, sender, name), function=receiver)


def _deferred(senders: names.Senders) -> Iterator[Connection]:
    routes = Routes()
    for registration in registry.registrations():
        for stand_in in registration.connections():
            signal, sender = names.name_of_signal(stand_in.signal), senders.name_of(stand_in.sender)
            yield Connection(
                signal,
                sender,
                registration.name,
                deferred=True,
                queue=routes.queue(stand_in.options),
                durable=is_durable(stand_in.options),
                options=differing(stand_in.options),
                apps=_apps(signal, sender, registry.name_of(registration.function)),
                function=registration.function,
                stand_in=stand_in,
            )


def is_durable(options: Any) -> bool:
    """Whether its deliveries are durable. By its own word alone where the settings are wrong, which a check says."""
    try:
        return keeping.is_wanted(options)
    except ConfigurationError:
        return bool(options.durable)


def _apps(signal: str, sender: str, receiver: str) -> frozenset[str]:
    label = sender.partition(".")[0]
    of_sender = label if label in apps.app_configs else names.app_of(sender)
    return frozenset([names.app_of(signal), of_sender, names.app_of(receiver)]) - {""}
