"""What travels beside the kwargs: captured at the send, restored around the receiver, and gone after it."""

from __future__ import annotations

import contextvars
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone, translation
from django.utils.autoreload import file_changed
from django.utils.translation import trans_real
from django.utils.translation.reloader import translation_file_changed

from deferred_signals import Discard, NotCarried, Signal, context, localisation, register_carrier
from deferred_signals.attempt import run
from deferred_signals.envelope import seal
from deferred_signals.exceptions import ConnectError, EncodeError, UnknownName
from tests import receivers
from tests.receivers import curious, first, troubled
from tests.shop.models import Customer

rang: Any = Signal()
tenant: contextvars.ContextVar[Any] = contextvars.ContextVar("tenant", default=None)


@contextmanager
def inside(value: Any) -> Iterator[None]:
    token = tenant.set(value)
    try:
        yield
    finally:
        tenant.reset(token)


@pytest.fixture
def carry() -> Iterator[Callable[..., None]]:
    """Register carriers until the end of the test."""
    names: list[str] = []

    def one(name: str = "tenant", capture: Any = tenant.get, restore: Any = inside) -> None:
        register_carrier(name, capture=capture, restore=restore)
        names.append(name)

    yield one
    for name in reversed(names):
        context.unregister_carrier(name)


@pytest.fixture
def seen(link) -> list[Any]:
    """The tenant that each run of a receiver of ``rang`` was in."""
    link(rang, curious)
    found: list[Any] = []
    receivers.inquiries.append(lambda **kwargs: found.append(tenant.get()))
    return found


class TestCarriers:
    def test_what_was_active_at_the_send_is_active_around_the_receiver_and_not_after_it(self, carry, memory, seen):
        carry()
        for name in ("acme", None, "globex"):
            with inside(name):
                rang.send(sender=None)
        memory.deliver()
        assert seen == ["acme", None, "globex"]
        assert tenant.get() is None

    def test_anything_that_can_travel_can_be_captured(self, carry, memory, seen):
        carry()
        with inside({"ids": (1, 2)}):
            rang.send(sender=None)
        memory.deliver()
        assert seen == [{"ids": (1, 2)}]

    def test_what_cannot_travel_is_told_at_the_send(self, carry, seen):
        carry()
        with inside({"lock": threading.Lock()}), pytest.raises(EncodeError, match=r"^context\['tenant'\]\['lock'\] "):
            rang.send(sender=None)

    def test_carriers_are_entered_in_order_and_left_in_reverse(self, carry, memory, link):
        said: list[str] = []

        def noted(name: str) -> Any:
            @contextmanager
            def restore(value: Any) -> Iterator[None]:
                said.append(f"enter {name} {value}")
                yield
                said.append(f"leave {name}")

            return restore

        carry("a", lambda: 1, noted("a"))
        carry("b", lambda: 2, noted("b"))
        link(rang, first)
        rang.send(sender=None)
        memory.deliver()
        assert said == ["enter a 1", "enter b 2", "leave b", "leave a"]

    @pytest.mark.django_db(transaction=True)
    def test_the_arguments_and_later_carriers_are_decoded_inside_of_earlier_ones(self, carry, memory, link, calls):
        queried: list[Any] = []

        @contextmanager
        def restore(customer: Any) -> Iterator[None]:
            queried.append((tenant.get(), customer.name))
            yield

        ada = Customer.objects.create(name="Ada")
        carry()
        carry("customer", lambda: ada, restore)
        link(rang, first)
        with inside("acme"):
            rang.send(sender=None, instance=ada)
        memory.deliver()
        assert queried == [("acme", "Ada")]
        assert calls[0][2]["instance"] == ada

    def test_a_worker_without_the_carrier_waits_for_a_release(self, carry, memory, seen):
        carry()
        rang.send(sender=None)
        context.unregister_carrier("tenant")
        ((_, outcome),) = memory.deliver()
        assert (outcome.state, type(outcome.error)) == ("retry", UnknownName)
        assert seen == []
        register_carrier("tenant", capture=tenant.get, restore=inside)
        ((_, outcome),) = memory.deliver()
        assert outcome.state == "succeeded"

    def test_a_message_from_before_the_carrier_runs_without_it(self, carry, memory, seen):
        rang.send(sender=None)
        carry()
        ((_, outcome),) = memory.deliver()
        assert (outcome.state, seen) == ("succeeded", [None])

    def test_restore_may_discard(self, carry, memory, seen):
        def gone(value: Any) -> Any:
            raise Discard("the tenant is gone")

        carry(restore=gone)
        rang.send(sender=None)
        ((_, outcome),) = memory.deliver()
        assert (outcome.state, outcome.reason, seen) == ("discarded", "the tenant is gone", [])

    def test_what_restore_raises_counts_as_raised_by_the_receiver(self, carry, memory, link, calls):
        def fails(value: Any) -> Any:
            raise ValueError

        carry(restore=fails)
        link(rang, first, max_retries=1)
        rang.send(sender=None)
        states = [outcome.state for _ in range(3) for _, outcome in memory.deliver()]
        assert (states, calls) == (["retry", "dead"], [])

    @pytest.mark.django_db(transaction=True, databases=["default", "other"])
    def test_a_database_that_is_away_when_a_carrier_is_restored_is_waited_for(self, carry, memory, link):
        def away(value: Any) -> Any:
            raise OperationalError

        carry(restore=away)
        link(rang, first, max_retries=0)
        rang.send(sender=None)
        ((_, outcome),) = memory.deliver()
        assert (outcome.state, outcome.reason) == ("retry", "the database did not answer")

    def test_what_is_raised_on_leaving_is_logged_and_the_receiver_is_not_run_again(self, carry, memory, link, caplog):
        @contextmanager
        def fails(value: Any) -> Iterator[None]:
            yield
            raise ValueError("cannot leave")

        carry(restore=fails)
        link(rang, first)
        rang.send(sender=None)
        ((_, outcome),) = memory.deliver()
        assert outcome.state == "succeeded"
        assert "its context could not be left" in caplog.text
        assert not memory.payloads

    def test_a_carrier_is_left_when_the_receiver_fails(self, carry, memory, link):
        left: list[Any] = []

        @contextmanager
        def restore(value: Any) -> Iterator[None]:
            yield
            left.append(value)

        carry("number", lambda: 7, restore)
        link(rang, troubled, max_retries=0)
        receivers.troubles.append(ValueError())
        rang.send(sender=None)
        ((_, outcome),) = memory.deliver()
        assert (outcome.state, left) == ("dead", [7])

    def test_what_capture_raises_is_raised_by_the_send(self, carry, seen, memory):
        def broken() -> Any:
            raise LookupError("no tenant here")

        carry(capture=broken)
        with pytest.raises(LookupError, match="no tenant here"):
            rang.send(sender=None)
        assert not memory.payloads

    def test_what_could_not_travel_can_be_captured_again(self, carry, memory, seen):
        carry()
        with inside(NotCarried("kwargs['x']", "Lock", "it is a lock")):
            rang.send(sender=None)
        memory.deliver()
        assert isinstance(seen[0], NotCarried)

    @pytest.mark.parametrize("name", ["language", "timezone"])
    def test_the_names_of_djangos_own_are_taken(self, name):
        with pytest.raises(ConnectError, match=f"'{name}' already"):
            register_carrier(name, capture=tenant.get, restore=inside)

    def test_a_name_is_for_one_carrier_which_may_be_registered_again(self, carry):
        carry()
        register_carrier("tenant", capture=tenant.get, restore=inside)
        with pytest.raises(ConnectError, match="'tenant' already"):
            register_carrier("tenant", capture=lambda: 1, restore=inside)

    @pytest.mark.parametrize("given", [{"name": ""}, {"name": 3}, {"capture": None}, {"restore": "inside"}])
    def test_what_is_no_carrier_is_refused(self, given):
        with pytest.raises(ConnectError, match="carrier"):
            register_carrier(**{"name": "x", "capture": tenant.get, "restore": inside, **given})

    def test_a_context_of_nonsense_runs_nothing(self, link, memory, calls):
        link(rang, first)
        rang.send(sender=None)
        delivery, _ = memory.payloads.pop()
        _, outcome = run(seal(json.dumps({**json.loads(delivery.text), "context": {"language": {"$model": "x.y"}}})))
        assert outcome.state in {"retry", "dead"}
        assert calls == []


class TestLeaks:
    def test_what_a_receiver_leaves_in_a_context_variable_is_not_for_the_next_one(self, link, memory):
        found: list[Any] = []

        def careless(**kwargs: Any) -> None:
            found.append((tenant.get(), translation.get_language(), timezone.get_current_timezone_name()))
            tenant.set("leaked")
            translation.activate("de")
            timezone.activate("Asia/Tokyo")

        link(rang, curious)
        receivers.inquiries.append(careless)
        rang.send(sender=None)
        rang.send(sender=None)
        memory.deliver()
        assert found == [(None, "en", "Europe/Vienna")] * 2
        assert (tenant.get(), translation.get_language()) == (None, "en")


def captured() -> tuple[Any, Any]:
    found, _ = localisation.capture()
    return found["language"], found["timezone"]


class TestLanguageAndTimeZone:
    """They are read again only when something has changed, and every change must be seen."""

    def test_they_are_not_read_again_while_nothing_changes(self, monkeypatch):
        localisation.capture()
        asked: list[None] = []
        monkeypatch.setattr(translation, "get_language", lambda: asked.append(None))
        assert captured() == ("en", "Europe/Vienna")
        assert asked == []

    def test_every_way_of_changing_them_is_seen(self, settings):
        assert captured() == ("en", "Europe/Vienna")
        with translation.override("de"):
            assert captured() == ("de", "Europe/Vienna")
            with timezone.override("Asia/Tokyo"):
                assert captured() == ("de", "Asia/Tokyo")
                translation.activate("fr")
                assert captured() == ("fr", "Asia/Tokyo")
                timezone.activate("UTC")
                assert captured() == ("fr", "UTC")
                timezone.deactivate()
                assert captured() == ("fr", "Europe/Vienna")
                translation.deactivate_all()
                assert captured()[0] is None
                translation.deactivate()
                assert captured()[0] == "en"
        assert captured() == ("en", "Europe/Vienna")

    def test_settings_that_change_are_seen(self, settings):
        captured()
        settings.TIME_ZONE = "Asia/Tokyo"
        settings.LANGUAGE_CODE = "de"
        assert captured() == ("de", "Asia/Tokyo")

    def test_a_language_is_seen_after_a_file_of_translations_has_changed(self, monkeypatch):
        """Then Django, under runserver, keeps the language in another variable, and does not restart."""
        for name in ("_active", "_default", "_translations"):
            monkeypatch.setattr(trans_real, name, getattr(trans_real, name))
        monkeypatch.setattr("gettext._translations", {})
        monkeypatch.setattr(localisation, "_watch", None)
        # As Django does with the first word that it translates.
        file_changed.connect(translation_file_changed, dispatch_uid="translation_file_changed")
        captured()
        assert any(found for _, found in file_changed.send(None, file_path=Path("locale/de/LC_MESSAGES/django.mo")))
        with translation.override("de"):
            assert captured()[0] == "de"
        assert captured()[0] == "en"

    def test_an_asgiref_that_makes_new_variables_is_asked_each_time(self, monkeypatch):
        """Before 3.9 it forgot a variable when its value was deleted."""
        monkeypatch.setattr(localisation, "_keeps_its_variable", lambda: False)
        monkeypatch.setattr(localisation, "_watch", None)
        for language in ("de", "fr"):
            with translation.override(language):
                assert captured()[0] == language
        assert captured()[0] == "en"

    def test_threads_have_their_own(self):
        found: list[Any] = []
        with translation.override("de"):
            captured()
            thread = threading.Thread(target=lambda: found.append(captured()))
            thread.start()
            thread.join()
            assert captured()[0] == "de"
        assert found == [("en", "Europe/Vienna")]

    async def test_coroutines_have_their_own(self):
        import asyncio

        async def one(language: str) -> str:
            with translation.override(language):
                captured()
                await asyncio.sleep(0)
                return str(captured()[0])

        assert list(await asyncio.gather(one("de"), one("fr"), one("it"))) == ["de", "fr", "it"]
