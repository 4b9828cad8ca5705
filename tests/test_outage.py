"""Whether a database is away, of which the outcome of an attempt depends."""

from __future__ import annotations

import pytest
from django.db import connections

from deferred_signals.outage import database_is_away


@pytest.mark.django_db(databases=["default", "other"])
def test_a_database_that_a_test_case_forbids_is_not_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden() -> None:
        raise AssertionError("Database connections to 'other' are not allowed in this test.")

    monkeypatch.setattr(connections["other"], "ensure_connection", forbidden)
    assert not database_is_away()
