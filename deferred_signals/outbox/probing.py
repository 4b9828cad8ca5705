"""What a relay tries while the broker does not take doorbells."""

from __future__ import annotations

from django.db.models import Q, Subquery

from .clock import DatabaseNow
from .models import OutboxDelivery
from .ringing import by_route

#: Rows that are looked at each time.
WINDOW = 1000


class Probe:
    """Goes through the rows that are due, and finds one for each route: what one queue refuses, another may take."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        #: The number of the last row that was looked at; None at the end of those that are due.
        self._last: int | None = None

    def numbers(self) -> list[int]:
        """Of the next window of rows that are due, the first of each route. Raises the database's error."""
        rows = OutboxDelivery.objects.using(self.alias)
        due = rows.filter(ring_at__lte=DatabaseNow()).order_by("ring_at", "number")
        due = due.only("receiver", "signal", "delivery_id")
        found: list[OutboxDelivery] = []
        if self._last is not None:
            # Compared by the database, for on SQLite times are texts of several lengths.
            last = Subquery(rows.filter(number=self._last).values("ring_at"))
            after = due.filter(Q(ring_at__gt=last) | Q(number__gt=self._last), ring_at__gte=last)
            found = list(after[:WINDOW])
        found = found or list(due[:WINDOW])
        self._last = found[-1].number if len(found) == WINDOW else None
        return [some[0].number for _, some in by_route(found)]
