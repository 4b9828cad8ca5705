"""The options that say what of a send travels: ``fields``, ``exclude`` and ``oversize``."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.db.models.signals import post_delete, post_save

from deferred_signals import Signal, connect
from deferred_signals.exceptions import ConnectError, TooLarge
from deferred_signals.signals import delivery_unpublished
from tests.receivers import first, on_instance, on_item
from tests.shop.models import Article, Customer

rang: Any = Signal()


@pytest.fixture
def small(settings: Any) -> None:
    settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "MAX_SIZE": 1000}


@pytest.mark.django_db(transaction=True)
class TestFields:
    @pytest.mark.parametrize("given", [{"fields": ("name",)}, {"exclude": ["email"]}, {"fields": {"name"}}], ids=str)
    def test_a_snapshot_carries_what_is_asked_for_and_the_key(self, given, link, memory, calls):
        link(post_delete, on_instance, Customer, **given)
        ada = Customer.objects.create(name="Ada", email="secret@example.com")
        pk = ada.pk
        ada.delete()
        assert "secret@example.com" not in memory.payloads[0][1]
        memory.deliver()
        [(_, _, kwargs)] = calls
        assert (kwargs["instance"].pk, kwargs["instance"].name) == (pk, "Ada")
        assert kwargs["instance"].get_deferred_fields() == {"email"}

    @pytest.mark.parametrize(
        ("given", "reason"),
        [
            ({"fields": ("a",), "exclude": ("b",)}, "not both"),
            ({"fields": ("a",), "instance": "reference"}, "are for snapshots"),
            ({"exclude": ("a",), "instance": "reference"}, "are for snapshots"),
            ({"fields": "name"}, "must be a tuple of the names of model fields"),
            ({"exclude": ("",)}, "must be a tuple of the names of model fields"),
        ],
        ids=str,
    )
    def test_what_makes_no_sense_is_refused(self, given, reason):
        with pytest.raises(ConnectError, match=reason):
            connect(post_save, on_instance, Customer, deferred=True, **given)


@pytest.mark.usefixtures("small")
class TestOversize:
    def test_by_default_the_send_raises_and_names_the_largest_argument(self, link, memory):
        link(rang, on_item)
        with pytest.raises(TooLarge, match=r"^kwargs\['item'\] .*MAX_SIZE is 1,000.*fields= and oversize="):
            rang.send(sender=None, item="x" * 2000, little=1)
        assert not memory.payloads

    @pytest.mark.parametrize("item", ["x" * 2000, list(range(2000))], ids=["one long text", "many values"])
    def test_with_log_it_is_logged_and_signalled_and_the_send_goes_on(self, item, link, memory, caplog):
        told: list[Any] = []

        def observer(delivery: Any, error: Any, **kwargs: Any) -> None:
            told.append((delivery, type(error)))

        link(rang, on_item, oversize="log")
        delivery_unpublished.connect(observer, sender=on_item)
        try:
            with caplog.at_level(logging.ERROR, "deferred_signals"):
                [(_, answer)] = rang.send(sender=None, item=item)
        finally:
            delivery_unpublished.disconnect(observer, sender=on_item)
        assert answer is None
        assert not memory.payloads
        assert told == [(None, TooLarge)]
        assert "No delivery is made" in caplog.text
        assert "tests.receivers.on_item" in caplog.text

    @pytest.mark.django_db(transaction=True)
    def test_a_row_that_is_too_large_can_be_deleted(self, link, memory):
        link(post_delete, on_instance, Article, oversize="log")
        article = Article.objects.create(title="Tea", tags={"text": "x" * 2000})
        article.delete()
        assert not Article._base_manager.exists()
        assert not memory.payloads

    def test_another_word_is_refused(self):
        with pytest.raises(ConnectError, match='"raise" or "log"'):
            connect(rang, first, deferred=True, oversize="ignore")
