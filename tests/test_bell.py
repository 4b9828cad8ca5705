"""Doorbells: what they say, and what is taken for one."""

import uuid

import pytest

from deferred_signals.bell import MOST, VERSION, Bell, is_bell, read
from deferred_signals.envelope import seal
from deferred_signals.exceptions import NewerWire, OpenError
from deferred_signals.signature import signed
from deferred_signals.strict_json import dump
from tests.travel import envelope

IDS = (uuid.UUID("5b0e7f5c-6a3e-4b52-9a8e-2f6e4f3c1d10"), uuid.UUID("77a1b7f4-0a54-4cf5-8f7a-9c8f7f0c0a11"))
TEXT = '{"bell":"other","v":1,"ids":["5b0e7f5c-6a3e-4b52-9a8e-2f6e4f3c1d10","77a1b7f4-0a54-4cf5-8f7a-9c8f7f0c0a11"]}'


def test_a_doorbell_says_alias_and_ids_and_nothing_else():
    assert Bell("other", IDS).to_text() == TEXT


def test_it_is_read_as_it_was_written():
    assert read(Bell("other", IDS).payload) == Bell("other", IDS)


def test_the_specimen_of_the_first_release_is_read():
    assert read(signed(TEXT)) == Bell("other", IDS)


def test_a_delivery_is_no_doorbell():
    payload = seal(envelope().to_text())
    assert not is_bell(payload)
    with pytest.raises(OpenError):
        read(payload)


@pytest.mark.parametrize("payload", [None, 1, b'{"bell":', ["bell"], "", " " + TEXT], ids=str)
def test_what_is_no_text_that_begins_as_one_is_none(payload):
    assert not is_bell(payload)


def test_one_of_a_newer_version_is_told_apart_from_nonsense():
    with pytest.raises(NewerWire, match=f"version {VERSION + 1}"):
        read(signed(dump({"bell": "other", "v": VERSION + 1, "rows": "all"}).replace('"rows"', '"ids"')))


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"bell":"other"}', '{"bell":"other","v":1}', "{"])
def test_nonsense_is_refused_even_if_it_is_signed(text):
    with pytest.raises(OpenError, match="authentic"):
        read(signed(text))


def test_it_rings_for_so_many_and_no_more():
    assert len(read(Bell("other", IDS[:1] * MOST).payload).ids) == MOST
    with pytest.raises(OpenError):
        read(Bell("other", IDS[:1] * (MOST + 1)).payload)
