"""The rows of the outbox as they are written: the same by every way, whatever stands in them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connections
from django.db.models.signals import post_save, pre_save
from django.db.utils import ConnectionHandler
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from deferred_signals.delivery import Delivery
from deferred_signals.options import Options
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.models import Origin, OutboxDelivery, State
from deferred_signals.outbox.rows import MOST, _statement, id_of, insert, key_of, row_of
from deferred_signals.registry import LONGEST_NAME

pytestmark = pytest.mark.django_db

#: Texts that a statement, a JSON text or a driver could take for something else.
HOSTILE = [
    "plain",
    "it's; DROP TABLE deferred_signals_delivery; --",
    'a "quoted" \\ backslash \\\' and \\n',
    "100 % of %s and %(name)s",
    "{curly} $1 :name ?",
    "line\nbreak\ttab\r",
    "ünïcödé € 😀 \u2028",
    "\\u0000 is not a NUL",
    "",
]


def delivery(text: str = "text", **given: Any) -> Delivery:
    """A delivery as a send makes it."""
    usual: dict[str, Any] = {"receiver": "tests.receivers.first", "signal": "signal", "at": time.time()}
    return Delivery(**{"id": str(uuid.uuid4()), **usual, "own": text, **given})


def write(deliveries: Iterable[Delivery], origin: Origin = Origin.DURABLE) -> list[Any]:
    insert(connections["default"], [row_of(connections["default"], one, origin) for one in deliveries])
    return list(OutboxDelivery.objects.order_by("number"))


def one_by_one(deliveries: Iterable[Delivery]) -> list[Any]:
    for one in deliveries:
        found = write([one])
    return found


both_ways = pytest.mark.parametrize("way", [write, one_by_one], ids=["together", "one_by_one"])
Way = Callable[[Iterable[Delivery]], list[Any]]


@both_ways
class TestARow:
    def test_keeps_each_text_as_it_is(self, way: Way) -> None:
        keys = [(text, None) if number % 2 else (None, text) for number, text in enumerate(HOSTILE)]
        made = [delivery(text, receiver=text, signal=text, keys=key) for text, key in zip(HOSTILE, keys, strict=True)]
        found = way(made)
        assert [row.receiver for row in found] == HOSTILE
        assert [row.signal for row in found] == HOSTILE
        assert [row.payload for row in found] == [one.payload for one in made]
        assert [(row.order_key, row.unique_key) for row in found] == keys
        assert [str(row.delivery_id) for row in found] == [one.id for one in made]

    def test_without_keys_has_none(self, way: Way) -> None:
        assert {(row.order_key, row.unique_key) for row in way([delivery(), delivery()])} == {(None, None)}

    def test_is_as_the_model_would_have_made_it(self, way: Way) -> None:
        given = {"number", "delivery_id", "receiver", "signal", "payload", "created", "due", "ring_at"}
        for row in way([delivery(), delivery()]):
            fresh = OutboxDelivery()
            for field in OutboxDelivery._meta.concrete_fields:
                if field.name not in given:
                    assert getattr(row, field.name) == getattr(fresh, field.name), field.name

    def test_of_a_durable_delivery_is_the_senders_for_a_while_and_then_the_relays(self, way: Way) -> None:
        with override_settings(DEFERRED_SIGNALS={"RING_AGAIN": 7.25}):
            for row in way([delivery(), delivery()]):
                assert row.due == row.created
                assert row.ring_at - row.created == timedelta(seconds=7.25)

    @pytest.mark.parametrize("options", [Options(countdown=90.5), Options(debounce=90.5)])
    def test_of_what_waits_is_the_relays(self, way: Way, options: Options) -> None:
        for row in way([delivery(options=options), delivery(options=options)]):
            assert row.due - row.created == timedelta(seconds=90.5)
            assert row.ring_at == row.due

    def test_sends_no_signals_of_models(self, way: Way) -> None:
        told: list[Any] = []

        def tell(sender: Any, **kwargs: Any) -> None:
            told.append(sender)

        for signal in (pre_save, post_save):
            signal.connect(tell)
        try:
            way([delivery(), delivery()])
        finally:
            for signal in (pre_save, post_save):
                signal.disconnect(tell)
        assert told == []

    def test_has_numbers_in_the_order_of_the_sends_whatever_kinds_they_are(self, way: Way) -> None:
        waiting = Options(countdown=5)
        made = [delivery(), delivery(options=waiting), delivery(), delivery(attempt=3), delivery(keys=("a", None))]
        assert [str(row.delivery_id) for row in way(made)] == [one.id for one in made]


class TestMany:
    def test_of_one_kind_take_few_statements_and_keep_their_order(self) -> None:
        made = [delivery(str(number)) for number in range(2 * MOST + 1)]
        with CaptureQueriesContext(connections["default"]) as queries:
            insert(connections["default"], [row_of(connections["default"], one) for one in made])
        assert len(queries) == 3
        found = OutboxDelivery.objects.order_by("number").values_list("payload", flat=True)
        assert list(found) == [one.payload for one in made]

    def test_that_are_none_take_no_statement(self) -> None:
        with CaptureQueriesContext(connections["default"]) as queries:
            insert(connections["default"], [])
        assert len(queries) == 0


class TestOnPostgreSQL:
    """Without a server: what it would be asked."""

    @pytest.fixture
    def postgresql(self) -> Any:
        return ConnectionHandler({"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "none"}})["default"]

    def test_one_row_has_as_few_parameters_as_can_be(self, postgresql) -> None:
        row = row_of(postgresql, delivery())
        sql, parameters = _statement(postgresql, row.kind, [row.given])
        assert parameters == list(row.given.values())
        assert len(parameters) == sql.count("%s") == 4

    @pytest.mark.parametrize("keys", [(None, None), ("order", None)])
    def test_many_rows_are_one_parameter(self, postgresql, keys) -> None:
        rows = [row_of(postgresql, delivery(text, keys=keys)) for text in HOSTILE]
        sql, parameters = _statement(postgresql, rows[0].kind, [row.given for row in rows])
        assert sql.count("%s") == len(parameters) == 1
        assert json.loads(parameters[0]) == [row.given for row in rows]


class TestOrigins:
    def test_what_could_not_be_published_is_rung_for_at_once(self) -> None:
        (row,) = write([delivery(attempt=4)], Origin.SPILLED)
        assert (row.origin, row.state, row.attempt) == (Origin.SPILLED, State.PENDING, 4)
        assert row.created == row.due == row.ring_at

    def test_names_that_are_too_long_are_cut(self) -> None:
        (row,) = write([delivery(receiver="r" * 300, signal="s" * 300)])
        assert (row.receiver, row.signal) == ("r" * LONGEST_NAME, "s" * LONGEST_NAME)

    def test_a_signal_without_a_name_is_an_empty_text(self) -> None:
        (row,) = write([delivery(signal=None)])
        assert row.signal == ""


class TestIds:
    def test_of_ours_are_those_of_the_deliveries(self) -> None:
        one = str(uuid.uuid4())
        assert key_of(one) == one
        assert id_of(one) == uuid.UUID(one)

    def test_of_others_written_otherwise_are_the_same_uuid(self) -> None:
        one = uuid.uuid4()
        assert key_of(one.hex.upper()) == str(one)
        assert id_of(f"{{{one}}}") == one

    def test_that_are_no_uuids_become_one_and_always_the_same(self) -> None:
        assert id_of("7") == id_of("7") != id_of("8")
        (row,) = write([delivery(id="7")], Origin.SPILLED)
        assert row.delivery_id == id_of("7")


@pytest.mark.parametrize("seconds", [0, -5.5, 0.25, 86400 * 400])
def test_the_databases_clock_can_be_asked_for_a_time_from_now(seconds: float) -> None:
    write([delivery()])
    OutboxDelivery.objects.update(due=DatabaseNow(seconds), ring_at=DatabaseNow())
    row: Any = OutboxDelivery.objects.get()
    assert abs((row.due - row.ring_at).total_seconds() - seconds) < 0.01
    assert abs((row.ring_at - datetime.now(UTC)).total_seconds()) < 60


def test_a_row_keeps_the_longest_name_that_a_receiver_may_have():
    """The core, which refuses longer ones, does not know the model."""
    assert OutboxDelivery._meta.get_field("receiver").max_length == LONGEST_NAME
