"""Plain arguments are written as text at once: the very text that the codecs and the envelope make, or none."""

from __future__ import annotations

import enum
import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from django.apps.registry import Apps
from django.db.models.signals import post_delete, post_save
from django.utils import timezone, translation
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import strategies as st

from deferred_signals import Signal, connect, context, deferred_receiver, register_codec
from deferred_signals.arguments import Arguments
from deferred_signals.codec import base, plain
from deferred_signals.envelope import Envelope, joined
from deferred_signals.options import Options
from deferred_signals.origin import Origin
from deferred_signals.signal_names import signal_name
from deferred_signals.strict_json import parse
from tests.receivers import first, on_instance

from .shop.models import Article, Customer, Line, Order, Regular
from .test_codec_values import VALUES

bell: Any = Signal()


class Name(str):
    __slots__ = ()


class Count(int): ...


class Colour(enum.IntEnum):
    RED = 1


class Word(enum.StrEnum):
    YES = "yes"


class Own:
    """Travels by a codec of its own."""


class OwnName(str):
    """Travels by a codec of its own, too."""

    __slots__ = ()


def customer(pk: Any = 42, using: str = "default", model: Any = Customer) -> Any:
    """A row, as it is read."""
    made = model(pk=pk)
    made._state.adding, made._state.db = False, using
    return made


def arguments(*, snapshot: bool = False, **reductions: Any) -> Arguments:
    return Arguments(connected().registration, Options(), snapshot=snapshot, reductions=reductions)


@functools.cache
def used() -> Arguments:
    """Those of one connection, over which much was sent already: it remembers what sends had in common."""
    return arguments()


def connected() -> Any:
    (found,) = [one for one in bell._live_receivers(None)[0] if isinstance(one, deferred_receiver.DeferredReceiver)]
    return found


@pytest.fixture(autouse=True)
def _linked() -> Iterator[None]:
    connect(bell, first, deferred=True)
    yield
    bell.disconnect(first)


@contextmanager
def without_plain(patch: pytest.MonkeyPatch) -> Iterator[None]:
    with patch.context() as inner:
        inner.setattr(Arguments, "text", lambda *args: None)
        yield


PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(st.characters(max_codepoint=127))
    | st.sampled_from([Customer, Order, Line, Regular])
)
ROWS = st.builds(customer, st.integers(-(2**63), 2**64 - 1), st.sampled_from(["default", "other"])) | st.builds(
    customer, st.integers(1, 100), model=st.sampled_from([Customer, Regular, Article])
)
NAMES = st.text(st.characters(max_codepoint=127), min_size=1)


def both(sender: Any, named: dict[str, Any], encoder: Arguments | None = None) -> tuple[str | None, str]:
    """The text that is written at once, and that of the long way."""
    encoder = encoder or arguments()
    encoded = encoder.encode(sender, named)
    envelope = Envelope("", 0, "", signal_name(bell), encoded.sender, encoded.kwargs, encoded.context)
    return at_once(sender, named, encoder), envelope.to_text()


def at_once(sender: Any, named: dict[str, Any], encoder: Arguments | None = None) -> str | None:
    """The text that is written at once, None where there is none."""
    shared, text = Origin("", bell, sender).shared(), (encoder or arguments()).text(named)
    return None if shared is None or text is None else joined(shared, f'{{"id":"","at":0,"kwargs":{text}}}')


class TestTheSameText:
    @given(PLAIN, st.dictionaries(NAMES, PLAIN), st.dictionaries(NAMES, ROWS, max_size=1))
    def test_of_plain_arguments_it_is_the_codecs(self, sender, named, row):
        short, long = both(sender, {**row, **named})
        assert short == long

    @given(
        st.sampled_from([None, Customer, Order]),
        st.dictionaries(st.sampled_from("abc"), st.booleans() | st.none() | st.sampled_from(["x", "True", "", "é"])),
        st.dictionaries(st.sampled_from("abcd"), ROWS, max_size=1),
    )
    def test_of_much_the_same_arguments_it_is_the_codecs(self, sender, named, row):
        for arguments_ in ({**row, **named}, {**named, **row}):
            short, long = both(sender, arguments_, used())
            assert short in {long, None}
            assert short or not long.isascii()

    @given(PLAIN | VALUES, st.dictionaries(NAMES, PLAIN | VALUES | ROWS, max_size=3))
    def test_of_any_arguments_it_is_the_codecs_or_none(self, sender, named):
        short = at_once(sender, named)
        if short is not None:
            assert short == both(sender, named)[1]

    @given(PLAIN, st.dictionaries(st.text(min_size=1), PLAIN))
    def test_of_any_names_it_is_the_codecs_or_none(self, sender, named):
        if not all(name.isascii() for name in named):
            assert at_once(sender, named) is None
        else:
            short, long = both(sender, named)
            assert short == long

    @pytest.mark.parametrize("language", [None, "de", "zh-hans"])
    @pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
    def test_the_context_is_that_of_the_send(self, language, zone):
        with translation.override(language) if language else nullcontext(), timezone.override(zone):
            short, long = both(None, {"a": 1})
        assert short == long
        assert json.loads(short)["context"] == json.loads(long)["context"]

    def test_a_whole_delivery_reads_the_same_on_both_ways(self, memory, monkeypatch):
        row = customer()
        for again in (nullcontext(), without_plain(monkeypatch)):
            with again:
                bell.send(sender=Customer, instance=row, created=True, name='quoted "tea"', count=3)
        (one, _), (two, _) = memory.payloads
        lacking = {"id", "at"}
        assert [*parse(one.text)] == [*parse(two.text)]
        assert {key: value for key, value in parse(one.text).items() if key not in lacking} == {
            key: value for key, value in parse(two.text).items() if key not in lacking
        }
        changed = two.text.replace(two.id, one.id).replace(
            f'"at":{parse(two.text)["at"]!r}', f'"at":{parse(one.text)["at"]!r}'
        )
        assert one.text == changed
        assert (one.receiver, one.signal, one.attempt, one.created.tzinfo) == (
            two.receiver, two.signal, two.attempt, two.created.tzinfo
        )  # fmt: skip


class TestWhatIsNotPlain:
    @pytest.mark.parametrize(
        "value",
        [
            2**64,
            -(2**63) - 1,
            10**5000,
            1.5,
            b"bytes",
            "é",
            "\ud800",
            [1],
            (1,),
            {"a": 1},
            Name("tea"),
            Count(1),
            Colour.RED,
            Word.YES,
            mark_safe("tea"),
            gettext_lazy("tea"),
            SimpleLazyObject(customer),
            first,
            object(),
            Customer(pk=42),
            customer("42"),
            customer(True),
            customer(None),
            customer(2**64),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_it_takes_the_long_way(self, value):
        assert plain.text_of(value) is None
        assert at_once(None, {"item": value}) is None

    @pytest.mark.parametrize("value", [True, False, 0, 1, 2**64 - 1, -(2**63), "", "tea", None, Customer])
    def test_these_are(self, value):
        assert plain.text_of(value) is not None

    def test_a_bool_is_no_number(self):
        assert [plain.text_of(value) for value in (True, 1, False, 0)] == ["true", "1", "false", "0"]

    def test_two_rows_take_the_long_way_for_they_may_be_one(self):
        one = customer()
        for other in (one, customer(), customer(43), customer(model=Regular)):
            assert at_once(None, {"a": one, "b": other}) is None

    def test_an_instance_that_sends_takes_the_long_way(self):
        assert at_once(customer(), {"a": 1}) is None
        assert at_once(SimpleLazyObject(customer), {"a": 1}) is None

    def test_snapshots_and_reduced_arguments_take_the_long_way(self):
        assert arguments(snapshot=True).text({"instance": customer()}) is None
        assert arguments(environ=lambda encoder, value: None).text({"environ": "x"}) is None

    def test_carriers_take_the_long_way(self):
        context.register_carrier("tenant", capture=lambda: "acme", restore=lambda value: nullcontext())
        try:
            assert at_once(None, {"a": 1}) is None
            assert '"tenant":"acme"' in both(None, {"a": 1})[1]
        finally:
            context.unregister_carrier("tenant")
        assert at_once(None, {"a": 1}) is not None

    def test_types_with_a_codec_of_the_projects_take_the_long_way(self):
        for kind in (Own, OwnName):
            assert plain.text_of(kind()) is None
            register_codec(kind, encode=lambda value: "own", decode=lambda data: kind())  # noqa: B023
            assert plain.text_of(kind()) is None
            assert "own" in both(None, {"a": kind()})[1]

    def test_a_codec_that_is_registered_later_is_heeded(self, request):
        for table in (base._exact, base._families, base.tags, base._found, base.writers, base.found_writers):

            def restore(table: Any = table, before: Any = dict(table)) -> None:  # noqa: B006 - a copy of its own each
                table.clear()
                table.update(before)

            request.addfinalizer(restore)
        row, encoder = customer(), arguments()
        assert at_once(None, {"a": row}, encoder) == at_once(None, {"a": row}, encoder) == both(None, {"a": row})[1]
        register_codec(Customer, encode=lambda value: "mine", decode=lambda data: row, tag="later")
        assert plain.text_of(row) is None
        assert at_once(None, {"a": row}, encoder) is None
        assert '{"$later":"mine"}' in both(None, {"a": row})[1]

    def test_names_of_arguments_are_not_remembered_without_end(self, monkeypatch):
        monkeypatch.setattr(plain, "_names", {})
        monkeypatch.setattr(plain, "_MOST_NAMES", 3)
        for number in range(5):
            assert plain.text_of_arguments({f"name{number}": 1}) == f'{{"name{number}":1}}'
        assert len(plain._names) == 3

    def test_a_class_that_the_registry_does_not_have_takes_the_long_way(self):
        class Meta:
            app_label, apps, proxy = "shop", Apps(), True

        historical = type("Customer", (Customer,), {"__module__": __name__, "Meta": Meta})
        assert plain.text_of(historical) is None
        assert plain.text_of(customer(model=historical)) is None


@pytest.mark.django_db(transaction=True)
class TestSends:
    """Whole sends: what makes an envelope special takes the long way, whatever its arguments."""

    @pytest.mark.parametrize("given_", [{}, {"expires": 60}, {"coalesce": True}, {"instance": "snapshot"}], ids=str)
    def test_what_arrives_is_the_same(self, given_, link, memory, calls):
        link(post_save, on_instance, Customer, **given_)
        ada = Customer.objects.create(name="Ada")
        memory.deliver()
        ((_, sender, kwargs),) = calls
        assert (sender, kwargs["instance"], kwargs["created"], kwargs["raw"]) == (Customer, ada, True, False)

    def test_a_deleted_row_travels_as_it_was(self, link, memory, calls):
        link(post_delete, on_instance, Customer)
        Customer.objects.create(name="Ada").delete()
        memory.deliver()
        assert calls[0][2]["instance"].name == "Ada"

    def test_what_is_too_large_takes_the_long_way_where_it_is_said(self, link, settings):
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "MAX_SIZE": 1000}
        with pytest.raises(ValueError, match="MAX_SIZE is 1,000"):
            bell.send(sender=None, item="x" * 1000)
