"""What the tests of the admin share: users, rows, and where the pages are."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db.models import QuerySet
from django.test import Client

from deferred_signals import Signal
from deferred_signals.envelope import seal
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.models import OutboxDelivery, State
from deferred_signals.strict_json import dump, parse

knock = Signal()

LIST = "/admin/deferred_signals_outbox/outboxdelivery/"

#: An exception's text as an attacker would write it.
HOSTILE = "<script>alert('stored')</script>"


def all_rows(alias: str = "default") -> QuerySet[OutboxDelivery]:
    return OutboxDelivery.objects.using(alias)


def put(payload: str, state: str = State.DEAD, /, *, alias: str = "default", **columns: Any) -> OutboxDelivery:
    """A row of another id with this payload, as it would be in that state."""
    data = {**parse(payload.rpartition(":")[0]), "id": str(uuid.uuid4())}
    row = OutboxDelivery(delivery_id=data["id"], receiver=data["to"], signal=data["signal"], payload=seal(dump(data)))
    row.created = row.due = row.ring_at = DatabaseNow()
    row.save(using=alias)
    ended = state in {State.DEAD, State.SUCCEEDED, State.DISCARDED}
    given: dict[str, Any] = {"due": None, "ring_at": None, "finished": DatabaseNow()} if ended else {}
    rows = all_rows(alias).filter(number=row.number)
    rows.update(**{"state": state, **given, **columns})
    return rows.get()


def user(*codenames: str, name: str = "ada") -> User:
    """Somebody of the staff with these permissions."""
    made = User.objects.create(username=name, is_staff=True)
    made.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    assert made.user_permissions.count() == len(codenames)
    return made


def client_of(*codenames: str, name: str = "ada") -> Client:
    """The browser of such a one, in which also the checks against forged requests are in force."""
    browser = Client()
    browser.force_login(user(*codenames, name=name))
    return browser


VIEW, REDELIVER, DISCARD = "view_outboxdelivery", "redeliver", "discard"
ALL = (VIEW, REDELIVER, DISCARD)


def text_of(response: Any) -> str:
    assert response.status_code == 200, response
    return str(response.content.decode())


def page(number: int, *path: str) -> str:
    return f"{LIST}{number}/{'/'.join(path)}/"


urls = pytest.mark.urls("tests.outbox.admin_urls")
