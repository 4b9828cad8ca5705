"""Writes the specimen of a wire version: ``python -m tests.wire.specimen``, once, before the release that makes it.

A specimen is never written again: it is what messages under way look like.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from importlib import import_module
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path, PurePosixPath
from types import FunctionType
from typing import Any
from zoneinfo import ZoneInfo

import django
from django.apps.registry import Apps
from django.conf import settings
from django.core.management.base import OutputWrapper
from django.db.models import Model
from django.db.models.expressions import DatabaseDefault
from django.db.models.signals import post_save
from django.dispatch import Signal

KEY = "the key of the specimens"
FERNET_KEY = "dGhlIEZlcm5ldCBrZXkgb2YgdGhlIHNwZWNpbWVucyE="
FOLDER = Path(__file__).parent


def _said(instance: Model, name: str) -> str:
    if name not in instance.__dict__:
        return "deferred"
    value = instance.__dict__[name]
    return "the database's default" if isinstance(value, DatabaseDefault) else repr(value)


def told(value: Any) -> Any:
    """A decoded value as JSON that a person can check."""
    if isinstance(value, Model):
        values = {field.attname: _said(value, field.attname) for field in value._meta.concrete_fields}
        return [value._meta.label, value._state.adding, values]
    if isinstance(value, OutputWrapper | Apps):
        return f"this process's {type(value).__name__}"
    if isinstance(value, Signal):
        return f"itself: {value.__class__.__qualname__}"
    if isinstance(value, type | FunctionType):
        return f"itself: {value.__module__}.{value.__qualname__}"
    if dataclasses.is_dataclass(value):
        return [
            type(value).__name__,
            {field.name: told(getattr(value, field.name)) for field in dataclasses.fields(value)},
        ]
    kind: Any = type(value)
    if kind.__repr__ is object.__repr__:
        return f"{type(value).__qualname__}: {value}"
    if type(value) in {list, tuple}:
        return [type(value).__name__, *map(told, value)]
    if type(value) is OrderedDict:  # its repr is another one since Python 3.12
        return ["OrderedDict", *(told(item) for item in value.items())]
    if type(value) is dict:
        return {repr(key): told(item) for key, item in value.items()}
    return repr(value)


def arguments() -> dict[str, Any]:
    """One of everything that travels; rows are made by the test, with these keys."""
    from django.apps import apps
    from django.contrib.auth.models import AnonymousUser
    from django.http import QueryDict
    from django.test import RequestFactory
    from django.utils.datastructures import MultiValueDict
    from django.utils.safestring import mark_safe

    from deferred_signals.codec import NotCarried
    from deferred_signals.codec.changed import FieldChanges
    from tests.shop.models import Article, Code, Customer, Line, Parcel, Ticket

    from . import shapes

    twice = Article(title="c")
    row = Customer(pk=42, name="Anna")
    line = Line(order_id=uuid.UUID(int=7), number=3)
    ticket = Ticket(code=Code("T1"))
    for saved in (row, line, ticket):
        saved._state.adding, saved._state.db = False, "default"
    request = RequestFactory().get("/shop/?page=2", headers={"user-agent": "Firefox"})
    request.user = AnonymousUser()
    vienna = ZoneInfo("Europe/Vienna")
    return {
        "plain": [None, True, False, 0, -(2**63), 2**64 - 1, 1.5, -0.0, "", "Zoë \u2028 😀", [], {}, {"a": {"b": [1]}}],
        "large": [2**64, -(2**64), 10**30],
        "floats": [float("nan"), float("inf"), float("-inf")],
        "text": [mark_safe("<b>"), b"\x00\xff", bytearray(b"a"), PurePosixPath("a/b"), uuid.UUID(int=5)],
        "numbers": [Decimal("1.10"), Decimal("-0"), Decimal("NaN"), Decimal("1E+30")],
        "times": [
            datetime(2026, 10, 25, 2, 30, tzinfo=vienna, fold=1),
            datetime(2026, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001 - naive ones travel, too
            datetime(2026, 1, 2, tzinfo=UTC),
            datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=-3.5), "NST")),
            date(2026, 1, 2),
            time(1, 2, 3, 4),
            time(1, tzinfo=UTC),
            timedelta(-1, 2, 3),
            vienna,
            timezone(timedelta(seconds=1)),
        ],
        "containers": [(1, (2,)), {3}, frozenset({4}), {1: "int", ("a", None): [5], "$ref": 6}],
        "named": [
            shapes.Colour.RED,
            shapes.Right.READ | shapes.Right.WRITE,
            shapes.Point(1, shapes.Pair([2], None)),
            shapes.Point,
            shapes.function,
            type(None),
            post_save,
        ],
        "rows": [row, line, ticket],
        "snapshots": [Article(title="a", stock=5, tags={"k": [1]}), Ticket(code=Code("T2"), scan=b"\x01")],
        "models": [Customer, Article.objects.none()],
        "more_numbers": [1 + 2j, Fraction(1, 3), range(1, 9, 2), IPv4Address("10.0.0.1"), IPv6Network("fe80::/64")],
        "collections": [
            OrderedDict(b=1, a=2),
            Counter("aab"),
            deque([1, 2], 3),
            defaultdict(list, {"a": [1]}),
            MultiValueDict({"a": [1, 2]}),
            QueryDict("a=1&a=2&b="),
        ],
        "of_django": [
            apps.get_app_config("shop"),
            apps,
            import_module("tests.shop.migrations.0001_initial").Migration("0001_initial", "shop"),
            OutputWrapper(sys.stdout),
            Article._meta.get_field("buyers"),
            Article(title="b", picture="b.png").picture,
            FieldChanges(Ticket(), {"seat": (None, Code("2b"))}),
        ],
        "twice": [twice, twice, Parcel()],
        "stand_ins": [ValueError("boom"), NotCarried("kwargs['x']", "socket.socket", "send its address.")],
        "request": request,
    }


def specimen() -> dict[str, Any]:
    """The payloads of the current wire version, and what must become of them."""
    from deferred_signals.codec import Decoder, Encoder
    from deferred_signals.encryption import encrypted
    from deferred_signals.envelope import VERSION, Envelope, seal
    from tests.shop.models import Customer

    encoder = Encoder()
    first = Envelope(
        id="5b0e7f5c-6a3e-4b52-9a8e-2f6e4f3c1d10",
        created=1790000000.125,
        receiver="shop.receivers.welcome",
        signal="django.db.models.signals.post_save",
        sender=encoder.encode(Customer),
        kwargs={name: encoder.encode(value) for name, value in arguments().items()},
        context={"language": "de-at", "timezone": "Europe/Vienna"},
    )
    retried = Envelope(
        id="b5f1c1de-1a50-4d0e-8d0f-1f7f5f0c9c11",
        created=1790000000,
        receiver="shop.receivers.charge",
        signal=None,
        sender=None,
        kwargs={},
        context={},
        attempt=3,
        crashes=1,
        depth=2,
        repeats=1,
        waiting_since=1790000123.5,
    )
    secret = Envelope(
        id="0d5b7c52-7f0c-4b8e-8b7e-3a3f1c9a6e21",
        created=1790000000.5,
        receiver="shop.receivers.reset_password",
        signal="shop.signals.password_forgotten",
        sender=encoder.encode(Customer),
        kwargs={"link": "https://shop.example/reset/abc/"},
        context={"language": "en", "timezone": "UTC"},
        attempt=2,
        depth=1,
    )
    decoder = Decoder()
    rowless = {name: data for name, data in first.kwargs.items() if name != "rows"}
    return {
        "version": VERSION,
        "key": KEY,
        "fernet_key": FERNET_KEY,
        "first": {"payload": seal(first.to_text())},
        "retried": {"payload": seal(retried.to_text())},
        "encrypted": {"payload": seal(encrypted(secret.to_text()))},
        "arguments": {name: told(decoder.decode(data)) for name, data in rowless.items()},
    }


if __name__ == "__main__":
    settings.DEFERRED_SIGNALS = {"SIGNING_KEYS": [KEY], "ENCRYPTION_KEYS": [FERNET_KEY]}
    settings.ALLOWED_HOSTS = ["testserver"]
    django.setup()
    made = specimen()
    path = FOLDER / f"v{made['version']}.json"
    if path.exists():
        raise SystemExit(f"{path} exists. Messages of that version are under way: raise VERSION instead.")
    path.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
