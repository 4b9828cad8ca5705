"""The panel of django-debug-toolbar: what a request has sent, and which inline receivers it has waited for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django import dispatch
from django.db import transaction
from django.db.models.signals import post_save
from django.test import AsyncClient, Client
from django.utils.safestring import mark_safe

from deferred_signals import Signal, keeping, registry
from deferred_signals.debug_toolbar import DeferredSignalsPanel, watching
from deferred_signals.debug_toolbar.recording import Recording
from deferred_signals.deferred_receiver import DeferredReceiver
from deferred_signals.exceptions import EncodeError
from deferred_signals.outbox.backend import DatabaseOutbox
from deferred_signals.signals import delivery_unpublished
from tests.observability.toolbar_views import inquiries, rung
from tests.receivers import asynchronous, first, on_instance, on_item, second
from tests.shop.models import Customer

SECRET = "hunter2"

pytestmark = pytest.mark.django_db(transaction=True)

PLAIN = {name: vars(dispatch.Signal)[name] for name in ("send", "send_robust", "asend", "asend_robust")}
CALL = vars(DeferredReceiver)["__call__"]


@pytest.fixture(autouse=True)
def toolbar(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.STATIC_URL = "/static/"
    settings.TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.staticfiles", "debug_toolbar"]
    settings.MIDDLEWARE = ["debug_toolbar.middleware.DebugToolbarMiddleware"]
    settings.ROOT_URLCONF = "tests.observability.toolbar_urls"
    # Here, for the toolbar has a model, and its application is installed only now.
    from debug_toolbar.store import MemoryStore

    MemoryStore.clear()
    inquiries.clear()
    # To install an application has the others made ready once more, and so the outbox.
    monkeypatch.setattr(keeping, "_outbox", None)
    yield
    inquiries.clear()
    assert {name: vars(dispatch.Signal)[name] for name in PLAIN} == PLAIN, "something was left replaced"
    assert vars(DeferredReceiver)["__call__"] is CALL


def is_shown(request: Any) -> bool:
    return "hidden" not in request.GET


def stored() -> dict[str, Any]:
    """What the toolbar keeps of the last request, from its JSON."""
    from debug_toolbar.store import MemoryStore

    found: dict[str, Any] = MemoryStore.panel(list(MemoryStore.request_ids())[-1], "DeferredSignalsPanel")
    return found


def ask(url: str = "/page/", **more: Any) -> dict[str, Any]:
    """What the panel has of a request to that view."""
    response = Client(**more).get(url)
    assert response.status_code == 200
    return stored()


def states(stats: dict[str, Any]) -> list[str]:
    return [one["state"] for one in stats["deliveries"]]


def slow(sender: Any, **kwargs: Any) -> None: ...


class Nothing:
    def __call__(self, sender: Any, **kwargs: Any) -> None: ...


class TestADelivery:
    def test_is_shown_with_the_shapes_of_its_arguments_and_none_of_their_values(self, link):
        link(rung, first)
        sent: list[Any] = []
        customer = Customer(name=SECRET)
        inquiries.append(lambda: sent.extend(rung.send(sender=None, number=7, password=SECRET, who=customer)))
        stats = ask()
        [one] = stats["deliveries"]
        [(_, delivery)] = sent
        assert one.pop("milliseconds") >= 0
        assert one == {
            "receiver": "tests.receivers.first",
            "signal": "tests.observability.toolbar_views.rung",
            "shapes": [
                {"name": "number", "type": "int"},
                {"name": "password", "type": "str"},
                {"name": "who", "type": "shop.Customer"},
            ],
            "size": len(delivery.text.encode()),
            "state": "published",
            "durable": False,
            "error": "",
            "id": delivery.id,
        }
        assert (stats["count"], stats["bytes"], stats["more"]) == (1, one["size"], 0)
        assert SECRET not in json.dumps(stats)

    def test_waits_for_the_commit_and_is_published_by_it(self, link):
        link(rung, first)
        inquiries.append(lambda: rung.send(sender=None))
        assert states(ask("/committed/")) == ["published"]

    def test_of_a_transaction_that_is_open_when_the_request_is_over_waits(self, link):
        link(rung, first)
        inquiries.append(lambda: rung.send(sender=None))
        with transaction.atomic():
            assert states(ask()) == ["waiting for commit"]

    def test_of_a_savepoint_that_is_rolled_back_is_told_from_one_that_is_not(self, link):
        link(rung, first)
        inquiries.append(lambda: rung.send(sender=None))
        assert states(ask("/rolled-back/")) == ["rolled back", "published"]

    def test_that_cannot_be_published_says_so(self, link, memory, monkeypatch):
        monkeypatch.setattr(memory, "publish", lambda given: [(one, OSError(SECRET)) for one in given])
        link(rung, first)
        inquiries.append(lambda: rung.send(sender=None))
        assert states(ask()) == ["unpublished"]

    @pytest.mark.parametrize("url", ["/page/", "/committed/"])
    def test_that_could_not_be_published_and_is_kept_says_so(self, link, memory, monkeypatch, url):
        monkeypatch.setattr(memory, "publish", lambda given: [(one, OSError("gone")) for one in given])
        monkeypatch.setattr(keeping, "_outbox", DatabaseOutbox())
        link(rung, first)
        inquiries.append(lambda: rung.send(sender=None))
        assert states(ask(url)) == ["kept in the outbox"]

    def test_that_is_durable_says_so_and_has_no_size_for_it_is_in_the_database_by_then(self, link, monkeypatch):
        monkeypatch.setattr(keeping, "_outbox", DatabaseOutbox())
        link(rung, first, durable=True)
        inquiries.append(lambda: rung.send(sender=None))
        stats = ask("/committed/")
        assert [(one["state"], one["durable"], one["size"]) for one in stats["deliveries"]] == [
            ("published", True, None)
        ]
        assert stats["bytes"] == 0

    def test_that_is_not_made_since_when_says_no_is_shown_as_none(self, link):
        link(rung, first, when=_never)
        inquiries.append(lambda: rung.send(sender=None))
        [one] = ask()["deliveries"]
        assert (one["state"], one["id"], one["size"]) == ("none made", None, None)

    def test_that_is_refused_is_shown_with_the_type_of_the_error(self, link):
        link(rung, on_item)

        def send() -> None:
            with pytest.raises(EncodeError):
                rung.send(sender=None, item=object())

        inquiries.append(send)
        [one] = ask()["deliveries"]
        assert (one["state"], one["error"]) == ("refused", "EncodeError")
        assert one["shapes"] == [{"name": "item", "type": "object"}]

    def test_of_a_signal_without_a_name_is_shown_all_the_same(self, link):
        nameless: Any = [Signal()]
        link(nameless[0], second)
        inquiries.append(lambda: nameless[0].send(sender=None))
        [one] = ask()["deliveries"]
        assert one["signal"] == "a signal without a name"

    def test_too_large_to_be_made_is_none(self, link, settings):
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "MAX_SIZE": 300}
        link(rung, first, oversize="log")
        inquiries.append(lambda: rung.send(sender=None, text="x" * 1000))
        assert states(ask()) == ["none made"]

    def test_of_very_many_some_are_shown_and_all_are_counted(self, link):
        link(rung, first)
        inquiries.append(lambda: [rung.send(sender=None) for _ in range(230)])
        stats = ask()
        assert (stats["count"], len(stats["deliveries"]), stats["more"]) == (230, 200, 30)

    def test_by_send_robust_is_shown_too(self, link):
        link(rung, first)
        inquiries.append(lambda: rung.send_robust(sender=None))
        assert states(ask()) == ["published"]

    def test_that_is_made_without_a_send_of_djangos_is_shown_too(self, link):
        link(rung, first)
        [stand_in] = registry.get("tests.receivers.first").connections()
        inquiries.append(lambda: stand_in(signal=rung, sender=None))
        assert states(ask()) == ["published"]

    def test_of_one_of_djangos_signals_is_shown(self, link):
        link(post_save, on_instance, Customer)
        inquiries.append(lambda: Customer.objects.create(name=SECRET))
        [one] = ask()["deliveries"]
        assert one["signal"] == "django.db.models.signals.post_save"
        assert {"name": "instance", "type": "shop.Customer"} in one["shapes"]


def _never(**kwargs: Any) -> bool:
    return False


class TestInlineReceivers:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """In the place of the time: seconds that pass are put into it."""
        now = [0.0]
        monkeypatch.setattr("time.perf_counter", lambda: now[0])
        return now

    def test_that_take_long_could_be_deferred(self, link, clock):
        def receiver(sender: Any, **kwargs: Any) -> None:
            clock[0] += 0.25

        link(rung, receiver, deferred=False)
        inquiries.append(lambda: rung.send(sender=Customer, password=SECRET))
        stats = ask()
        [send] = [one for one in stats["sends"] if one["signal"].endswith("rung")]
        assert send == {
            "signal": "tests.observability.toolbar_views.rung",
            "sender": "tests.shop.models.Customer",
            "receivers": [f"{__name__}.{receiver.__qualname__}"],
            "milliseconds": 250,
            "is_slow": True,
        }
        assert "This could be deferred" in content()
        assert SECRET not in content()

    def test_below_the_threshold_are_not_marked_which_is_a_setting(self, link, clock, settings):
        def receiver(sender: Any, **kwargs: Any) -> None:
            clock[0] += 0.25

        settings.DEBUG_TOOLBAR_CONFIG = {
            **settings.DEBUG_TOOLBAR_CONFIG,
            "DEFERRED_SIGNALS_INLINE_THRESHOLD": 300,
        }
        link(rung, receiver, deferred=False)
        inquiries.append(lambda: rung.send(None))
        stats = ask()
        assert [one["is_slow"] for one in stats["sends"] if one["signal"].endswith("rung")] == [False]
        assert stats["threshold"] == 300

    def test_are_not_charged_for_what_deferred_ones_cost(self, link, clock, memory, monkeypatch):
        publish = memory.publish

        def slowly(given: Any) -> Any:
            clock[0] += 3
            return publish(given)

        monkeypatch.setattr(memory, "publish", slowly)
        link(rung, slow, deferred=False)
        link(rung, first)
        inquiries.append(lambda: rung.send(sender=None))
        stats = ask()
        assert [one["milliseconds"] for one in stats["deliveries"]] == [3000]
        assert [one["milliseconds"] for one in stats["sends"] if one["signal"].endswith("rung")] == [0]

    def test_and_senders_without_a_name_are_shown_by_their_types(self, link):
        nothing = Nothing()
        rung.connect(nothing)
        inquiries.append(lambda: rung.send(sender=SECRET))
        [send] = [one for one in ask()["sends"] if one["signal"].endswith("rung")]
        rung.disconnect(nothing)
        assert (send["receivers"], send["sender"]) == ([f"{__name__}.Nothing"], "builtins.str")

    def test_of_our_own_are_not_shown(self, link, memory, monkeypatch):
        link(rung, first)
        inquiries.append(lambda: rung.send(sender=None))
        assert not [one for one in ask()["sends"] if "delivery_" in one["signal"]]
        monkeypatch.setattr(memory, "publish", lambda given: [(one, OSError()) for one in given])
        assert not [one for one in ask()["sends"] if "delivery_" in one["signal"]]

    def test_that_raise_raise_as_ever(self, link):
        def fail(sender: Any, **kwargs: Any) -> None:
            raise LookupError("its own")

        def send() -> None:
            with pytest.raises(LookupError, match="its own"):
                rung.send(sender=None)

        link(rung, fail, deferred=False)
        inquiries.append(send)
        assert not [one for one in ask()["sends"] if one["signal"].endswith("rung")]


def content() -> str:
    """What the panel shows of the last request, as the browser fetches it."""
    from debug_toolbar.store import MemoryStore

    key = list(MemoryStore.request_ids())[-1]
    query = {"request_id": key, "panel_id": "DeferredSignalsPanel"}
    found: str = Client().get("/__debug__/render_panel/", query).json()["content"]
    return found


class TestThePage:
    def test_has_the_panel_and_what_it_shows_can_be_fetched(self, link):
        link(rung, first)
        inquiries.append(lambda: rung.send(sender=None, password=SECRET))
        page = Client().get("/page/").content.decode()
        assert "DeferredSignalsPanel" in page
        assert "1 delivery" in page
        shown = content()
        assert "tests.receivers.first" in shown
        assert "password: str" in shown
        assert "published" in shown
        assert SECRET not in page + shown

    def test_of_a_request_that_sends_nothing_says_so(self):
        Client().get("/page/")
        assert "Nothing was sent to a deferred receiver." in content()

    def test_says_below_the_panels_name_how_many_sends_were_slow(self, link, settings):
        settings.DEBUG_TOOLBAR_CONFIG = {**settings.DEBUG_TOOLBAR_CONFIG, "DEFERRED_SIGNALS_INLINE_THRESHOLD": 0}
        link(rung, slow, deferred=False)
        link(rung, first)
        inquiries.append(lambda: [rung.send(sender=None) for _ in range(2)])
        page = Client().get("/page/").content.decode()
        count = len(stored()["sends"])
        assert count >= 2
        assert f"2 deliveries, {count} slow sends" in page

    def test_shows_names_as_text_whatever_is_in_them(self, link):
        link(rung, first)
        inquiries.append(lambda: rung.send(sender=None, **{"<script>x": 1, mark_safe("<i>y"): 2}))
        Client().get("/page/")
        shown = content()
        assert "&lt;script&gt;x: int" in shown
        assert "<script>" not in shown
        assert "<i>y" not in shown

    def test_of_an_earlier_request_is_in_the_history(self, link):
        link(rung, first)
        inquiries.append(lambda: rung.send(sender=None))
        ask()
        from debug_toolbar.store import MemoryStore

        earlier = list(MemoryStore.request_ids())[-1]
        inquiries.clear()
        ask()
        answer = Client().get("/__debug__/history_sidebar/", {"request_id": earlier, "exclude_history": "true"}).json()
        assert "1 delivery" in answer["DeferredSignalsPanel"]["button"]
        assert DeferredSignalsPanel.panel_id == "DeferredSignalsPanel"

    def test_has_the_cost_among_the_timings_of_its_header(self, link):
        link(rung, first)
        inquiries.append(lambda: rung.send(sender=None))
        header = Client().get("/page/").headers["Server-Timing"]
        assert "DeferredSignalsPanel_send" in header


class TestWithoutThePanel:
    def test_a_request_that_has_no_toolbar_is_not_watched(self, link):
        from debug_toolbar.store import MemoryStore

        link(rung, first)
        seen: list[Any] = []
        inquiries.append(lambda: seen.append(vars(dispatch.Signal)["send"]))
        inquiries.append(lambda: rung.send(sender=None))
        Client().get("/page/?hidden")
        assert list(MemoryStore.request_ids()) == []
        assert seen == [PLAIN["send"]]

    def test_a_user_who_switched_it_off_is_not_watched(self, link):
        link(rung, first)
        inquiries.append(lambda: rung.send(sender=None))
        client = Client()
        client.cookies["djdtDeferredSignalsPanel"] = "off"
        client.get("/page/")
        assert stored() == {}

    def test_another_request_at_the_same_time_is_not_in_it(self, link):
        link(rung, first)
        assert ask("/thread/")["count"] == 0

    def test_a_view_that_fails_leaves_nothing_behind(self, link):
        def fail() -> None:
            raise LookupError

        inquiries.append(fail)
        with pytest.raises(LookupError):
            Client().get("/page/")
        assert watching._replaced == {}

    def test_two_at_a_time_put_the_methods_back_when_the_last_is_over(self):
        one, other = Recording(), Recording()
        watching.begin(one)
        watching.begin(other)
        watching.end(one)
        assert vars(dispatch.Signal)["send"] is not PLAIN["send"]
        watching.end(other)
        assert vars(dispatch.Signal)["send"] is PLAIN["send"]

    async def test_coroutines_that_are_not_watched_send_as_ever_beside_one_that_is(self, link):
        link(rung, first)
        one = Recording()
        watching.begin(one)
        watching._current.set(None)
        [(_, delivery)] = await rung.asend(sender=None)
        rung.send(sender=None)
        delivery_unpublished.send(sender=None, delivery=delivery, error=OSError())
        watching.end(one)
        assert (one.sent, one.inline, one.heard) == ([], [], {})

    def test_to_switch_it_on_or_off_twice_is_once(self, rf):
        from debug_toolbar.toolbar import DebugToolbar

        request = rf.get("/page/")
        panel = DebugToolbar(request, _answer).get_panel_by_id("DeferredSignalsPanel")
        panel.generate_stats(request, None)
        panel.generate_server_timing(request, None)
        assert panel.get_stats() == panel.get_server_timing_stats() == {}
        panel.enable_instrumentation()
        panel.enable_instrumentation()
        assert len(watching._watching) == 1
        panel.disable_instrumentation()
        panel.disable_instrumentation()
        assert watching._watching == set()


def _answer(request: Any) -> Any:
    return None


class TestAsync:
    @pytest.mark.parametrize("robust", [False, True])
    async def test_views_are_shown_with_what_they_send(self, link, monkeypatch, robust):
        link(rung, first)
        link(rung, slow, deferred=False)
        link(rung, asynchronous, deferred=False)
        if robust:
            monkeypatch.setattr(type(rung), "asend", lambda self, *args, **named: self.asend_robust(*args, **named))
        response = await AsyncClient().get("/async/")
        assert response.status_code == 200
        stats = stored()
        assert states(stats) == ["published"]
        [send] = [one for one in stats["sends"] if one["signal"].endswith("rung")]
        assert set(send["receivers"]) == {f"{__name__}.slow", "tests.receivers.asynchronous"}

    async def test_views_of_which_the_send_fails_fail_as_ever(self, link):
        def fail(sender: Any, **kwargs: Any) -> None:
            raise LookupError("its own")

        link(rung, fail, deferred=False)
        with pytest.raises(LookupError, match="its own"):
            await AsyncClient().get("/async/")
