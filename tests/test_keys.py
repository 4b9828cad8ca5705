"""The keys of durable deliveries: what ``order_by`` and ``unique`` may give, and what is kept of it."""

from __future__ import annotations

import uuid
from datetime import date
from decimal import Decimal
from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import models
from django.utils.functional import SimpleLazyObject

from deferred_signals.exceptions import ConnectError, EncodeError
from deferred_signals.keys import LONGEST, keys_of
from deferred_signals.options import Options, parse
from deferred_signals.registry import Registration
from tests.receivers import first
from tests.shop.models import Article, Customer, GiftOrder, LuxuryOrder, Order, Regular

REGISTRATION = Registration("shop.receivers.bill", first, Options())


class Status(models.TextChoices):
    OPEN = "open", "Open"


class Colour(Enum):
    RED = 7


def key(how: Any, **named: Any) -> str | None:
    order, unique = keys_of(REGISTRATION, parse({"order_by": how, "unique": how}), Customer, named)
    assert order == unique
    return order


def key_for(value: Any) -> str | None:
    return key("item", item=value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (42, "42"),
        ("a", "a"),
        ("", ""),
        (Decimal("1.50"), "1.50"),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (date(2030, 1, 31), "2030-01-31"),
        (Status.OPEN, "open"),
        (Colour.RED, "7"),
        (Customer(pk=9), "shop.customer:9"),
        (SimpleLazyObject(lambda: Customer(pk=9)), "shop.customer:9"),
        (SimpleNamespace(pk=9), "9"),
    ],
)
def test_a_key_is_the_text_of_a_value_below_the_name_of_the_receiver(value, expected):
    assert key_for(value) == f"shop.receivers.bill:{expected}"


def test_a_key_of_several_values_is_none_that_others_could_make_by_their_texts():
    assert key_for(("a", 1)) == key_for(["a", "1"])
    assert (
        len({key_for(value) for value in (("a", "b"), ("a,b",), "a,b", ("ab",), ("a", None), ("a",), (("a", "b"),))})
        == 7
    )
    assert '["acme","shop.customer:9"]' in str(key_for(("acme", Customer(pk=9))))


def test_instances_of_two_models_with_one_primary_key_are_two_keys_but_one_row_is_one():
    assert key_for(Customer(pk=9)) != key_for(Article(pk=9))
    assert key_for(Customer(pk=9)) == key_for(Regular(pk=9))
    pk = uuid.UUID(int=9)
    assert key_for(Order(pk=pk)) == key_for(GiftOrder(pk=pk)) == key_for(LuxuryOrder(pk=pk))


def test_no_value_is_no_key():
    assert key_for(None) is None
    assert key_for(Customer()) is None
    assert keys_of(REGISTRATION, parse({}), None, {}) == (None, None)
    assert keys_of(REGISTRATION, parse({"unique": "item"}), None, {"item": 1}) == (None, "shop.receivers.bill:1")


def test_a_path_goes_through_attributes_and_mappings_and_ends_at_none():
    instance = SimpleNamespace(order={"customer_id": 5, "coupon": None})
    assert str(key("instance.order.customer_id", instance=instance)).endswith(":5")
    assert key("instance.order.coupon.code", instance=instance) is None
    assert key("instance.order", instance=None) is None


def test_a_function_is_asked_with_the_sender_and_all_that_was_sent():
    def by(sender: Any, item: Any, **kwargs: Any) -> Any:
        return sender.__name__, item

    assert key(by, item=3) == key_for(("Customer", 3))


def test_what_a_function_raises_is_the_callers():
    def by(**kwargs: Any) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        key(by)


@pytest.mark.parametrize("value", [True, b"a", object(), {"a": 1}, {1}, ("a", object()), SimpleNamespace()])
def test_what_is_no_key_is_refused_at_the_send_by_the_name_of_receiver_and_option(value):
    with pytest.raises(EncodeError, match=r"the key of order_by= .*shop\.receivers\.bill.*a text, a number") as raised:
        key_for(value)
    assert raised.value.receiver == "shop.receivers.bill"
    assert raised.value.type_name in {"bool", "bytes", "object", "dict", "set", "SimpleNamespace"}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("item.customer_id", "begins with an argument that the send does not have"),
        ("instance.order.gone", "leads nowhere: there is no 'gone'"),
        ("instance.gone.id", "leads nowhere: there is no 'gone'"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_at_the_send(path, said):
    with pytest.raises(EncodeError, match=said):
        key(path, instance=SimpleNamespace(order={}))


def test_keys_that_a_database_might_take_for_one_are_told_apart_by_more_than_their_text():
    """MySQL compares without case, accents and spaces at the end."""
    alike = ["ada", "Ada", "ADA", "ada ", "ädä", "ádá"]
    texts = [str(key_for(one)) for one in alike]
    assert texts[0] == "shop.receivers.bill:ada"
    assert len({text.rpartition("~")[2] for text in texts}) == 6
    # And still legible.
    assert all(one in text for one, text in zip(alike, texts, strict=True))


@pytest.mark.parametrize("value", ["x" * LONGEST, "a\0b", "\ud800", "line\nline"])
def test_of_what_is_too_long_or_no_line_of_text_a_hash_is_kept(value):
    made = str(key_for(value))
    assert made.startswith("sha256:")
    assert made != key_for(value + "x")
    assert len(made) < LONGEST


def test_a_key_always_fits_its_column():
    name = "a" * 150
    registration = Registration(name, first, Options())
    for length in (1, 49, 50, 51, 500):
        order, _ = keys_of(registration, parse({"order_by": "item"}), None, {"item": "Ä" * length})
        assert len(str(order)) <= 255


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"order_by": "instance..pk"}, r"'order_by' must be a dotted path .*, not 'instance..pk'\."),
        ({"unique": ""}, "'unique' must be a dotted path"),
        ({"order_by": lambda: 1}, r"'order_by' must be a dotted path, .* or a function.*key\(sender"),
        ({"order_by": 7}, r"'order_by' must be a dotted path, .*, not 7\."),
        ({"on_dead": "pass"}, "'on_dead' needs order_by="),
        ({"order_by": "item", "on_dead": "skip"}, '"park" or "pass"'),
        ({"debounce": 5}, "'debounce' needs unique="),
        ({"unique": "item", "debounce": 5, "countdown": 5}, "either the option 'debounce' or the option 'countdown'"),
        ({"unique": "item", "debounce": -5}, "'debounce' must be a number of seconds"),
        ({"order_by": "item", "durable": False}, "'order_by' needs durable=True"),
        ({"unique": "item", "on_commit": False}, "'unique' is about the commit"),
    ],
)
def test_misuse_is_refused_when_the_receiver_is_connected(options, said):
    with pytest.raises(ConnectError, match=said):
        parse(options)


def test_an_async_function_gives_no_key():
    async def by(**kwargs: Any) -> Any: ...

    with pytest.raises(ConnectError, match="not async"):
        parse({"order_by": by})


def test_a_key_makes_the_deliveries_durable():
    assert parse({"order_by": "item"}).durable is True
