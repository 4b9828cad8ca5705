"""The database's clock: times that statements compare and write without a look at the clocks of hosts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, connections
from django.test import override_settings

from deferred_signals.exceptions import ConfigurationError
from deferred_signals.outbox.clock import DatabaseNow, SecondsFromNow, now_sql
from deferred_signals.outbox.models import OutboxDelivery
from tests import receivers

from .holding import parcel_sent, send

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def a_row(link) -> None:
    link(parcel_sent, receivers.first, durable=True)
    send()


@pytest.mark.parametrize("seconds", [0, 0.25, 3600, -60, 1000 * 365 * 86400])
def test_it_is_the_time_of_the_database_so_many_seconds_from_now(seconds):
    OutboxDelivery.objects.update(due=DatabaseNow(seconds))
    (due,) = OutboxDelivery.objects.values_list("due", flat=True)
    assert due is not None
    assert abs(due - timedelta(seconds=seconds) - datetime.now(UTC)) < timedelta(seconds=60)
    rows = OutboxDelivery.objects
    assert rows.filter(due__lte=DatabaseNow(seconds)).exists()
    assert not rows.filter(due__lte=DatabaseNow(seconds - 60)).exists()


@pytest.mark.parametrize("seconds", [timedelta.max.total_seconds(), -timedelta.max.total_seconds()])
def test_it_ends_a_thousand_years_from_now_for_databases_cannot_tell_every_time(seconds):
    """A LEASE or RETENTION may be that long. Of a time that is none SQLite makes NULL: the row would wait for ever."""
    OutboxDelivery.objects.update(due=DatabaseNow(seconds))
    (due,) = OutboxDelivery.objects.values_list("due", flat=True)
    assert due is not None
    assert abs(due.year - datetime.now(UTC).year) in {999, 1000}


def test_it_has_fractions_of_a_second():
    OutboxDelivery.objects.update(due=DatabaseNow(0.4))
    rows = OutboxDelivery.objects
    rows.update(created=DatabaseNow())
    assert not rows.filter(due__lte=DatabaseNow(-0.4)).exists()
    assert {row.microsecond for row in rows.values_list("created", flat=True)} != {0} or _again()


def _again() -> bool:
    """Once in a thousand times on SQLite it is a whole second."""
    OutboxDelivery.objects.update(created=DatabaseNow(0.001))
    return OutboxDelivery.objects.get().created.microsecond != 0


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/Los_Angeles"])
def test_it_does_not_depend_on_the_time_zone_of_the_session(zone):
    OutboxDelivery.objects.update(due=DatabaseNow(60))
    with override_settings(TIME_ZONE=zone):
        connection.close()
        rows = OutboxDelivery.objects
        assert not rows.filter(due__lte=DatabaseNow()).exists()
        assert rows.filter(due__lte=DatabaseNow(61)).exists()
    connection.close()


def test_it_goes_on_within_a_transaction():
    """PostgreSQL's CURRENT_TIMESTAMP does not, and a receiver's transaction may last longer than a lease."""
    from django.db import transaction

    rows = OutboxDelivery.objects
    with transaction.atomic():
        rows.update(due=DatabaseNow())
        for _ in range(1_000_000):
            if rows.filter(due__lt=DatabaseNow(-0.01)).exists():
                return
    pytest.fail("the clock stands still")


def test_a_database_of_another_kind_is_refused_with_what_there_is(monkeypatch):
    wrapper = connections["default"]
    monkeypatch.setattr(wrapper, "vendor", "oracle", raising=False)
    with pytest.raises(ConfigurationError, match="PostgreSQL, MySQL, MariaDB and SQLite"):
        now_sql(wrapper)


@pytest.mark.parametrize("seconds", [0, 0.25, 3600, -60, 1000 * 365 * 86400])
def test_it_tells_in_how_many_seconds_a_time_is(seconds):
    OutboxDelivery.objects.update(due=DatabaseNow(seconds))
    (told,) = OutboxDelivery.objects.values_list(SecondsFromNow("due"), flat=True)
    assert seconds - 60 < told < seconds + 0.01
    assert type(told) is float


def test_of_no_time_it_tells_nothing():
    OutboxDelivery.objects.update(due=None)
    assert list(OutboxDelivery.objects.values_list(SecondsFromNow("due"), flat=True)) == [None]
