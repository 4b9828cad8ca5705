"""What a carrier of the users' own enters may be a tenant: there a row is another one, and none is read ahead of it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import translation

from deferred_signals import backends, context, register_carrier
from deferred_signals.batch_run import run_all
from tests.ahead import bell, customers, got, in_schema, reads_ahead, selects, succeeded, tenants, translated  # noqa: F401 - fixtures
from tests.shop.models import Customer

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.usefixtures("reads_ahead"),
]


def sent(*what: tuple[str, Customer]) -> str:
    """The payload of a batch with a delivery for each of these rows, sent by these tenants."""
    memory: Any = backends.current()
    with transaction.atomic():
        for name, row in what:
            with in_schema(name):
                bell.send(sender=None, instance=row)
    ((_, payload),) = memory.payloads
    memory.payloads.clear()
    return str(payload)


def test_each_row_of_a_batch_is_read_in_its_own_tenant(tenants, calls):  # noqa: F811
    one, two, three = tenants
    payload = sent(("acme", one), ("globex", one), ("", one), ("acme", two), ("globex", three))
    assert succeeded(run_all(payload))
    assert [row.name for row in got(calls)] == ["acme", "globex", "0", "acme", "globex"]
    assert [row.pk for row in got(calls)] == [one.pk, one.pk, one.pk, two.pk, three.pk]


def test_a_row_that_was_read_ahead_is_not_that_of_a_tenant(tenants, calls):  # noqa: F811
    """While a release rolls out that has the carrier."""
    one, two, _ = tenants
    carrier = context._carriers.pop("tenant")
    memory: Any = backends.current()
    with transaction.atomic():
        for row in (one, two, one):
            bell.send(sender=None, instance=row)
        context._carriers["tenant"] = carrier
        with in_schema("acme"):
            bell.send(sender=None, instance=one)
    ((_, payload),) = memory.payloads
    with CaptureQueriesContext(connection) as queries:
        assert succeeded(run_all(payload))
    assert [row.name for row in got(calls)] == ["0", "1", "0", "acme"]
    assert len(selects(queries)) == 2


def test_a_row_is_made_in_the_language_of_its_delivery(translated, calls):  # noqa: F811
    found = customers(3)
    memory: Any = backends.current()
    with transaction.atomic():
        for row, language in zip((*found, *found), ("de", "de", "fr", "fr", "de", "de"), strict=True):
            with translation.override(language):
                bell.send(sender=None, instance=row)
    ((_, payload),) = memory.payloads
    with CaptureQueriesContext(connection) as queries:
        assert succeeded(run_all(payload))
    assert [row.name for row in got(calls)] == ["0 de", "1 de", "2 fr", "0 fr", "1 de", "2 de"]
    assert len(selects(queries)) == 3


def test_the_trace_of_a_delivery_keeps_no_row_from_being_read_ahead(calls):
    register_carrier("opentelemetry", capture=iter("abc").__next__, restore=nullcontext)
    try:
        payload = sent(*(("", row) for row in customers(3)))
        with CaptureQueriesContext(connection) as queries:
            assert succeeded(run_all(payload))
    finally:
        context.unregister_carrier("opentelemetry")
    assert [row.name for row in got(calls)] == ["0", "1", "2"]
    assert len(selects(queries)) == 1
