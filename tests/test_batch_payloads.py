"""Batches that no sender of ours makes: not signed by us, damaged, or signed by us but saying anything."""

from __future__ import annotations

import contextlib
import json
import uuid
from typing import Any

import pytest
from django.db import transaction
from hypothesis import given
from hypothesis import strategies as st

from deferred_signals import Signal, batch, keeping
from deferred_signals.backends.memory import MemoryBackend
from deferred_signals.batch_run import run_all
from deferred_signals.bell import text_of as bell_text
from deferred_signals.envelope import seal
from deferred_signals.exceptions import NewerWire, OpenError
from deferred_signals.strict_json import dump
from tests.receivers import first

from .test_codec_hostile import JSON
from .travel import envelope

bell: Any = Signal()


@pytest.fixture
def payload(link: Any, memory: MemoryBackend, settings: Any) -> str:
    settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "PARALLELISM": 1}
    link(bell, first, batch_size=10)
    with transaction.atomic():
        for number in range(3):
            bell.send(sender=None, number=number)
    return memory.payloads.pop()[1]


def of(*members: Any) -> str:
    """A batch that is signed as ours are."""
    return seal(json.dumps({"batch": 1, "of": [*members]}, separators=(",", ":")))


def members_of(text: str) -> list[Any]:
    data = json.loads(text)
    return [{**data["all"], **member} for member in data["of"]]


def can_be_dumped(value: Any) -> bool:
    try:
        dump(value).encode()
    except (ValueError, RecursionError):
        return False
    return True


OBJECTS = st.dictionaries(st.text(max_size=3), JSON, max_size=3).filter(can_be_dumped)


def is_dead_unread(payload: str) -> None:
    ((delivery, outcome),) = run_all(payload)
    assert (delivery, outcome.state) == (None, "dead")
    assert isinstance(outcome.error, OpenError)


@pytest.mark.django_db(transaction=True)
class TestWithoutTheKey:
    def test_a_forged_one_is_dead_and_nobody_is_run(self, payload, calls):
        text, _, signature = payload.rpartition(":")
        for forged in (
            text,
            f"{text}:",
            f"{text}:{signature[::-1]}",
            f"{text.replace('first', 'second')}:{signature}",
            f"{text}: {signature}",
            '{"batch":1,"of":[]}',
        ):
            is_dead_unread(forged)
        assert not calls

    def test_a_truncated_one_is_dead_wherever_it_is_cut(self, payload, calls):
        for length in range(len('{"batch":'), len(payload), 7):
            is_dead_unread(payload[:length])
        assert not calls

    def test_one_with_a_flipped_bit_is_dead(self, payload, calls):
        for place in range(len('{"batch":'), len(payload), 5):
            is_dead_unread(payload[:place] + chr(ord(payload[place]) ^ 1) + payload[place + 1 :])
        assert not calls

    def test_one_that_is_much_too_large_is_refused_before_it_is_looked_at(self, monkeypatch):
        monkeypatch.setattr(batch, "verified", None)  # would raise
        with pytest.raises(OpenError, match="much larger than MAX_SIZE"):
            batch.read('{"batch":' + "1" * 10_000_000)

    def test_lone_surrogates_are_dead(self):
        is_dead_unread('{"batch":1,"of":["\ud800"]}:x')

    def test_a_member_signed_alone_is_no_batch(self, payload):
        text, _, signature = payload.rpartition(":")
        (member, *_) = members_of(text)
        is_dead_unread(f"{dump(member)}:{signature}")


class TestWithTheKey:
    @pytest.mark.parametrize(
        "text",
        [
            '{"batch":1',
            '{"batch":1}',
            '{"batch":1,"of":[]}',
            '{"batch":1,"of":{}}',
            '{"batch":1,"of":"all"}',
            '{"batch":1,"of":null}',
            '{"batch":0,"of":[1]}',
            '{"batch":-1,"of":[1]}',
            '{"batch":true,"of":[1]}',
            '{"batch":1.0,"of":[1]}',
            '{"batch":"1","of":[1]}',
            '{"batch":[],"of":[1]}',
            '{"batch":1,"batch":2,"of":[1]}',
            '{"batch":1,"all":null,"of":[{}]}',
            '{"batch":1,"all":[],"of":[{}]}',
            '{"batch":1,"all":{},"all":{},"of":[{}]}',
            '{"batch":1,"of":[1e999]}',
            '{"batch":1,"of":[NaN]}',
            '{"batch":1,"of":["\\ud800"]}',
            '{"batch":1,"of":' + "[" * 100_000,
            '{"batch":1,"of":' + "[" * 800 + "]" * 800 + "}",
        ],
        ids=lambda text: text[:40],
    )
    def test_what_is_not_as_we_write_it_is_dead(self, text):
        is_dead_unread(seal(text))

    def test_too_many_members_are_dead_before_any_is_looked_at(self, monkeypatch):
        monkeypatch.setattr(batch, "MOST", 3)
        assert len(batch.read(of(1, 2, 3))) == 3
        with pytest.raises(OpenError):
            batch.read(of(1, 2, 3, 4))

    @pytest.mark.parametrize(
        "member",
        [
            None, 5, "text", [], {}, {"v": 0}, {"v": True}, {"v": 1},
            {"batch": 1, "of": [{}]},
            json.loads(bell_text("default", [uuid.UUID(int=1)])),
            json.loads(envelope(receiver="x" * 2000).to_text()),
            json.loads(envelope(id="two\nlines").to_text()),
            {**json.loads(envelope().to_text()), "encrypted": "both"},
        ],
        ids=lambda member: str(member)[:40],
    )  # fmt: skip
    @pytest.mark.django_db(transaction=True)
    def test_a_member_that_is_none_is_dead_and_does_not_stop_the_others(self, member, payload, calls):
        (good, *_) = members_of(payload.rpartition(":")[0])
        ended = run_all(of(member, good, member))
        assert [outcome.state for _, outcome in ended] == ["dead", "dead", "succeeded"]
        assert len(calls) == 1

    def test_a_doorbell_and_a_batch_inside_are_answered_by_nobody(self, monkeypatch, calls):
        class Deaf:
            def bury(self, *args: Any) -> None: ...

            def __getattr__(self, name: str) -> Any:
                raise AssertionError(f"the outbox is asked for {name}")

        monkeypatch.setattr(keeping, "_outbox", Deaf())
        ring = json.loads(bell_text("default", [uuid.UUID(int=1)]))
        ended = run_all(of(ring, {"batch": 1, "of": [ring]}))
        assert [outcome.state for _, outcome in ended] == ["dead", "dead"]

    @pytest.mark.django_db(transaction=True)
    def test_a_member_older_than_max_age_is_dead(self, payload, settings, calls):
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "MAX_AGE": 3600}
        data = json.loads(payload.rpartition(":")[0])
        data["of"][1]["at"] = 1
        ended = run_all(seal(json.dumps(data, separators=(",", ":"))))
        assert sorted(outcome.state for _, outcome in ended) == ["dead", "succeeded", "succeeded"]

    @pytest.mark.django_db(transaction=True)
    def test_what_holds_for_all_holds_where_a_member_says_nothing_else(self, payload, calls):
        one, two, _ = members_of(payload.rpartition(":")[0])
        data = {"batch": 1, "all": one, "of": [{}, {"id": "x"}, two, {"id": "y", "kwargs": {}}, {"to": 5}, None]}
        ended = run_all(seal(json.dumps(data)))
        assert [delivery and delivery.id for delivery, _ in ended] == [None, None, one["id"], "x", two["id"], "y"]
        assert [call[2].get("number") for call in calls] == [0, 0, 1, None]

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("odd", [0, 1, 2])
    def test_what_is_left_of_one_is_no_larger_where_one_member_says_something_else(self, odd, payload):
        one, *_ = members_of(payload.rpartition(":")[0])
        common = {**one, "context": {"language": "en", "tenant": "t" * 1000}}
        own: list[Any] = [{"id": str(number)} for number in range(20)]
        own[odd] = {**common, "id": "odd", "context": {"language": "de"}, "depth": 1}
        text = dump({"batch": 1, "all": common, "of": own})
        members = batch.read(seal(text))
        rest = batch.rest_of(members)
        assert batch.read(seal(rest)) == members
        assert len(rest) <= len(text)
        assert batch.rest_of(batch.read(seal(rest))) == rest

    @given(JSON)
    def test_whatever_it_says_it_ends_in_outcomes(self, value):
        for text in (of(value), of(value, value)):
            for delivery, outcome in run_all(text):
                assert outcome.state in {"dead", "retry"}
                assert delivery is None

    @given(JSON, JSON, JSON)
    def test_whatever_stands_in_the_place_of_its_parts_it_is_read_or_refused(self, version, shared, members):
        parts = (json.dumps(version), f'"all":{json.dumps(shared)}', f'"of":{json.dumps(members)}')
        text = seal('{"batch":' + ",".join(parts) + "}")
        with contextlib.suppress(OpenError, NewerWire):
            assert type(batch.read(text)) is list

    @given(st.lists(JSON.filter(can_be_dumped), min_size=1, max_size=20))
    def test_members_are_read_as_they_were_written(self, members):
        assert batch.read(seal(batch.text_of(dump(one) for one in members))) == members

    @given(OBJECTS, st.lists(OBJECTS, min_size=1, max_size=9), st.data())
    def test_the_rest_of_a_batch_has_the_members_that_it_had(self, shared, owns, data):
        members = batch.read(seal(batch.text_of(map(dump, owns), dump(shared))))
        assert members == [{**shared, **own} for own in owns]
        rest = members[data.draw(st.integers(0, len(members) - 1)) :]
        assert batch.read(seal(batch.rest_of(rest))) == rest
