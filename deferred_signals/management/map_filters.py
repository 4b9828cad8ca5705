"""Which connections ``list_receivers`` and ``signal_map`` are about, as their arguments say it."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.management.base import CommandError, CommandParser

from deferred_signals.signal_map import SignalMap, collect


def add_filters(parser: CommandParser) -> None:
    """Add what says which connections."""
    parser.add_argument("--signal", default="", metavar="NAME", help="Those to signals whose name contains this.")
    parser.add_argument("--sender", default="", metavar="NAME", help="Those for senders whose name contains this.")
    parser.add_argument("--receiver", default="", metavar="NAME", help="Those of receivers whose name contains this.")
    parser.add_argument("--app", default="", metavar="LABEL", help="Those whose signal, sender or receiver it is.")
    manner = parser.add_mutually_exclusive_group()
    manner.add_argument(
        "--deferred", action="store_const", const=True, default=None, dest="deferred", help="Only deferred ones."
    )
    manner.add_argument("--inline", action="store_const", const=False, dest="deferred", help="Only inline ones.")


def collected(options: dict[str, Any]) -> SignalMap:
    """The connections that the arguments name. Raises CommandError for an app that is not installed."""
    label = options["app"]
    if label and label not in apps.app_configs:
        raise CommandError(f"There is no app {label!r}. There is {', '.join(sorted(apps.app_configs))}.")
    return collect(**{name: options[name] for name in ("signal", "sender", "receiver", "app", "deferred")})


def unread_note(found: SignalMap) -> str:
    """What to say of receivers that could not be read; empty if all could."""
    if not found.unread:
        return ""
    return f"{found.unread} more could not be read: this release of Django keeps its receivers in another form."
