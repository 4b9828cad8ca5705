"""The map of signals: what is found, and how it is drawn."""

from __future__ import annotations

import functools
import gc
import itertools
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from celery import Celery
from celery.app import app_or_default
from django.apps import apps
from django.apps.registry import Apps
from django.contrib.auth.models import User
from django.db.models import Model
from django.db.models.signals import post_migrate, post_save
from django.dispatch import Signal as DjangoSignal
from django.utils.functional import SimpleLazyObject

from deferred_signals import Signal, signal_map
from deferred_signals.deferred_receiver import DeferredReceiver
from deferred_signals.signal_map import Connection, SignalMap, as_mermaid, as_svg, collect, names
from deferred_signals.signal_map.connection import shown
from deferred_signals.signal_map.layout import LONGEST, cut, width_of
from deferred_signals.signal_map.receiver_lists import ANY, entries
from tests import receivers

knock = Signal()
ring = DjangoSignal()
HERE = "tests.test_signal_map"
BASE = "django.db.models.base.Model"


class Door:
    """A sender that is neither a model nor an app."""

    def opens(self, **kwargs: Any) -> None: ...

    @classmethod
    def of_class(cls, **kwargs: Any) -> None: ...

    def __call__(self, **kwargs: Any) -> None: ...


door = Door()


def inline(**kwargs: Any) -> None: ...


def waits(**kwargs: Any) -> None: ...


def of(signal: str = HERE, **given: Any) -> list[Connection]:
    return list(collect(signal=signal, **given).connections)


@pytest.fixture
def project(settings: Any) -> Iterator[Any]:
    """Make a project's Celery app the current one, and deliveries go through it."""
    before = app_or_default()
    settings.DEFERRED_SIGNALS = {"BACKEND": "celery"}

    def make(**conf: Any) -> Celery:
        app = Celery("project", broker="memory://", set_as_current=False, fixups=[])
        app.conf.update(conf)
        app.set_current()
        return app

    yield make
    before.set_current()


class TestTheShapeOfSignalReceivers:
    """``Signal.receivers`` is not public; these fail when its shape moves, and then the module is to be looked at."""

    def test_every_kind_of_receiver_is_read_with_its_sender(self, link):
        signal = DjangoSignal()
        signal.connect(inline)
        signal.connect(door.opens, sender=Door)
        signal.connect(inline, sender=door, weak=False, dispatch_uid="a name")
        link(signal, receivers.asynchronous, deferred=False)
        link(signal, receivers.first, User)
        read = list(entries(signal))
        assert None not in read
        found = [(one.receiver, one.sender_id) for one in read if one]
        assert found[:4] == [
            (inline, ANY),
            (door.opens, id(Door)),
            (inline, id(door)),
            (receivers.asynchronous, ANY),
        ]
        assert isinstance(found[4][0], DeferredReceiver)
        assert found[4][1] == id(User)

    def test_what_was_collected_is_left_out(self):
        signal = DjangoSignal()

        def short_lived(**kwargs: Any) -> None: ...

        signal.connect(short_lived)
        del short_lived
        gc.collect()
        assert list(entries(signal)) == []

    @pytest.mark.parametrize("entry", [None, 7, (), ("key", inline), (("key", 1), "text", True), (("a", "b"), inline)])
    def test_an_entry_of_another_shape_is_counted_and_no_error(self, entry, monkeypatch):
        monkeypatch.setattr(knock, "receivers", [entry])
        assert list(entries(knock)) == [None]
        assert collect().unread == 1

    def test_a_sender_that_django_holds_itself_is_taken(self, monkeypatch):
        """As Django 6 does, on whichever the tests run."""
        import weakref

        class Hidden: ...

        monkeypatch.setattr(knock, "receivers", [(("x", id(Hidden)), inline, weakref.ref(Hidden), False)])
        (found,) = of("knock")
        assert found.sender.endswith("Hidden")


class TestWhatIsFound:
    def test_an_inline_receiver_of_djangos_own_signal(self):
        (found,) = collect(receiver="update_last_login").connections
        assert found == Connection(
            "django.contrib.auth.signals.user_logged_in",
            "",
            "django.contrib.auth.models.update_last_login",
            deferred=False,
            apps=frozenset({"auth"}),
        )

    def test_a_deferred_receiver_with_the_options_that_differ(self, link):
        link(knock, receivers.first, User, max_retries=5, headers={"x": "secret"}, exclude=("b", "a"))
        (found,) = of()
        assert (found.signal, found.sender, found.receiver) == (f"{HERE}.knock", "auth.User", "tests.receivers.first")
        assert (found.deferred, found.queue, found.durable) == (True, "", False)
        assert found.options == {"max_retries": 5, "headers": ["x"], "exclude": ["a", "b"]}
        assert found.apps == {"auth"}

    def test_one_that_waits_for_its_model(self, link):
        # In a registry of its own: what waits in the real one, waits for ever.
        link(post_save, waits, "nowhere.Model", apps=Apps())
        (found,) = collect(receiver=f"{HERE}.waits").connections
        assert found.sender == "nowhere.Model"

    def test_a_signal_that_no_module_holds(self, link):
        link(Signal(), receivers.first)
        (found,) = collect(receiver="receivers.first").connections
        assert found.signal == "(Signal that no module holds)"

    def test_what_is_deferred_is_not_listed_as_inline_too(self, link):
        link(ring, receivers.first)
        assert [one.deferred for one in of()] == [True]

    def test_senders_of_all_kinds(self, link):
        app = apps.get_app_config("auth")
        for uid, sender in enumerate([None, User, User.groups.through, Door, door, inline, app, Model]):
            link(knock, inline, sender, deferred=False, dispatch_uid=uid)
        known = ["", "auth.User", "auth.User_groups", f"{HERE}.Door", f"{HERE}.door", f"{HERE}.inline", "auth", BASE]
        assert sorted(one.sender for one in of()) == sorted(known)

    def test_a_deferred_receiver_of_an_object(self, link):
        link(knock, receivers.first, door)
        assert [one.sender for one in of()] == [f"{HERE}.door"]

    def test_a_sender_that_nobody_holds_by_a_name_is_unknown(self, monkeypatch):
        monkeypatch.setattr(knock, "receivers", [(("x", 12345), inline, False), (("y", 12346), inline, False)])
        assert [one.sender for one in of()] == [names.UNKNOWN, names.UNKNOWN]

    @pytest.mark.parametrize(
        ("receiver", "name"),
        [
            (inline, f"{HERE}.inline"),
            (door.opens, f"{HERE}.Door.opens"),
            (Door.of_class, f"{HERE}.Door.of_class"),
            (door, f"{HERE}.Door"),
            (functools.partial(inline, x=1), f"{HERE}.inline (partial)"),
            (lambda **kwargs: None, f"{HERE}.TestWhatIsFound.<lambda>"),
            (sys.exit, "sys.exit"),
        ],
    )
    def test_an_inline_receiver_is_called_by_what_it_is(self, receiver, name):
        assert names.name_of_receiver(receiver) == name

    def test_no_lazy_object_of_a_module_is_evaluated(self, monkeypatch):
        def evaluated() -> Any:
            raise AssertionError

        module = ModuleType("lazy_things")
        module.thing = SimpleLazyObject(evaluated)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "lazy_things", module)
        monkeypatch.setattr(knock, "receivers", [(("x", 12345), inline, False)])
        assert of()[0].sender == names.UNKNOWN

    def test_durable_ones_by_their_option_and_by_the_setting(self, link, settings):
        link(knock, receivers.first, durable=True)
        link(knock, receivers.second)
        assert [one.durable for one in of()] == [True, False]
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "DURABLE": True}
        assert [one.durable for one in of()] == [True, True]
        settings.DEFERRED_SIGNALS = {"DURABLE": 7}
        assert [one.durable for one in of()] == [True, False]

    def test_their_order_is_that_of_their_names(self, link):
        link(ring, receivers.first)
        link(knock, receivers.second)
        link(knock, receivers.first)
        found = of()
        assert [(one.signal.rpartition(".")[2], one.receiver.rpartition(".")[2]) for one in found] == [
            ("knock", "first"),
            ("knock", "second"),
            ("ring", "first"),
        ]


class TestQueues:
    def test_are_where_celery_routes_to(self, link, project):
        project(task_default_queue="house")
        link(knock, receivers.first)
        link(knock, receivers.second, queue="letters")
        assert [one.queue for one in of()] == ["house", "letters"]
        link(ring, receivers.on_item)
        assert [one.queue for one in of()] == ["house", "letters", "house"]

    def test_of_an_exchange_that_only_the_broker_knows(self, link, project):
        from kombu import Exchange, Queue

        project(task_queues=[Queue("all", Exchange("news", type="topic"), routing_key="#")], task_default_queue="all")
        link(knock, receivers.first, exchange="news", routing_key="a.b")
        assert [one.queue for one in of()] == ["news/a.b"]

    def test_that_a_router_fails_to_tell_are_unknown(self, link, project):
        def fails(*args: Any, **kwargs: Any) -> None:
            raise LookupError

        project(task_routes=(fails,))
        link(knock, receivers.first)
        assert [one.queue for one in of()] == [""]

    def test_are_what_the_options_say_where_nothing_goes_through_celery(self, link, project):
        link(knock, receivers.first, queue="letters")
        app = Celery("unreadable", set_as_current=False, fixups=[])
        app.config_from_object("tests.nowhere.settings")
        app.set_current()
        assert [one.queue for one in of()] == ["letters"]


class TestFilters:
    def test_are_parts_of_names_in_any_case_and_hold_together(self, link):
        link(knock, receivers.first, User)
        link(ring, receivers.second)
        assert len(of(f"{HERE}.KNOCK")) == 1
        assert len(of(sender="user")) == 1
        assert len(of(receiver="SECOND")) == 1
        assert of(sender="user", receiver="second") == []

    def test_deferred_or_inline(self, link):
        link(knock, receivers.first)
        link(knock, inline, deferred=False)
        assert [one.receiver for one in of(deferred=True)] == ["tests.receivers.first"]
        assert [one.receiver for one in of(deferred=False)] == [f"{HERE}.inline"]

    def test_an_app_of_signal_sender_or_receiver(self, link):
        link(knock, receivers.first, User)
        link(post_migrate, receivers.second, apps.get_app_config("shop"))
        assert [one.receiver for one in of(app="auth")] == ["tests.receivers.first"]
        assert [one.sender for one in collect(app="shop", deferred=True).connections] == ["shop"]
        assert any(one.receiver.startswith("django.contrib.auth.") for one in collect(app="auth").connections)


class TestOptionsForAMachine:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (None, None),
            (1.5, 1.5),
            ((ValueError, LookupError), ["ValueError", "LookupError"]),
            (Celery, "celery.app.base.Celery"),
            (inline, f"{HERE}.inline"),
            (lambda **kwargs: True, f"{HERE}.TestOptionsForAMachine.<lambda>"),
            (door, f"{HERE}.Door"),
        ],
    )
    def test_are_what_json_can_say(self, value, text):
        assert shown(value) == text


def map_of(*connections: tuple[Any, ...], **given: Any) -> SignalMap:
    return SignalMap(
        tuple(
            Connection(signal, sender, receiver, **{"deferred": False, **given})
            for signal, sender, receiver in connections
        )
    )


ODD = [
    'say "hi"',
    "a[b](c){d}|e|",
    "<script>alert(1)</script>",
    "a & b; c # d %%{init: {}}%%",
    "`markdown` \\ end",
    "naïve.приём.受信者",
    "line\nbreak\x1b[2J\0\ud800",
    "",
    "end",
    "-->",
]

#: The part of Mermaid's grammar that a map may use.
NODE = re.compile(r'    [sgr]\d+(?:\["[^"]+"\]|\(\["[^"]+"\]\)):::(?:sender|signal|inline|deferred|durable)')
EDGE = re.compile(r'    [sg]\d+ (?:---|-->|-\.->|==>)(?:\|"[^"]+"\|)? [gr]\d+')
CLASS = re.compile(r"    classDef \w+ [\w:#,-]+")


class TestMermaid:
    def test_a_small_map(self):
        drawn = SignalMap(
            (
                Connection("shop.paid", "shop.Order", "shop.note", deferred=False),
                Connection("shop.paid", "shop.Order", "shop.mail", deferred=True, queue="post"),
                Connection("shop.paid", "", "shop.bill", deferred=True, durable=True),
            )
        ).mermaid()
        assert drawn.splitlines()[:-5] == [
            "flowchart LR",
            '    s0["any sender"]:::sender',
            '    s1["shop.Order"]:::sender',
            '    g0(["paid"]):::signal',
            '    g1(["paid"]):::signal',
            '    r0["shop.bill"]:::durable',
            '    r1["shop.mail"]:::deferred',
            '    r2["shop.note"]:::inline',
            "    s0 --- g0",
            "    s1 --- g1",
            '    g0 ==>|"deferred, durable"| r0',
            '    g1 -.->|"post"| r1',
            "    g1 --> r2",
        ]

    @pytest.mark.parametrize("odd", ODD)
    def test_no_name_ends_its_label_or_is_taken_for_a_word_of_the_language(self, odd):
        drawn = map_of((odd, odd, odd), deferred=True, queue=odd).mermaid()
        head, *rest = drawn.splitlines()
        assert head == "flowchart LR"
        assert [
            line for line in rest if not (NODE.fullmatch(line) or EDGE.fullmatch(line) or CLASS.fullmatch(line))
        ] == []
        for label in re.findall(r'"([^"]*)"', drawn):
            assert set(re.sub(r"#\d+;", "", label)) <= {*" ._-,/", *filter(str.isalnum, label)}

    def test_letters_of_all_languages_stay(self):
        assert as_mermaid.label("naïve.受信者") == "naïve.受信者"
        assert as_mermaid.label('"<') == "#34;#60;"

    def test_what_is_connected_twice_is_one_line(self):
        assert map_of(("a", "", "b"), ("a", "", "b")).mermaid().count(" --> ") == 1

    def test_nothing_connected_is_an_empty_chart(self):
        assert SignalMap(()).mermaid().startswith("flowchart LR\n    classDef")

    def test_it_is_the_same_for_the_same_map(self):
        assert collect().mermaid() == collect().mermaid()


SVG = "{http://www.w3.org/2000/svg}"


def read(drawing: str) -> ET.Element:
    drawing.encode("utf-8")
    return ET.fromstring(drawing)


class TestSVG:
    def test_every_name_is_in_it(self):
        drawn = read(map_of(("shop.paid", "shop.Order", "shop.note"), ("shop.paid", "", "shop.note")).svg())
        texts = [one.text for one in drawn.iter(f"{SVG}text")]
        assert texts == ["any sender", "shop.Order", "paid", "paid", "shop.note"]
        titles = [one.text for one in drawn.iter(f"{SVG}title")]
        assert titles[3:] == ["shop.paid, sent by any sender", "shop.paid, sent by shop.Order", "shop.note"]

    @pytest.mark.parametrize("odd", ODD)
    def test_is_well_formed_whatever_names_are(self, odd):
        drawn = map_of((odd, odd, odd), deferred=True, queue=odd).svg()
        assert "<script" not in drawn
        kinds = {one.tag.removeprefix(SVG) for one in read(drawn).iter()}
        assert kinds == {"svg", "title", "desc", "style", "rect", "path", "g", "text"}

    def test_the_manner_of_a_receiver_stands_in_its_box(self):
        drawn = SignalMap(
            (
                Connection("a", "", "one", deferred=True, queue="slow", durable=True),
                Connection("b", "", "one", deferred=True, queue="fast"),
                Connection("b", "", "two", deferred=True),
            )
        ).svg()
        boxes = {group.get("class", ""): group for group in read(drawn).iter(f"{SVG}g")}
        assert [one.text for one in boxes["durable"].iter(f"{SVG}text")] == ["one", "slow, durable; fast"]
        assert [one.text for one in boxes["deferred"].iter(f"{SVG}text")] == ["two", "deferred"]
        assert sorted(one.get("class", "") for one in read(drawn).iter(f"{SVG}path")) == [
            "deferred",
            "deferred",
            "durable",
            "sends",
            "sends",
        ]

    def test_no_two_boxes_overlap_and_all_are_inside(self):
        drawn = read(collect().svg())
        boxes = [
            tuple(float(one.get(name, "")) for name in ("x", "y", "width", "height"))
            for group in drawn.iter(f"{SVG}g")
            for one in group.iter(f"{SVG}rect")
        ]
        assert len(boxes) > 10
        for (x, y, width, height), (left, top, wide, high) in itertools.combinations(boxes, 2):
            assert x + width <= left or left + wide <= x or y + height <= top or top + high <= y
        assert max(x + width for x, _, width, _ in boxes) < float(drawn.get("width", ""))
        assert max(y + height for _, y, _, height in boxes) < float(drawn.get("height", ""))

    def test_light_and_dark(self):
        drawn = collect().svg()
        assert "@media (prefers-color-scheme: dark)" in drawn
        assert as_svg.STYLE in drawn

    def test_without_style_for_a_page_that_brings_its_own(self):
        assert "<style" not in collect().svg(style=False)

    def test_nothing_connected_is_an_empty_picture(self):
        drawn = read(SignalMap(()).svg())
        assert list(drawn.iter(f"{SVG}g")) == []

    def test_it_is_the_same_for_the_same_map(self):
        assert collect().svg() == collect().svg()

    def test_a_long_name_is_cut_at_its_beginning_and_stands_in_full_in_the_title(self):
        name = "a" * 50 + "." + "b" * 50
        drawn = map_of(("s", "", name)).svg()
        assert cut(name) == "…" + name[-LONGEST + 1 :]
        assert f">{cut(name)}</text>" in drawn
        assert f"<title>{name}</title>" in drawn

    def test_letters_of_east_asia_have_the_room_of_two(self):
        assert width_of("受") == width_of("ab")


def test_a_map_for_a_machine(link):
    link(knock, receivers.first, priority=3)
    assert collect(signal="test_signal_map").as_json() == {
        "connections": [
            {
                "signal": f"{HERE}.knock",
                "sender": None,
                "receiver": "tests.receivers.first",
                "deferred": True,
                "queue": None,
                "durable": False,
                "options": {"priority": 3},
            }
        ],
        "unread": 0,
    }


def test_the_package_offers_what_others_use():
    assert signal_map.__all__ == ["Connection", "SignalMap", "collect"]
