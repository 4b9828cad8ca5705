"""Pages of a table that may have millions of rows, which are never counted."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from django.core.paginator import Paginator

if TYPE_CHECKING:
    Base = Paginator[Any]
else:
    Base = Paginator

#: Rows that are counted, and so can be paged through. Filters and the search find what is older.
MOST = 10_000


class BoundedPaginator(Base):
    """Counts no more than ``MOST``; the newest stand first. With a filter that finds fewer, all rows may be read."""

    @functools.cached_property
    def count(self) -> int:
        """How many there are, or ``MOST``."""
        rows: Any = self.object_list
        return int(rows.order_by().values("pk")[:MOST].count())
