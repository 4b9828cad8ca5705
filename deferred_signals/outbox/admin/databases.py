"""Which database a page is about: ``?database=other``, else the one in which Django would write."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlencode

from django.db import Error as DatabaseDriverError
from django.db import connections, router
from django.db.models import QuerySet
from django.http import Http404, HttpRequest

from deferred_signals import keeping
from deferred_signals.exceptions import ConfigurationError
from deferred_signals.outbox.models import OutboxDelivery

PARAMETER = "database"


def aliases() -> list[str]:
    """The databases that have the tables, and answer."""
    return list(_with_tables())


def _with_tables() -> Iterator[str]:
    outbox = keeping.required()
    # Where the routers allow no table, one that is seen is that of another alias: of a replica.
    for alias in connections:
        if router.allow_migrate_model(alias, OutboxDelivery):
            try:
                outbox.check(alias)
            except (ConfigurationError, DatabaseDriverError):
                continue
            yield alias


def default() -> str:
    """The database of pages that name none. Never a replica, which may be behind what was just done."""
    home, known = router.db_for_write(OutboxDelivery), aliases()
    return home if home in known or not known else known[0]


def alias_of(request: HttpRequest) -> str:
    """The database of a request. Raises Http404 for one that has no outbox."""
    asked = request.GET.get(PARAMETER)
    if not asked:
        return default()
    if asked not in aliases():
        raise Http404("This database has no outbox.")
    return asked


def rows(alias: str) -> QuerySet[OutboxDelivery]:
    """All rows of a database."""
    return OutboxDelivery.objects.using(alias)


def query(alias: str, **more: str) -> str:
    """The query string of a link to another page about the same database."""
    return "?" + urlencode({**more, PARAMETER: alias})
