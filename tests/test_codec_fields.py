"""Model fields and the files in them, as the signals of applications for state machines and thumbnails carry them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.db import models

from deferred_signals.codec import Decoder, Encoder
from deferred_signals.exceptions import DecodeError, EncodeError, UnknownName
from deferred_signals.strict_json import dump
from tests.shop.models import Article, Customer, GiftOrder, Order, Ticket


def there_and_back(value: Any) -> Any:
    return Decoder().decode(json.loads(dump(Encoder().encode(value))))


@pytest.mark.parametrize(
    "field",
    [
        Customer._meta.get_field("email"),
        Article._meta.get_field("buyers"),
        Ticket._meta.get_field("code"),
        Order._meta.get_field("customer"),
        GiftOrder._meta.get_field("total"),
    ],
    ids=str,
)
def test_a_field_of_a_model_arrives_as_that_field(field):
    assert there_and_back(field) is field


@pytest.mark.parametrize(
    "field", [models.CharField(max_length=3), Customer._meta.get_field("email").clone()], ids=["no model", "a copy"]
)
def test_a_field_of_no_model_is_refused(field):
    with pytest.raises(EncodeError, match="field of no model"):
        Encoder().encode(field)


def test_a_field_that_this_release_does_not_have_is_waited_for():
    with pytest.raises(UnknownName, match=r"field of shop\.Customer"):
        Decoder().decode({"$modelfield": ["shop.customer", "gone"]})


@pytest.mark.django_db
class TestFiles:
    @pytest.fixture
    def article(self, settings: Any, tmp_path: Any) -> Article:
        settings.MEDIA_ROOT = tmp_path
        article = Article.objects.create(title="Tea")
        article.picture.save("tea.png", ContentFile(b"png"))
        return article

    def test_a_file_of_a_field_arrives_with_its_instance_and_can_be_read(self, article):
        found = there_and_back(article.picture)
        assert (type(found), found, found.instance) == (type(article.picture), article.picture, article)
        assert found.read() == b"png"
        found.close()

    def test_it_arrives_under_the_name_that_it_had_at_the_send(self, article):
        data = Encoder().encode(article.picture)
        Article._base_manager.update(picture="other.png")
        found = Decoder().decode(data)
        assert (found.name, found.instance.picture.name) == ("tea.png", "other.png")

    def test_no_file_is_no_file(self):
        article = Article.objects.create(title="Milk")
        found = there_and_back(article.picture)
        assert (bool(found), found.name) == (False, article.picture.name)

    def test_a_file_that_is_not_stored_yet_is_refused(self):
        article = Article(title="Tea", picture=ContentFile(b"png", "tea.png"))
        with pytest.raises(EncodeError, match="not in its storage yet"):
            Encoder().encode(article.picture)

    @pytest.mark.parametrize(
        "data",
        [None, [], [1, "picture", "x"], [{"$snapshot": ["shop.article", None, True, {"title": "x"}]}, "title", "x"],
         [{"$snapshot": ["shop.article", None, True, {"title": "x"}]}, "picture", 3],
         [{"$snapshot": ["shop.article", None, True, {"title": "x"}]}, "nowhere", "x"]],
    )  # fmt: skip
    def test_nonsense_is_a_decode_error(self, data):
        with pytest.raises(DecodeError):
            Decoder().decode({"$fieldfile": data})
