"""The filters of the list.

Rows that wait, run or are dead have indexes (the dead not where indexes cannot be partial, as on MariaDB). Other
states, origins, ages and names have none, for every send would pay for them: the database goes from the newest row
back until it has counted as many as ``paging`` wants, and if few match, it goes through all. A bound on that would
hide what an operator looks for; ``RETENTION`` is the bound of what there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db import connections
from django.db.models import QuerySet
from django.http import HttpRequest

from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.models import Origin, OutboxDelivery, State

from . import databases

#: Of so many rows, the newest, the receivers can be chosen; besides those that have dead ones.
NEWEST = 10_000

_HOUR = 3600.0
_AGES = {
    "hour": ("in the last hour", 0.0, _HOUR),
    "day": ("in the last 24 hours", 0.0, 24 * _HOUR),
    "week": ("in the last 7 days", 0.0, 7 * 24 * _HOUR),
    "older": ("more than 7 days ago", 7 * 24 * _HOUR, None),
}


class DatabaseFilter(admin.SimpleListFilter):
    """Which database, where several have an outbox. The list's queryset is of that one already."""

    title = "database"
    parameter_name = databases.PARAMETER

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """As Django asks."""
        found = databases.aliases()
        return [(alias, alias) for alias in found] if len(found) > 1 else []

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """As Django asks."""
        return queryset

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        """Without "All": a list is of one database."""
        chosen = self.value() or databases.default()
        for alias, title in self.lookup_choices:
            link = changelist.get_query_string({self.parameter_name: alias})
            yield {"selected": chosen == alias, "query_string": link, "display": title}


class StateFilter(admin.SimpleListFilter):
    """By state."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """As Django asks."""
        return [(state.value, str(state.label)) for state in State]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """As Django asks."""
        if self.value() not in State.values:
            return queryset
        if self.value() in {State.PENDING, State.RUNNING}:
            # Of all rows only these have a ring_at, and an index on it.
            queryset = queryset.filter(ring_at__isnull=False)
        return queryset.filter(state=self.value())


class ReceiverFilter(admin.SimpleListFilter):
    """By receiver, of those that are there."""

    title = "receiver"
    parameter_name = "receiver"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """As Django asks."""
        found = receivers(databases.alias_of(request))
        asked = request.GET.get(self.parameter_name)
        return [(name, name or "(could not be opened)") for name in sorted(found | ({asked} if asked else set()))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """As Django asks."""
        return queryset if self.value() is None else queryset.filter(receiver=self.value())


def receivers(alias: str) -> set[str]:
    """The receivers of a database, as far as they are found fast."""
    rows = databases.rows(alias).order_by()
    if not connections[alias].features.supports_partial_indexes:
        # There, the index that is meant for the dead is of all rows, and the database jumps from name to name.
        return set(rows.values_list("receiver", flat=True).distinct())
    oldest = rows.order_by("-number").values_list("number", flat=True)[NEWEST - 1 : NEWEST]
    newest = rows.filter(number__gte=next(iter(oldest), 0))
    dead = rows.filter(state=State.DEAD)
    return {name for some in (newest, dead) for name in some.values_list("receiver", flat=True).distinct()}


class OriginFilter(admin.SimpleListFilter):
    """By what has brought a delivery into the outbox."""

    title = "origin"
    parameter_name = "origin"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """As Django asks."""
        return [(origin.value, str(origin.label)) for origin in Origin]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """As Django asks."""
        return queryset.filter(origin=self.value()) if self.value() in Origin.values else queryset


class AgeFilter(admin.SimpleListFilter):
    """By when a delivery was written, by the database's clock."""

    title = "age"
    parameter_name = "age"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """As Django asks."""
        return [(key, title) for key, (title, _, _) in _AGES.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[OutboxDelivery]) -> QuerySet[OutboxDelivery]:
        """As Django asks."""
        _, least, most = _AGES.get(self.value() or "", ("", 0.0, None))
        if least:
            queryset = queryset.filter(created__lt=DatabaseNow(-least))
        return queryset if most is None else queryset.filter(created__gte=DatabaseNow(-most))
