"""Two releases at once, in this process: what a worker does with messages of the one before it and the one after it.

The same with real processes is in ``tests/integration/test_rolling_releases.py``.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from django.core.signing import Signer

from deferred_signals import Signal, outcome, register_codec
from deferred_signals.attempt import run
from deferred_signals.backends.memory import MemoryBackend
from deferred_signals.envelope import seal, unseal
from deferred_signals.exceptions import NotYetKnown, OpenError
from tests import receivers
from tests.receivers import first, on_item, troubled
from tests.wire import next_wire
from tests.wire.shapes import Colour
from tests.wire.specimen import FOLDER, KEY

# Any: Django's stubs say that every response is a string.
rang: Any = Signal()
rang_again: Any = Signal()
rang_elsewhere: Any = Signal()

POINT = "tests.wire.shapes.Point"
SALT = "deferred_signals.delivery"

#: What another release may have that this one has not, as a change of a message that both could read.
OF_ANOTHER_RELEASE: dict[str, dict[str, Any]] = {
    "a wire version": {"v": 99, "shape": "unheard of"},
    "a receiver": {"to": "shop.receivers.gone"},
    "a signal, of a receiver that listens to several": {"signal": "shop.signals.gone"},
    "a type of its own": {"kwargs": {"item": {"$shop.money": 990}}},
    "a class": {"kwargs": {"item": {"$class": "shop.gone.Class"}}},
    "a function": {"kwargs": {"item": {"$function": "shop.gone.function"}}},
    "an enum": {"kwargs": {"item": {"$enum": ["shop.gone.Colour", "RED"]}}},
    "a dataclass": {"kwargs": {"item": {"$dataclass": ["shop.gone.Point", {"x": 1}]}}},
    "a named tuple": {"kwargs": {"item": {"$namedtuple": ["shop.gone.Pair", [1, 2]]}}},
    "a member of an enum": {"kwargs": {"item": {"$enum": ["tests.wire.shapes.Colour", "BLUE"]}}},
    "a bit of a flag": {"kwargs": {"item": {"$flag": ["tests.wire.shapes.Right", 8]}}},
    "a field that a dataclass has got": {"kwargs": {"item": {"$dataclass": [POINT, {"x": 1, "y": 2, "z": 3}]}}},
    "a field that a dataclass has lost": {"kwargs": {"item": {"$dataclass": [POINT, {"x": 1}]}}},
    "a field that a named tuple has got": {"kwargs": {"item": {"$namedtuple": ["tests.wire.shapes.Pair", [1, 2, 3]]}}},
    "a field that a named tuple has lost": {"kwargs": {"item": {"$namedtuple": ["tests.wire.shapes.Pair", [1]]}}},
    "a signal as a value": {"kwargs": {"item": {"$signal": "shop.signals.gone"}}},
    "a model": {"kwargs": {"item": {"$model": "shop.gone"}}},
    "a model, of a row": {"kwargs": {"item": {"$ref": ["shop.gone", 1, "default"]}}},
    "a model, of a snapshot": {"kwargs": {"item": {"$snapshot": ["shop.gone", None, True, {}]}}},
    "a model, of a queryset": {"kwargs": {"item": {"$queryset": ["shop.gone", "default", [1]]}}},
    "a model as the sender": {"sender": {"$model": "shop.gone"}},
    "a field, of a snapshot": {"kwargs": {"item": {"$snapshot": ["shop.customer", None, True, {"gone": 1}]}}},
    "a field, of changes": {"kwargs": {"item": {"$changes": ["shop.customer", {"gone": [1, 2]}]}}},
    "a field of a file": {
        "kwargs": {"item": {"$fieldfile": [{"$snapshot": ["shop.customer", None, True, {}]}, "gone", "a.png"]}}
    },
    "a database": {"kwargs": {"item": {"$ref": ["shop.customer", 1, "archive"]}}},
    "a field as a value": {"kwargs": {"item": {"$modelfield": ["shop.customer", "gone"]}}},
    "an app": {"kwargs": {"item": {"$appconfig": "gone"}}},
    "a carrier": {"context": {"tenant": "acme"}},
}


@pytest.fixture
def payload(link: Any, memory: MemoryBackend) -> Callable[..., str]:
    """A message to ``on_item``, as another release would have made it."""

    def make(**changes: Any) -> str:
        link(rang, on_item)
        link(rang_again, on_item)
        rang.send(sender=None, item=1)
        delivery, _ = memory.payloads.pop()
        return seal(json.dumps({**json.loads(delivery.text), **changes}))

    return make


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1790000000.0
        monkeypatch.setattr(time, "time", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def every_look_at(payload: str, clock: Clock) -> Iterator[outcome.Outcome]:
    """Run a message again and again at the times that its retries ask for, until it ends."""
    while True:
        _, end = run(payload)
        yield end
        if end.state != "retry":
            return
        clock.now += end.countdown
        payload = seal(end.text)


class TestWaiting:
    @pytest.mark.parametrize("what", OF_ANOTHER_RELEASE)
    def test_what_this_release_does_not_have_is_waited_for_and_costs_no_attempt(self, what, payload, calls):
        _, end = run(payload(**OF_ANOTHER_RELEASE[what]))
        assert end.state == "retry"
        assert isinstance(end.error, NotYetKnown)
        again = json.loads(end.text)
        assert "attempt" not in again
        assert calls == []

    @pytest.mark.parametrize("what", OF_ANOTHER_RELEASE)
    def test_it_waits_as_it_was_sent(self, what, payload):
        made = payload(**OF_ANOTHER_RELEASE[what])
        _, end = run(made)
        before, after = (json.loads(Signer(salt=SALT).unsign(one)) for one in (made, seal(end.text)))
        assert {**before, "waiting": after["waiting"]} == after

    @pytest.mark.parametrize("window", [0.5, 2, 100, 3600, 86400])
    @pytest.mark.parametrize("what", ["a wire version", "a receiver", "a model", "a carrier"])
    def test_the_waiting_ends_within_the_window_and_one_pause(self, what, window, payload, clock, settings, calls):
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "RELEASE_WINDOW": window}
        started = clock.now
        looks = list(every_look_at(payload(**OF_ANOTHER_RELEASE[what]), clock))
        assert {look.state for look in looks[:-1]} == {"retry"}
        assert looks[-1].state == "dead"
        assert window < clock.now - started <= window + max(1, min(window, outcome.LONGEST_WAIT))
        assert looks[-1].reason.endswith(f"for more than {window:g} s")
        # Often enough to be soon there, not so often that a worker has nothing else to do.
        assert len(looks) <= 12 + window / outcome.LONGEST_WAIT
        assert calls == []

    def test_a_receiver_s_retries_are_all_there_after_any_time_of_waiting(self, payload, link, clock, calls):
        link(rang, troubled, name="shop.receivers.comes_later", max_retries=1, retry_jitter=False)
        waited = list(itertools.islice(every_look_at(payload(v=99), clock), 50))
        assert clock.now - 1790000000 > 1800
        receivers.troubles.extend([ValueError(), ValueError(), ValueError()])
        data = {**json.loads(waited[-1].text), "v": 1, "to": "shop.receivers.comes_later"}
        looks = list(every_look_at(seal(json.dumps(data)), clock))
        assert [look.state for look in looks] == ["retry", "dead"]
        assert [call[2]["attempt"] for call in calls] == [1, 2]

    def test_after_a_run_the_waiting_begins_anew(self, payload, link, clock):
        link(rang, troubled, name="shop.receivers.there", retry_jitter=False)
        receivers.troubles.append(ValueError())
        since = clock.now - 3000
        _, raised = run(payload(to="shop.receivers.there", waiting=since))
        _, waits = run(seal(raised.text.replace("shop.receivers.there", "shop.receivers.gone")))
        assert json.loads(waits.text)["waiting"] == clock.now

    def test_an_age_limit_goes_before_the_window(self, payload, clock, settings):
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "MAX_AGE": 600}
        looks = list(every_look_at(payload(to="shop.receivers.gone"), clock))
        assert isinstance(looks[-1].error, OpenError)
        assert "older than MAX_AGE" in looks[-1].reason


class TestReceiversThatChange:
    def test_an_argument_that_it_newly_requires_is_a_clear_error_that_is_retried(self, payload, link, clock):
        link(rang_elsewhere, on_item, name="shop.receivers.after", max_retries=2)
        looks = list(every_look_at(payload(to="shop.receivers.after", kwargs={}), clock))
        assert [look.state for look in looks] == ["retry", "retry", "dead"]
        assert "on_item() missing 1 required positional argument: 'item'" in str(looks[-1].error)

    def test_an_argument_that_it_no_longer_names_lands_in_its_kwargs(self, payload, link, calls):
        link(rang, first, name="shop.receivers.after")
        _, end = run(payload(to="shop.receivers.after"))
        assert end.state == "succeeded"
        assert calls[0][2]["item"] == 1

    def test_an_argument_that_it_newly_names_may_be_a_marker(self, payload, calls):
        """The release before did not name it, so that it could not travel was no error."""
        _, end = run(
            payload(kwargs={"item": {"$notcarried": ["kwargs['item']", "socket.socket", "send its address."]}})
        )
        assert end.state == "succeeded"
        assert "NotCarried" in repr(calls[0][2]["item"])


def test_a_class_that_has_moved_is_found_where_its_old_module_imports_it(payload, calls):
    _, end = run(payload(kwargs={"item": {"$enum": [f"{__name__}.Colour", "RED"]}}))
    assert end.state == "succeeded"
    assert calls[0][2]["item"] is Colour.RED


@dataclasses.dataclass
class Address:
    street: str
    country: str = "AT"


class Place(NamedTuple):
    street: str
    country: str = "AT"


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ({"$dataclass": [f"{__name__}.Address", {"street": "Ring 1"}]}, Address("Ring 1")),
        ({"$namedtuple": [f"{__name__}.Place", ["Ring 1"]]}, Place("Ring 1")),
    ],
)
def test_a_field_with_a_default_may_be_added_to_what_travels(data, value, payload, calls):
    _, end = run(payload(kwargs={"item": data}))
    assert end.state == "succeeded"
    assert calls[0][2]["item"] == value


class Money:
    """Its codec has written cents; this release writes amount and currency, and has forgotten the cents."""

    def __init__(self, data: Any) -> None:
        self.amount, self.currency = data


def test_what_a_codec_of_this_release_cannot_read_is_dead_at_once(payload, calls):
    register_codec(Money, encode=lambda money: [money.amount, money.currency], decode=Money)
    _, end = run(payload(kwargs={"item": {f"${__name__}.Money": 990}}))
    assert end.state == "dead"
    assert end.reason == f"A value tagged '${__name__}.Money' cannot be made again (TypeError)."
    assert calls == []


def test_a_receiver_that_was_renamed_and_keeps_its_name_notices_nothing(payload, link, calls):
    link(rang_elsewhere, first, name="shop.receivers.before")
    _, end = run(payload(to="shop.receivers.before"))
    assert end.state == "succeeded"
    assert [name for name, _, _ in calls] == ["first"]


class TestTheNextWire:
    def test_this_release_keeps_waiting_what_the_next_one_writes(self, payload, calls):
        with next_wire.installed():
            made = payload()
        assert json.loads(Signer(salt=SALT).unsign(made))["arguments"] == {"item": 1}
        delivery, end = run(made)
        assert (delivery, end.state) == (None, "retry")
        assert f"wire version {next_wire.NEXT}; this release reads up to {next_wire.BEFORE}" in end.reason
        assert calls == []
        with next_wire.installed():
            _, end = run(seal(end.text))
        assert end.state == "succeeded"
        assert [call[2]["item"] for call in calls] == [1]

    def test_the_next_release_runs_what_this_one_writes(self, payload, calls):
        made = payload()
        with next_wire.installed():
            _, end = run(made)
        assert end.state == "succeeded"
        assert [call[2]["item"] for call in calls] == [1]

    @pytest.mark.parametrize("version", [path.stem for path in sorted(FOLDER.glob("v*.json"))])
    def test_the_next_release_reads_the_specimens(self, version, settings):
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "SIGNING_KEYS": [KEY]}
        said = json.loads((FOLDER / f"{version}.json").read_text(encoding="utf-8"))
        with next_wire.installed():
            first_one, retried = (unseal(said[name]["payload"]) for name in ("first", "retried"))
        assert (first_one.receiver, first_one.attempt) == ("shop.receivers.welcome", 1)
        assert (retried.receiver, retried.attempt) == ("shop.receivers.charge", 3)
