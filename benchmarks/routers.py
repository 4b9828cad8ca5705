"""Where the tables of the peers are."""

from __future__ import annotations

from typing import Any

from django.db import router


class Peers:
    """Those of django-domain-events are beside the rows that its events tell of, in the same transaction."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        """Name the database of the comparison that is measured now."""
        return self.alias if model._meta.app_label == "django_domain_events" else None

    db_for_read = db_for_write


def lead_peers_to(alias: str) -> None:
    """Use that database; without a router where it is the default one, for who sends asks each router there is."""
    router.routers = [] if alias == "default" else [Peers(alias)]
