"""The signed string: what it says, and that nothing else gets in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.signing import Signer
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from deferred_signals.envelope import VERSION, Envelope, moment, seal, unseal
from deferred_signals.exceptions import NewerWire, OpenError
from deferred_signals.signature import SALT

from .travel import envelope

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=3)
TIMES = st.floats(0, 253402300799) | st.integers(0, 253402300799)
LINES = st.text().filter(str.isprintable)
COUNTS = st.integers(0, 2**31 - 1)


@given(
    st.builds(
        Envelope,
        id=LINES,
        created=TIMES,
        receiver=LINES,
        signal=st.none() | st.text(),
        sender=JSON,
        kwargs=OBJECTS,
        context=OBJECTS,
        attempt=st.integers(1, 2**31 - 1),
        crashes=COUNTS,
        depth=COUNTS,
        waiting_since=st.none() | TIMES,
    )
)
def test_an_envelope_arrives_as_it_was(sent: Envelope) -> None:
    assert unseal(seal(sent.to_text())) == sent


def test_the_text_is_compact_and_says_only_what_is_not_the_default() -> None:
    assert envelope(kwargs={"name": "Zoë"}).to_text() == (
        '{"v":1,"to":"shop.receivers.welcome","signal":"django.db.models.signals.post_save","sender":null,"context":{},'
        '"id":"5b0e7f5c-6a3e-4b52-9a8e-2f6e4f3c1d10","at":1790000000.125,"kwargs":{"name":"Zoë"}}'
    )
    text = envelope(attempt=2, crashes=1, depth=3, waiting_since=5.5).to_text()
    assert text.endswith(',"attempt":2,"crashes":1,"depth":3,"waiting":5.5}')


def test_the_moment_of_a_send_is_told_in_milliseconds_and_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [1790000000.1251, 1790000000.1254, 1790000000.1256, 1790000000.5, 1790000000.1251]
    told = []
    for now in times:
        monkeypatch.setattr("time.time", lambda now=now: now)
        told.append(moment())
    assert told == [(number, str(number)) for number in (round(now, 3) for now in times)]


def test_the_next_attempt_is_the_same_delivery() -> None:
    first = envelope(depth=2)
    held = first.waiting(17.5)
    assert (held.attempt, held.waiting_since) == (1, 17.5)
    second = held.next_attempt()
    assert (second.attempt, second.waiting_since, second.depth, second.id) == (2, None, 2, first.id)


def test_what_is_not_json_is_not_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        envelope(context={"a": float("nan")}).to_text()


# --- The signature ---------------------------------------------------------------------------------------------------

FORGED = r"signature is wrong.*SIGNING_KEYS"


@given(st.data())
def test_no_changed_character_goes_unnoticed(data: st.DataObject) -> None:
    sealed = seal(envelope(kwargs={"amount": 10}).to_text())
    place = data.draw(st.integers(0, len(sealed) - 1))
    other = data.draw(st.characters().filter(lambda character: character != sealed[place]))
    with pytest.raises(OpenError, match=FORGED):
        unseal(sealed[:place] + other + sealed[place + 1 :])


@given(st.data())
def test_no_flipped_bit_goes_unnoticed(data: st.DataObject) -> None:
    sealed = bytearray(seal(envelope().to_text()).encode())
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(OpenError, match=FORGED):
        unseal(sealed.decode(errors="surrogateescape"))


@given(st.integers(0, 400))
def test_no_missing_end_or_start_goes_unnoticed(cut: int) -> None:
    sealed = seal(envelope().to_text())
    for part in (sealed[: min(cut, len(sealed) - 1)], sealed[1 + cut :]):
        with pytest.raises(OpenError, match=FORGED):
            unseal(part)


@given(st.text(st.characters()))
def test_no_text_of_a_stranger_is_opened(text: str) -> None:
    for payload in (text, f"{text}:", f":{text}", f"{{}}:{text}"):
        with pytest.raises(OpenError, match=FORGED):
            unseal(payload)


def test_a_signature_is_of_its_own_payload_only() -> None:
    one, two = (seal(envelope(id=number).to_text()) for number in "12")
    with pytest.raises(OpenError, match=FORGED):
        unseal(one.rpartition(":")[0] + ":" + two.rpartition(":")[2])


@pytest.mark.parametrize("key", ["text", b"bytes \xff", "ünïcödé"])
@pytest.mark.parametrize("text", ["", "{}", '{"a":"ünïcödé 😀:"}', "x" * 300_000])
def test_a_signature_is_djangos(key: str | bytes, text: str) -> None:
    with override_settings(DEFERRED_SIGNALS={"SIGNING_KEYS": [key, "older"]}):
        assert seal(text) == seal(text) == Signer(key=key, fallback_keys=[], salt=SALT).sign(text)


def test_a_key_that_is_changed_is_seen_at_once() -> None:
    signed = []
    for key in ("one", "two", "one"):
        with override_settings(SECRET_KEY=key, SECRET_KEY_FALLBACKS=[]):
            signed.append(seal("{}"))
    assert signed[0] == signed[2] != signed[1]


@pytest.mark.parametrize("salt", ["", "django.core.signing.Signer", "deferred_signals", f"{SALT}x"])
def test_what_else_the_project_signs_is_no_payload(salt: str) -> None:
    with pytest.raises(OpenError, match=FORGED):
        unseal(Signer(salt=salt).sign(envelope().to_text()))


@pytest.mark.parametrize("payload", [None, b"{}", 5, [], {}, bytearray(b"x"), ("a",), 1.5, object()])
def test_only_a_string_is_a_payload(payload: Any) -> None:
    with pytest.raises(OpenError, match="not a string"):
        unseal(payload)


def test_a_lone_surrogate_is_a_wrong_signature() -> None:
    with pytest.raises(OpenError, match=FORGED):
        unseal('{"v":1}\ud800:abc')


def test_nothing_is_read_before_the_signature_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("json.loads", lambda *args, **kwargs: pytest.fail("it was read"))
    with pytest.raises(OpenError):
        unseal(envelope().to_text() + ":forged")


# --- Keys ------------------------------------------------------------------------------------------------------------


def sealed_with(**settings: Any) -> str:
    with override_settings(**settings):
        return seal(envelope().to_text())


def opens(payload: str, **settings: Any) -> bool:
    with override_settings(**settings):
        try:
            unseal(payload)
        except OpenError:
            return False
    return True


def keys(*names: str | bytes) -> dict[str, Any]:
    return {"DEFERRED_SIGNALS": {"SIGNING_KEYS": list(names)}}


def test_djangos_secret_key_signs_and_its_fallbacks_verify() -> None:
    payload = sealed_with(SECRET_KEY="old", SECRET_KEY_FALLBACKS=["other"])
    assert opens(payload, SECRET_KEY="old")
    assert opens(payload, SECRET_KEY="new", SECRET_KEY_FALLBACKS=["x", "old"])
    assert not opens(payload, SECRET_KEY="new")
    assert not opens(payload, SECRET_KEY="other")


def test_own_keys_rotate_verify_first_sign_later() -> None:
    old = sealed_with(**keys("old"))
    both = keys("old", "new")
    assert opens(old, **both)
    assert opens(sealed_with(**both), **keys("old"))
    later = keys("new", "old")
    assert opens(old, **later)
    assert opens(sealed_with(**later), **keys("new"))
    assert not opens(old, **keys("new"))


def test_with_own_keys_djangos_key_opens_nothing() -> None:
    assert not opens(sealed_with(SECRET_KEY="django"), SECRET_KEY="django", **keys("own"))
    assert not opens(sealed_with(**keys("own")), SECRET_KEY="django", SECRET_KEY_FALLBACKS=["own too"])


def test_keys_may_be_bytes() -> None:
    assert opens(sealed_with(**keys(b"\xff\x00")), **keys("new", b"\xff\x00"))


# --- Under a good signature ------------------------------------------------------------------------------------------


def resealed(**changes: Any) -> str:
    """A payload of a sender that signs nonsense; ``...`` leaves a key out."""
    data = {**json.loads(envelope().to_text()), **changes}
    return seal(json.dumps({key: value for key, value in data.items() if value is not ...}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "5",
        '"{}"',
        "{}",
        "{",
        "{'v': 1}",
        '{"v":1,}',
        '{"v":1} x',
        '\ufeff{"v":1}',
        '{"v":1,"v":1}',
        '{"v":1,"kwargs":{"a":1,"a":2}}',
        '{"v":1,"kwargs":{"a":[{"b":1,"b":1}]}}',
        '{"v":1,"at":NaN}',
        '{"v":1,"kwargs":{"a":Infinity}}',
        '{"v":1,"kwargs":{"a":[-Infinity]}}',
        '{"v":1,"at":' + "9" * 10_000 + "}",
        '{"v":1,"kwargs":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"v":' * 100_000 + "1" + "}" * 100_000,
        "\x80\x04K\x01.",
        "!!python/object/apply:os.system [ls]",
    ],
    ids=lambda text: repr(text[:40]),
)
def test_signed_garbage_is_an_open_error(text: str) -> None:
    with pytest.raises(OpenError, match=r"authentic but|larger than MAX_SIZE"):
        unseal(seal(text))


@pytest.mark.parametrize("version", [..., None, 0, -1, True, 1.0, "1", [], {}])
def test_without_a_wire_version_nothing_is_read(version: Any) -> None:
    with pytest.raises(OpenError, match="no wire version"):
        unseal(resealed(v=version))


@pytest.mark.parametrize("version", [VERSION + 1, 10**9])
def test_a_newer_version_is_kept_for_a_newer_worker(version: int) -> None:
    with pytest.raises(NewerWire, match=f"version {version}; this release reads up to 1") as caught:
        unseal(resealed(v=version, id=..., kwargs="changed beyond recognition", waiting=3))
    assert caught.value.data is not None
    assert caught.value.data["waiting"] == 3


@pytest.mark.parametrize("key", ["id", "at", "to", "signal", "sender", "kwargs", "context"])
def test_no_required_key_may_be_missing(key: str) -> None:
    with pytest.raises(OpenError, match=f"has no '{key}'"):
        unseal(resealed(**{key: ...}))


NO_TEXT: list[Any] = [None, 5, 1.5, True, [], {}, ["a"]]
NO_OBJECT: list[Any] = [None, 5, 1.5, True, [], "{}", [["a", 1]]]
NO_COUNT: list[Any] = [None, -1, 1.0, True, "1", [], {}, 2**31, 10**400]
NO_TIME: list[Any] = [-1, -0.5, True, "1", [], {}, 253402300800, 10**400]
WRONG = {
    "id": NO_TEXT,
    "at": [None, *NO_TIME],
    "to": NO_TEXT,
    "signal": NO_TEXT[1:],
    "kwargs": NO_OBJECT,
    "context": NO_OBJECT,
    "attempt": [0, *NO_COUNT],
    "crashes": NO_COUNT,
    "depth": NO_COUNT,
    "waiting": [None, *NO_TIME],
}


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key, values in WRONG.items() for value in values],
    ids=lambda value: str(value)[:12],
)
def test_no_key_may_hold_what_it_must_not(key: str, value: Any) -> None:
    with pytest.raises(OpenError, match=f"authentic but its '{key}' is not"):
        unseal(resealed(**{key: value}))


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1e400"])
def test_no_number_is_read_as_infinite(number: str) -> None:
    text = envelope().to_text().replace("1790000000.125", number)
    with pytest.raises(OpenError, match="not the JSON"):
        unseal(seal(text))


def test_keys_that_this_release_does_not_know_are_left_out() -> None:
    assert unseal(resealed(trace="abc", __class__="x")) == envelope()


# --- Age -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def _two_minutes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: envelope().created + 120)


@pytest.mark.usefixtures("_two_minutes_later")
@pytest.mark.parametrize(("age", "opened"), [(None, True), (121, True), (120, True), (119, False), (0.001, False)])
def test_a_payload_older_than_max_age_is_not_opened(age: float | None, opened: bool) -> None:
    assert opens(seal(envelope().to_text()), DEFERRED_SIGNALS={"MAX_AGE": age}) is opened


@pytest.mark.usefixtures("_two_minutes_later")
@override_settings(DEFERRED_SIGNALS={"MAX_AGE": 1})
def test_the_age_is_judged_after_the_signature_and_said() -> None:
    payload = seal(envelope().to_text())
    with pytest.raises(OpenError, match="older than MAX_AGE"):
        unseal(payload)
    with pytest.raises(OpenError, match="signature"):
        unseal(payload + "x")


@pytest.mark.usefixtures("_two_minutes_later")
@override_settings(DEFERRED_SIGNALS={"MAX_AGE": 1})
def test_a_sender_whose_clock_is_ahead_is_believed() -> None:
    assert unseal(seal(envelope(created=1790000200.0).to_text())).created == 1790000200.0
