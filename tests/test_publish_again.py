"""``publish_again()``: what could not be published is saved by an observer, and leaves later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.db import transaction

from deferred_signals import Delivery, Signal, publish_again
from deferred_signals.exceptions import OpenError, PublishError, UnknownReceiver
from deferred_signals.signals import delivery_published, delivery_unpublished

from .receivers import first

# Any: Django's stubs say that every response is a string.
bell: Any = Signal()


@pytest.fixture
def saved() -> Iterator[list[str]]:
    """What an observer saves."""
    kept: list[str] = []

    def save(delivery: Delivery, **kwargs: Any) -> None:
        kept.append(delivery.payload)

    delivery_unpublished.connect(save)
    yield kept
    delivery_unpublished.disconnect(save)


@pytest.fixture
def outage(memory: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The backend takes nothing, until it is undone."""
    with monkeypatch.context() as patch:

        def refuse(deliveries: Sequence[Delivery]) -> list[tuple[Delivery, Exception]]:
            return [(delivery, OSError("away")) for delivery in deliveries]

        patch.setattr(memory, "publish", refuse)
        yield patch


def test_it_leaves_under_its_id_with_its_arguments_and_the_receivers_options(memory, link, saved, outage, calls):
    link(bell, first, queue="mail", priority=3)
    [(_, sent)] = bell.send(sender=None, tone="high")
    outage.undo()
    published: list[Delivery] = []

    def note(delivery: Delivery, **kwargs: Any) -> None:
        published.append(delivery)

    delivery_published.connect(note)
    again = publish_again(*saved)
    delivery_published.disconnect(note)
    assert published == [again]
    assert again.id == sent.id
    assert (again.options.queue, again.options.priority) == ("mail", 3)
    memory.deliver()
    assert calls[0][2]["tone"] == "high"


@pytest.mark.django_db(transaction=True)
def test_it_leaves_at_once_also_within_a_transaction_that_is_rolled_back(memory, link, saved, outage):
    link(bell, first)
    bell.send(sender=None)
    outage.undo()
    with transaction.atomic():
        publish_again(*saved)
        assert len(memory.payloads) == 1
        transaction.set_rollback(True)
    assert len(memory.payloads) == 1


def test_what_still_cannot_be_published_raises_and_is_told_again(memory, link, saved, outage):
    link(bell, first)
    bell.send(sender=None)
    with pytest.raises(PublishError, match="first") as caught:
        publish_again(saved[0])
    assert isinstance(caught.value.__cause__, OSError)
    assert saved[1] == saved[0]


def test_an_encrypted_one_stays_as_it_is(memory, link, saved, outage, settings, calls):
    keys = [Fernet.generate_key()]
    settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "ENCRYPTION_KEYS": keys}
    link(bell, first, encrypt=True)
    bell.send(sender=None, tone="secret")
    assert "secret" not in saved[0]
    outage.undo()
    publish_again(*saved)
    assert memory.payloads[0][1] == saved[0]
    memory.deliver()
    assert calls[0][2]["tone"] == "secret"


def test_what_was_saved_and_changed_is_refused(memory, link, saved, outage):
    link(bell, first)
    bell.send(sender=None, tone="high")
    outage.undo()
    with pytest.raises(OpenError, match="signature"):
        publish_again(saved[0].replace("high", "deep"))
    assert not memory.payloads


def test_a_receiver_that_is_not_there_any_more_is_told(memory, link, saved, outage, monkeypatch):
    link(bell, first)
    bell.send(sender=None)
    outage.undo()
    monkeypatch.setattr("deferred_signals.registry._by_name", {})
    with pytest.raises(UnknownReceiver):
        publish_again(*saved)
    assert not memory.payloads
