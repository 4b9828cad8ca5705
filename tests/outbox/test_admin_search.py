"""Looking for deliveries: by id, by receiver, and by what they are about."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.contrib.auth.models import User
from django.test import override_settings

from deferred_signals.outbox.admin import searching
from deferred_signals.outbox.models import State
from tests import receivers
from tests.shop.models import Customer

from .admin_site import LIST, VIEW, all_rows, client_of, knock, put, text_of, urls

pytestmark = [pytest.mark.django_db(databases=["default", "other"]), urls]


@pytest.fixture
def about(link, memory):
    """Put a row of a delivery that was sent with these arguments."""
    link(knock, receivers.first, on_commit=False)

    def send(state: str = State.DEAD, /, sender: Any = None, **kwargs: Any) -> str:
        knock.send(sender, **kwargs)
        _, payload = memory.payloads.pop()
        return str(put(payload, state).delivery_id)

    return send


@pytest.fixture
def search():
    browser = client_of(VIEW)

    def look(term: str, **query: str) -> list[str]:
        return re.findall(r">([0-9a-f-]{36})</a>", text_of(browser.get(LIST, {"q": term, **query})))

    look.page = lambda term: text_of(browser.get(LIST, {"q": term}))  # type: ignore[attr-defined]
    return look


@pytest.fixture
def ada() -> User:
    return User.objects.create(pk=42, username="lovelace")


class TestTheSearch:
    def test_finds_a_delivery_by_its_id(self, about, search):
        one, _ = about(), about()
        assert search(one) == [one]
        assert search(one.replace("-", "")) == [one]
        assert search(str(uuid.uuid4())) == []

    def test_finds_a_receiver_by_a_part_of_its_name(self, about, search):
        one = about()
        assert search("ceivers.FIR") == [one]
        assert search("second") == []

    def test_for_nothing_finds_everything(self, about, search):
        one = about()
        assert search(" ") == [one]

    def test_says_how_it_is_done(self, about, search):
        about()
        assert "auth.User:42" in search.page("")


class TestAnInstance:
    def test_is_found_wherever_it_stands(self, about, search, ada):
        found = [
            about(instance=ada),
            about(deep={"list": [{"a": (1, ada)}]}),
            about(people=User.objects.filter(pk=42)),
            about(unsaved=User(pk=42, username="as it was")),
        ]
        about(instance=User.objects.create(pk=420))
        about(number=42)
        about(text="auth.user 42")
        assert search("auth.User:42") == found[::-1]
        assert search(" auth.user : 42 ") == found[::-1]

    def test_is_not_one_of_another_model_of_the_same_key(self, about, search):
        one = about(instance=Customer.objects.create(pk=42, name="x"), who=User(pk=7))
        about(instance=User.objects.create(pk=42))
        assert search("shop.Customer:42") == [one]

    def test_is_found_with_the_other_filters(self, about, search, ada):
        about(instance=ada)
        waiting = about(State.PENDING, instance=ada)
        assert search("auth.User:42", state="pending") == [waiting]

    def test_that_is_sent_as_a_proxy_is_the_same(self, about, search):
        from tests.shop.models import Regular

        one = about(instance=Regular.objects.create(pk=9, name="x"))
        assert search("shop.Regular:9") == [one]
        assert search("shop.Customer:9") == [one]

    @pytest.mark.parametrize(
        "term", ["auth.Nobody:1", "nonsense:1", "auth.User:", "auth.User:x", ":", "a.b.c:1", "auth.User:1,2"]
    )
    def test_that_cannot_be_is_told(self, about, search, term):
        about()
        assert search(term) == []
        assert '<li class="warning">There is no model instance' in search.page(term)

    def test_is_shown_as_text_when_it_is_told(self, search):
        said = search.page("<b>:1")
        assert "<b>" not in said
        assert "&lt;b&gt;" in said

    def test_is_looked_for_among_the_newest_and_the_page_says_so(self, about, search, ada, monkeypatch):
        about(instance=ada)
        newest = about(instance=ada)
        assert "in all deliveries of this list" in search.page("auth.User:42")
        monkeypatch.setattr(searching, "NEWEST", 1)
        assert search("auth.User:42") == [newest]
        assert "not in all" in search.page("auth.User:42")

    def test_is_looked_for_in_so_many_payloads(self, about, search, ada, monkeypatch):
        about(instance=ada)
        newest = about(instance=ada)
        monkeypatch.setattr(searching, "OPENED", 1)
        assert search("auth.User:42") == [newest]
        assert "not in all" in search.page("auth.User:42")

    def test_is_not_found_in_what_is_forged_or_encrypted(self, link, about, memory, search, ada):
        about(instance=ada)
        row = all_rows().get()
        all_rows().update(payload=f"{row.payload}x")
        settings = {"BACKEND": "memory", "ENCRYPT": True, "ENCRYPTION_KEYS": [Fernet.generate_key().decode()]}
        with override_settings(DEFERRED_SIGNALS=settings):
            about(instance=ada)
            assert search("auth.User:42") == []
        assert "encrypted" in search.page("auth.User:42")

    def test_of_a_composite_or_unusual_key_is_found_by_its_text(self):
        instance = searching.Instance("shop.Seat 3,A", frozenset({"shop.seat"}), ("3", "A"), ("row", "place"))

        def found(tag: str, data: Any) -> bool:
            return searching._is(tag, data, instance)

        assert found("$ref", ["shop.seat", {"$tuple": [3, "A"]}, "default"])
        assert found("$snapshot", ["shop.seat", None, False, {"row": 3, "place": {"$field": "A"}}])
        assert found("$queryset", ["shop.seat", "default", [{"$tuple": [2, "A"]}, {"$tuple": [3, "A"]}]])
        assert not found("$ref", ["shop.seat", {"$tuple": [3, "B"]}, "default"])
        assert not found("$ref", ["shop.table", {"$tuple": [3, "A"]}, "default"])
        assert not found("$ref", "nonsense")
        assert not found("$snapshot", ["shop.seat", None, False, {}])
