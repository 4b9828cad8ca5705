"""Payloads that no sender of ours makes: not signed by us, and signed by us but saying anything.

Whatever they are, a run ends in an outcome: nothing is called but the receiver that is named, the log gets one line,
and the time is bounded. While a payload is read a tripwire listens to all that Python audits: imports, opened files,
code that is compiled or run, processes, sockets.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import pkgutil
import sys
import threading
import time
import zoneinfo
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import django
import pytest
from django.core.signing import Signer
from django.db import Error as DatabaseDriverError
from django.test import override_settings
from django.utils.functional import SimpleLazyObject
from hypothesis import given, reject
from hypothesis import strategies as st

from deferred_signals import Signal
from deferred_signals.attempt import run
from deferred_signals.codec import Decoder, Encoder, base
from deferred_signals.delivery import Delivery
from deferred_signals.envelope import seal
from deferred_signals.exceptions import DecodeError, InstanceMissing, NotYetKnown, OpenError, UnknownName
from deferred_signals.outcome import Outcome
from deferred_signals.signature import SALT
from deferred_signals.strict_json import dump

from .test_codec_hostile import JSON, places
from .test_codec_values import VALUES
from .travel import envelope

HERE = __name__
told: list[Any] = []


def listens(sender: Any, **kwargs: Any) -> None:
    told.append((sender, kwargs))


def listens_inline(sender: Any, **kwargs: Any) -> None:
    raise AssertionError("it is no deferred receiver")


def listens_to_nothing(sender: Any, **kwargs: Any) -> None:
    raise AssertionError("it is connected to nothing")


class Holder:
    @staticmethod
    def listens(sender: Any, **kwargs: Any) -> None:
        raise AssertionError("it is connected to nothing")


def _evaluated() -> Any:
    raise AssertionError("the wire has evaluated a lazy object")


LAZY = SimpleLazyObject(_evaluated)
rang: Any = Signal()
rang_inline: Any = Signal()

# --- The tripwire ----------------------------------------------------------------------------------------------------

#: What Python audits all the time, of code that does nothing but compute.
_HARMLESS = frozenset(["builtins.id", "object.__getattr__", "sys._getframe", "sys._getframemodulename"])
_TZDATA = importlib.util.find_spec("tzdata")
_TZDATA_FOLDERS = (_TZDATA and _TZDATA.submodule_search_locations) or []
for _module in pkgutil.walk_packages(_TZDATA_FOLDERS, "tzdata."):
    importlib.import_module(_module.name)  # zoneinfo imports them as it comes to them
_ZONES = (*zoneinfo.TZPATH, *_TZDATA_FOLDERS)
_LANGUAGES = str(Path(django.__file__).parent)


class Tripwire:
    def __init__(self) -> None:
        self.thread = 0
        self.tripped: list[tuple[str, Any]] = []

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.thread and event not in _HARMLESS and self.thread == threading.get_ident():
            self._look(event, arguments)

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        first = arguments[0] if arguments and isinstance(arguments[0], str) else ""
        if event == "open" and first.startswith((*_ZONES, _LANGUAGES)):
            return  # a time zone, which is looked up in files; Django's translations
        if event == "object.__setattr__" and type(arguments[0]).__module__.startswith("django."):
            return  # how Django copies a query
        if event in ("import", "os.listdir") and first.startswith(("tzdata.", *_ZONES)):
            return  # where zoneinfo looks next
        self.tripped.append((event, first))

    @contextmanager
    def armed(self) -> Iterator[None]:
        self.tripped.clear()
        self.thread = threading.get_ident()
        try:
            yield
        finally:
            self.thread = 0
        assert not self.tripped


tripwire = Tripwire()
# It cannot be taken away again; unarmed it does nothing.
sys.addaudithook(tripwire.hook)


def test_the_tripwire_would_have_noticed(tmp_path: Path) -> None:
    for trip in (
        lambda: __import__("antigravity_of_nobody"),
        lambda: eval("1"),
        lambda: compile("1", "x", "eval"),
        lambda: (tmp_path / "file").open("w").close(),
        lambda: __import__("os").system("true"),
        lambda: __import__("subprocess").run(["true"], check=False),
        lambda: __import__("socket").socket().close(),
    ):
        with pytest.raises(AssertionError), tripwire.armed(), suppress(ImportError):
            trip()


# --- A run of one payload --------------------------------------------------------------------------------------------


class Ran(NamedTuple):
    delivery: Delivery | None
    outcome: Outcome
    lines: list[str]


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def ran(payload: Any) -> Ran:
    """Run a payload as a worker does, and see that it does no more than a run may."""
    told.clear()
    logger, lines = logging.getLogger("deferred_signals"), _Lines()
    level = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    start = time.monotonic()
    try:
        with tripwire.armed():
            delivery, outcome = run(payload)
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)
    assert time.monotonic() - start < 10
    # One record a run that has not just succeeded, of one line, and no longer than a screen.
    assert len(lines.lines) == (outcome.state != "succeeded")
    assert all(line.isprintable() and len(line) < 1000 for line in lines.lines)
    assert len(told) <= 1
    if outcome.state == "retry":
        # It can be published, and is what it was.
        again, _ = run(seal(outcome.text))
        assert (again and again.id) == (delivery and delivery.id)
    return Ran(delivery, outcome, lines.lines)


@pytest.fixture(autouse=True)
def _connected(link) -> None:
    base.load()
    told.clear()
    link(rang, listens, name="hostile.listens")
    link(rang_inline, listens_inline, deferred=False)


NOW = float(round(time.time()))


def genuine(**changes: Any) -> str:
    """The text of an envelope that would be run."""
    return envelope(created=NOW, receiver="hostile.listens", signal=f"{HERE}.rang", **changes).to_text()


def says(**changes: Any) -> str:
    """A signed payload that says this; ``...`` leaves a key out."""
    data = {**json.loads(genuine()), **changes}
    return seal(dump({key: value for key, value in data.items() if value is not ...}))


def test_the_genuine_one_runs() -> None:
    assert ran(seal(genuine())).outcome.state == "succeeded"
    assert len(told) == 1


# --- Not signed by us ------------------------------------------------------------------------------------------------


def signed_with(text: str, key: str = "only for the tests", salt: str = SALT) -> str:
    return Signer(key=key, fallback_keys=[], salt=salt).sign(text)


TEXT = '{"v":1,"id":"1","at":1790000000,"to":"hostile.listens","signal":null,"sender":null,"kwargs":{},"context":{}}'
FORGED = {
    "nothing": "",
    "garbage": "garbage",
    "a colon": ":",
    "colons": ":" * 10_000,
    "no signature": TEXT,
    "an empty signature": TEXT + ":",
    "a signature of zeros": TEXT + ":" + "A" * 43,
    "another key": signed_with(TEXT, key="another key"),
    "no salt": signed_with(TEXT, salt=""),
    "Django's own salt": signed_with(TEXT, salt="django.core.signing.Signer"),
    "the salt of sessions": signed_with(TEXT, salt="django.contrib.sessions.SessionStore"),
    "a hash of another kind": Signer(key="only for the tests", salt=SALT, algorithm="sha1").sign(TEXT),
    "a body changed": signed_with(TEXT).replace("hostile.listens", "os.system"),
    "a version put in": signed_with(TEXT).replace('"v":1', '"v":2'),
    "an end cut off": signed_with(TEXT)[:-1],
    "a beginning cut off": signed_with(TEXT)[1:],
    "something after it": signed_with(TEXT) + "x",
    "something after it, with a colon": signed_with(TEXT) + ":x",
    "signed twice": signed_with(signed_with(TEXT), key="other"),
    "a new line": signed_with(TEXT) + "\n",
    "new lines": "\n\r\x1b[2J dead\n" * 100,
    "a NUL": "\0" + signed_with(TEXT),
    "a lone surrogate": "\ud800" + signed_with(TEXT),
    "a lone surrogate in the signature": signed_with(TEXT) + "\udcff",
    "digits that are no ASCII": signed_with(TEXT).replace("1", "\u0661"),
    "another colon": signed_with(TEXT).replace(":", "\uff1a"),
    "nested 100,000 deep": "[" * 100_000 + "]" * 100_000 + ":x",
    "a pickle": "cos\nsystem\n(S'touch exploded'\ntR.",
    "1 MB": "x" * 1_000_000,
    "10 MB": "x" * 10_000_000,
    "10 MB and a colon": "x" * 10_000_000 + ":x",
    "None": None,
    "bytes": signed_with(TEXT).encode(),
    "an object": json.loads(TEXT),
    "a list": [signed_with(TEXT)],
    "a number": 5,
}


@pytest.mark.parametrize("name", FORGED)
def test_what_we_have_not_signed_is_dead_and_nothing_of_it_is_done(name: str) -> None:
    delivery, outcome, lines = ran(FORGED[name])
    assert delivery is None
    assert outcome.state == "dead"
    assert type(outcome.error) is OpenError
    assert lines[0].startswith("A payload is dead: The payload")
    assert not told


@given(st.data())
def test_one_wrong_character_makes_it_dead(data: st.DataObject) -> None:
    payload = seal(genuine(kwargs={"amount": 10}))
    place = data.draw(st.integers(0, len(payload)))
    put = data.draw(st.text(max_size=3))
    taken = data.draw(st.integers(0, 3))
    changed = payload[:place] + put + payload[place + taken :]
    delivery, outcome, _ = ran(changed)
    assert (delivery is None) == (changed != payload)
    assert outcome.state == ("succeeded" if changed == payload else "dead")


# --- Signed, but not by a sender of ours -----------------------------------------------------------------------------


@pytest.mark.parametrize("version", [..., None, 0, -1, 1.0, "1", True, [], {}, 2**31, 10**400, "\n" * 1000])
def test_a_version_that_is_none_is_dead(version: Any) -> None:
    assert type(ran(says(v=version)).outcome.error) is OpenError


@pytest.mark.parametrize(
    "more",
    [
        {"waiting": "soon"},
        {"waiting": True},
        {"waiting": -1},
        {"waiting": 10**300},
        {"waiting": []},
        {"id": "\n" * 1000},
        {"kwargs": [1, "\n"], "to": None},
    ],
)
def test_a_newer_version_waits_whatever_it_says(more: dict[str, Any]) -> None:
    outcome = ran(says(v=2, **more)).outcome
    assert outcome.state == "retry"
    assert time.time() - 60 < json.loads(outcome.text)["waiting"] <= time.time()


NAMES = [
    "",
    "os.system",
    "builtins.eval",
    "builtins.print",
    "subprocess.Popen",
    "listens",
    f"{HERE}.listens",  # not its name
    f"{HERE}.listens_inline",
    f"{HERE}.listens_to_nothing",
    f"{HERE}.Holder.listens",
    f"{HERE}.told.append",
    f"{HERE}.__builtins__",
    f"{HERE}.listens.__globals__",
    f"{HERE}.listens.__call__",
    f"{HERE}._evaluated",
    f"{HERE}.LAZY",
    "hostile.listens.__call__",
    "hostile.listens ",
    "HOSTILE.LISTENS",
    "hostile\uff0elistens",
    "host\u0456le.listens",
    "hostile.\u00adlistens",
    "deferred_signals.deliver",
    "deferred_signals.tasks.deliver",
    "../hostile.listens",
    "hostile.listens\0",
    "hostile.listens\nDelivery 1 to x succeeded",
    "\u202ehostile.listens",
    "\x1b[2Jhostile.listens",
    "hostile.listens" + "x" * 1_000,
    "x." * 100_000,
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:30]))
def test_a_name_that_is_no_key_of_the_registry_calls_nothing(name: str) -> None:
    outcome = ran(says(to=name)).outcome
    # It may be a receiver of the next release, if it could be the name of one.
    assert outcome.state == ("retry" if name.isprintable() and len(name) <= 1000 else "dead")
    assert not told


@pytest.mark.parametrize("number", ["x" * 256, "x" * 200_000, "a\nb", "\x1b[2J", "\u2028"], ids=ascii)
def test_an_id_that_could_not_stand_in_a_log_is_dead(number: str) -> None:
    assert type(ran(says(id=number)).outcome.error) is OpenError
    assert not told


@pytest.mark.parametrize(
    "signal",
    [None, "", "os.system", "\n", "x" * 100_000, "x." * 100_000, f"{HERE}.LAZY", f"{HERE}.LAZY.x", f"{HERE}.told",
     f"{HERE}.rang_inline", "django.db.models.signals.post_save"],
    ids=lambda name: ascii(name)[:30],
)  # fmt: skip
def test_whatever_signal_is_named_the_receiver_is_the_one_that_is_called(signal: str | None) -> None:
    assert ran(says(signal=signal)).outcome.state == "succeeded"
    [(_, kwargs)] = told
    assert issubclass(type(kwargs["signal"]), type(rang).__mro__[1])


@pytest.mark.parametrize("waiting", [253402300000, 4000000000.5])
def test_a_time_to_come_since_which_it_waits_is_now(waiting: float) -> None:
    outcome = ran(says(to="hostile.nobody", waiting=waiting)).outcome
    assert json.loads(outcome.text)["waiting"] <= time.time()


@override_settings(DEFERRED_SIGNALS={"MAX_AGE": 60, "BACKEND": "memory"})
def test_an_old_payload_is_replayed_in_vain_once_max_age_has_passed() -> None:
    assert ran(says(at=time.time() - 50)).outcome.state == "succeeded"
    _, outcome, lines = ran(says(at=time.time() - 70))
    assert (outcome.state, len(lines), told) == ("dead", 1, [])
    assert "older than MAX_AGE" in lines[0]


def test_a_payload_that_is_put_twice_runs_twice_under_one_id() -> None:
    payload = seal(genuine())
    assert [ran(payload).delivery.id for _ in range(2)] == [envelope().id] * 2  # type: ignore[union-attr]


@override_settings(DEFERRED_SIGNALS={"MAX_SIZE": 1000, "BACKEND": "memory"})
def test_a_payload_much_larger_than_max_size_is_not_even_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ran(says(kwargs={"x": "y" * 900})).outcome.state == "succeeded"
    payload = says(kwargs={"x": "y" * 100_000})
    monkeypatch.setattr("deferred_signals.envelope.verified", lambda payload: pytest.fail("it was"))
    outcome = ran(payload).outcome
    assert outcome.state == "dead"
    assert "MAX_SIZE" in outcome.reason


TEXTS = {
    "a number beyond floats": "1e999",
    "a number below them": "[-1e999]",
    "digits": "9" * 10_000,
    "a bare NaN": "NaN",
    "a bare Infinity": "[-Infinity]",
    "a lone surrogate": r'"\ud800"',
    "a lone surrogate as a key": r'{"\uDFFF":1}',
    "surrogates in the wrong order": r'"\udc00\ud800"',
    "a key twice": '{"a":1,"a":2}',
    "a key twice, escaped": r'{"a":1,"\u0061":2}',
    "lists 600 deep": "[" * 600 + "]" * 600,
    "lists 900 deep": "[" * 900 + "]" * 900,
    "objects 900 deep": '{"a":' * 900 + "1" + "}" * 900,
    "lists 100,000 deep": "[" * 100_000 + "]" * 100_000,
    "tags 2,000 deep": '{"$tuple":[' * 2_000 + "]}" * 2_000,
}


@pytest.mark.parametrize("place", ["sender", "kwargs", "context", "nobody's", "newer"])
@pytest.mark.parametrize("name", TEXTS)
def test_signed_json_that_we_could_not_write_again_is_dead(name: str, place: str) -> None:
    value = TEXTS[name] if place in ("sender", "nobody's", "newer") else f'{{"x":{TEXTS[name]}}}'
    data = {key: json.dumps(one) for key, one in json.loads(genuine()).items()} | {place: value}
    if place == "newer":
        data["v"] = "2"
    text = "{" + ",".join(f'"{key}":{one}' for key, one in data.items()) + "}"
    outcome = ran(seal(text)).outcome
    assert outcome.state == "dead"
    assert type(outcome.error) is OpenError
    assert not told


def test_text_that_only_looks_like_a_surrogate_is_text() -> None:
    assert ran(says(kwargs={"x": r"\ud800", "y": "\U0001f600", "z": "\\"})).outcome.state == "succeeded"
    assert told[0][1]["x"] == r"\ud800"
    escaped = genuine(kwargs={"x": "?"}).replace('"?"', r'"\ud83d\ude00"')
    assert ran(seal(escaped)).outcome.state == "succeeded"
    assert told[0][1]["x"] == "\U0001f600"


def test_what_is_broad_but_not_deep_is_run() -> None:
    assert ran(says(kwargs={"x": [[1], {"a": [2]}] * 2_000})).outcome.state == "succeeded"


@pytest.mark.parametrize("depth", [100, 300])
def test_what_is_nested_deep_is_a_value_or_dead(depth: int) -> None:
    value: Any = 1
    for tag in ["$tuple", "$frozenset", "$dict"] * (depth // 3):
        value = {tag: [[value, 1]]} if tag == "$dict" else {tag: [value]}
    assert ran(says(kwargs={"x": value})).outcome.state in ("succeeded", "dead")


@pytest.mark.parametrize(
    "language",
    [5, [], {}, True, "", "\0", "../../../../tmp/x", "/etc/passwd", "x" * 10_000, "de/../fr", "de\n", ["de"]],
    ids=lambda value: ascii(value)[:30],
)
def test_a_language_that_is_none_is_dead(language: Any) -> None:
    assert type(ran(says(context={"language": language})).outcome.error) is DecodeError


@pytest.mark.parametrize(
    "zone",
    [5, [], {}, True, "", "\0", "../../../../tmp/x", "/etc/passwd", "x" * 10_000, "+x", "-1e308 y", "+nan z",
     "tzdata.zi", "UTC\n", "os.system", "\x1b[2J"],
    ids=lambda value: ascii(value)[:30],
)  # fmt: skip
def test_a_time_zone_that_is_none_is_dead(zone: Any) -> None:
    assert type(ran(says(context={"timezone": zone})).outcome.error) is DecodeError


@pytest.mark.parametrize("zone", ["Middle/Earth", "Europe", "tzdata", "__init__"])
def test_a_time_zone_that_another_worker_may_have_is_tried_again(zone: str) -> None:
    assert type(ran(says(context={"timezone": zone})).outcome.error) is UnknownName
    when = {"$datetime": ["2026-11-21T12:00:00", zone, 0]}
    assert type(ran(says(kwargs={"when": when})).outcome.error) is UnknownName


def test_the_name_of_an_offset_may_be_any_text() -> None:
    assert ran(says(context={"timezone": "+1 \n" + "x" * 100_000})).outcome.state == "succeeded"


def test_a_context_of_nobody_waits_and_its_name_is_cut() -> None:
    assert ran(says(context={"\n" * 100_000: 1})).outcome.state == "retry"


# --- The closed codec ------------------------------------------------------------------------------------------------

MARKERS = ["__type__", "__value__", "__class__", "__reduce__", "py/object", "_type", "$", "$$", "$class "]
HOSTILE = JSON | st.dictionaries(st.sampled_from(MARKERS), JSON, max_size=3) | st.lists(JSON, max_size=2)


def written(**changes: Any) -> str:
    """A signed payload that says this; an example that JSON or UTF-8 cannot say is none."""
    try:
        return says(**changes)
    except ValueError:
        reject()


OURS = (DecodeError, NotYetKnown, InstanceMissing, DatabaseDriverError)


@pytest.mark.django_db(databases="__all__")
@given(HOSTILE)
def test_the_decoder_imports_opens_and_starts_nothing(data: Any) -> None:
    with tripwire.armed(), suppress(*OURS):
        Decoder().decode(data)


@pytest.mark.django_db(databases="__all__")
@given(HOSTILE, HOSTILE, st.dictionaries(st.sampled_from(["language", "timezone", "tenant"]), HOSTILE))
def test_every_signed_payload_ends_in_an_outcome(sender: Any, value: Any, context: dict[str, Any]) -> None:
    ran(written(sender=sender, kwargs={"instance": value, "other": value}, context=context))


@pytest.mark.django_db(databases="__all__")
@given(VALUES, st.data())
def test_a_genuine_value_with_one_wrong_place_ends_in_an_outcome(value: Any, draw: st.DataObject) -> None:
    data = json.loads(dump([Encoder().encode(value)]))
    holder, key = draw.draw(st.sampled_from(places(data)))
    holder[key] = draw.draw(HOSTILE)
    ran(written(kwargs={"x": data}))


@pytest.mark.django_db(databases="__all__")
@pytest.mark.parametrize(
    "pk",
    [[], {}, [1], "1 OR 1=1", "1; DROP TABLE shop_customer", "", "\0", "\n", -1, 0, 1.5, True, None, 10**18, 10**300,
     "9" * 5000, {"$int": hex(10**5000)}, {"$decimal": "1E+999999999"}, {"$decimal": "NaN"}, {"$float": "nan"},
     {"$notcarried": ["x", "y", "z"]}, {"$tuple": [1, 2]}, {"$ref": ["shop.customer", 1, "default"]},
     {"$class": "builtins.int"}, {"$function": "os.system"}],
    ids=lambda value: ascii(value)[:30],
)  # fmt: skip
@pytest.mark.parametrize("label", ["shop.customer", "shop.order", "shop.article", "shop.line"])
def test_a_primary_key_that_is_none_finds_no_row(label: str, pk: Any) -> None:
    assert ran(says(kwargs={"instance": {"$ref": [label, pk, "default"]}})).outcome.state in ("dead", "discarded")
    assert not told


@pytest.mark.parametrize(
    "reference",
    [
        ["shop.nobody", 1, "default"],
        ["shop.customer", 1, "nobody"],
        ["shop.customer", 1, "default\n"],
        ["shop.customer", 1, ["default"]],
        [["shop", "customer"], 1, "default"],
        ["x" * 100_000, 1, "default"],
        ["os.system", 1, "default"],
        ["shop.customer.objects", 1, "default"],
        ["sh\u043ep.customer", 1, "default"],
        ["shop.customer"],
        "shop.customer",
        {},
    ],
    ids=lambda value: ascii(value)[:40],
)
@pytest.mark.parametrize("tag", ["$ref", "$snapshot", "$queryset"])
def test_a_model_or_an_alias_that_is_none_is_dead_or_waits(tag: str, reference: Any) -> None:
    assert ran(says(kwargs={"instance": {tag: reference}})).outcome.state in ("dead", "retry")
    assert not told


@pytest.mark.parametrize(
    "value",
    [
        {"$int": "0x" + "f" * 200_000},
        {"$fraction": [{"$int": "0x" + "f" * 100_000}, {"$int": "0x" + "e" * 100_000}]},
        {"$flag": ["re.RegexFlag", {"$int": "0x" + "f" * 200_000}]},
        {"$flag": ["tests.test_codec_values.Mode", {"$int": "-0x" + "f" * 200_000}]},
        {"$frozenset": [{"$range": [0, {"$int": "0x" + "f" * 1000}, 1]}]},
        {"$set": [n * (2**61 - 1) for n in range(5_000)]},
        {"$decimal": "1E+999999999999"},
        {"$timedelta": [10**300, 0, 0]},
        {"$timedelta": [1e308, 0, 0]},
        {"$deque": [[1], 10**300]},
        {"$datetime": ["2026-01-01", "+1e308", 0]},
        {"$bytes": "!" * 200_000},
        {"$path": ["PosixPath", "/" * 200_000]},
        {"$ip": ["IPv4Network", "0.0.0.0/" + "0" * 200_000]},
        {"$class": "a." * 100_000},
        {"$signal": "a." * 499},
        {"$same": 10**300},
        {"$dict": [[{"$tuple": [1]}, 2]] * 2},
        {"$defaultdict": ["os.system", []]},
        {"$defaultdict": [f"{HERE}.LAZY", []]},
        {"$class": f"{HERE}.LAZY"},
        {"$function": f"{HERE}.LAZY"},
        {"$signal": f"{HERE}.LAZY"},
        {"$enum": [f"{HERE}.LAZY", "x"]},
        {"$namedtuple": [f"{HERE}.LAZY", []]},
        {"$dataclass": [f"{HERE}.LAZY", {}]},
        {"$task": [f"{HERE}.LAZY", f"{HERE}.LAZY", {}]},
        {"$anonymous": f"{HERE}.LAZY"},
        {"$class": f"{HERE}.listens.__globals__"},
        {"$function": f"{HERE}.Holder.__init__.__globals__"},
    ],
    ids=lambda value: ascii(value)[:50],
)
def test_what_would_take_long_or_run_something_does_neither(value: Any) -> None:
    start = time.monotonic()
    assert ran(says(kwargs={"x": value})).outcome.state in ("succeeded", "dead", "retry")
    assert time.monotonic() - start < 5


gone: list[Any] = []


@dataclasses.dataclass
class Farewell:
    path: str

    def __del__(self) -> None:
        gone.append(getattr(self, "path", None))


class Adieu(NamedTuple):
    path: str


class Farewells(Adieu):
    def __del__(self) -> None:
        gone.append(self[0])


@pytest.mark.parametrize(
    "value", [{"$dataclass": [f"{HERE}.Farewell", {"path": "/"}]}, {"$namedtuple": [f"{HERE}.Farewells", ["/"]]}]
)
def test_what_does_something_when_it_goes_is_not_made(value: Any) -> None:
    gone.clear()
    assert ran(says(kwargs={"x": value})).outcome.state == "dead"
    assert not gone
