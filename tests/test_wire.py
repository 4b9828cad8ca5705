"""Messages of every released wire version are read for ever: they are under way while a worker is replaced."""

from __future__ import annotations

import dataclasses
import json
import uuid
from typing import Any

import pytest
from django.test import override_settings

from deferred_signals.codec import Decoder, base, custom
from deferred_signals.encryption import opened
from deferred_signals.envelope import VERSION, Envelope, seal, unseal

from .shop.models import Code, Customer, Line, Ticket
from .wire import shapes  # noqa: F401 - found only because it is imported
from .wire.specimen import FERNET_KEY, FOLDER, KEY, told

SPECIMENS = {int(path.stem[1:]): json.loads(path.read_text(encoding="utf-8")) for path in FOLDER.glob("v*.json")}

pytestmark = pytest.mark.usefixtures("_key")


@pytest.fixture
def _key() -> Any:
    with override_settings(DEFERRED_SIGNALS={"SIGNING_KEYS": [KEY], "ENCRYPTION_KEYS": [FERNET_KEY]}):
        yield


def test_every_version_up_to_this_one_has_a_specimen() -> None:
    assert sorted(SPECIMENS) == list(range(1, VERSION + 1))


@pytest.mark.parametrize("version", SPECIMENS)
def test_the_arguments_of_a_specimen_are_what_they_were(version: int) -> None:
    kwargs = unseal(SPECIMENS[version]["first"]["payload"]).kwargs
    del kwargs["rows"]
    decoder = Decoder()
    assert {name: told(decoder.decode(data)) for name, data in kwargs.items()} == SPECIMENS[version]["arguments"]


@pytest.mark.django_db
@pytest.mark.parametrize("version", SPECIMENS)
def test_the_rows_of_a_specimen_are_found(version: int) -> None:
    rows = [
        Customer.objects.create(pk=42, name="Anna"),
        Line.objects.create(order_id=uuid.UUID(int=7), number=3),
        Ticket.objects.create(code=Code("T1")),
    ]
    envelope = unseal(SPECIMENS[version]["first"]["payload"])
    assert Decoder().decode(envelope.kwargs["rows"]) == rows
    assert Decoder().decode(envelope.sender) is Customer


@pytest.mark.parametrize("version", SPECIMENS)
def test_the_envelope_of_a_retried_specimen_is_what_it_was(version: int) -> None:
    assert unseal(SPECIMENS[version]["retried"]["payload"]) == Envelope(
        id="b5f1c1de-1a50-4d0e-8d0f-1f7f5f0c9c11",
        created=1790000000,
        receiver="shop.receivers.charge",
        signal=None,
        sender=None,
        kwargs={},
        context={},
        attempt=3,
        crashes=1,
        depth=2,
        repeats=1,
        waiting_since=1790000123.5,
    )


@pytest.mark.parametrize("version", SPECIMENS)
def test_an_encrypted_specimen_is_opened(version: int) -> None:
    envelope = unseal(SPECIMENS[version]["encrypted"]["payload"])
    sender, kwargs, context = opened(envelope)
    assert dataclasses.replace(envelope, encrypted=None, sender=sender, kwargs=kwargs, context=context) == Envelope(
        id="0d5b7c52-7f0c-4b8e-8b7e-3a3f1c9a6e21",
        created=1790000000.5,
        receiver="shop.receivers.reset_password",
        signal="shop.signals.password_forgotten",
        sender={"$model": "shop.customer"},
        kwargs={"link": "https://shop.example/reset/abc/"},
        context={"language": "en", "timezone": "UTC"},
        attempt=2,
        depth=1,
    )


#: Tasks are of Django 6, or of a package: what a message names of them depends on which there is.
NOT_IN_THE_SPECIMEN = {"$task"}


def test_the_newest_specimen_has_every_tag_of_the_wire() -> None:
    base.load()
    text = unseal(SPECIMENS[VERSION]["first"]["payload"]).to_text()
    lacking = {tag for tag in base.tags.keys() - custom._owners.keys() if f'"{tag}":' not in text}
    assert lacking == NOT_IN_THE_SPECIMEN


def test_this_release_writes_its_specimen_byte_for_byte() -> None:
    for name in ("first", "retried", "encrypted"):
        payload = SPECIMENS[VERSION][name]["payload"]
        assert seal(unseal(payload).to_text()) == payload
