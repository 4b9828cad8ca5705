"""The page of one delivery, in which texts of others are shown as texts."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

import pytest
from cryptography.fernet import Fernet
from django.core.signing import Signer
from django.http import QueryDict
from django.test import Client, override_settings

from deferred_signals.envelope import seal
from deferred_signals.outbox import attempts
from deferred_signals.outbox.admin import payloads
from deferred_signals.outbox.admin.facts import timeline
from deferred_signals.outbox.admin.payloads import shown
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.models import Attempt, Failing, State
from deferred_signals.strict_json import dump, parse
from tests import receivers
from tests.shop.models import Account

from .admin_site import ALL, HOSTILE, LIST, VIEW, all_rows, client_of, knock, page, put, text_of, urls

pytestmark = [pytest.mark.django_db(databases=["default", "other"]), urls]


class Login(NamedTuple):
    user: str
    password: str


@pytest.fixture
def sent(link, memory):
    """The payload of a delivery with these arguments."""
    link(knock, receivers.first, on_commit=False)

    def send(**kwargs: object) -> str:
        knock.send(None, **kwargs)
        _, payload = memory.payloads.pop()
        return str(payload)

    return send


@pytest.fixture
def browser() -> Client:
    return client_of(VIEW)


class TestThePage:
    def test_says_all_that_the_row_says(self, sent, browser):
        row = put(
            sent(number=7), State.DEAD, worker="7@host", loss="signal 9", attempt=3, order_key="mail:1",
            error_type="shop.Oops", error="no luck", traceback="Traceback\n  in mail",
        )  # fmt: skip
        said = text_of(browser.get(page(row.number, "change")))
        wanted = (str(row.delivery_id), "tests.receivers.first", "7@host", "signal 9", "mail:1", "shop.Oops", "no luck")
        for what in (*wanted, "in mail", "&quot;number&quot;: 7", "dead in attempt 3", "History", "default"):
            assert what in said, what
        assert "<input" not in said.partition('id="outboxdelivery_form"')[2].replace('<input type="hidden"', "")

    def test_shows_html_of_others_as_text_everywhere(self, sent):
        row = put(
            sent(text=HOSTILE), State.DEAD, receiver=HOSTILE[:255], signal=HOSTILE, worker=HOSTILE, loss=HOSTILE,
            order_key=HOSTILE, error_type=HOSTILE, error=HOSTILE, traceback=HOSTILE,
        )  # fmt: skip
        line = Attempt(row=row, lease=1, attempt=1, outcome="dead", worker=HOSTILE, error_type=HOSTILE, error=HOSTILE)
        line.ended = DatabaseNow()
        line.save()
        browser = client_of(*ALL, name="eve")
        pages = (page(row.number, "change"), page(row.number, "redeliver"), LIST)
        for path in (*pages, f"{LIST}failures/", f"{LIST}dashboard/", f"{LIST}?q={HOSTILE}"):
            said = text_of(browser.get(path))
            assert HOSTILE not in said, path
            assert "<script>alert" not in said, path
            assert "alert(" in said, path

    def test_of_a_row_that_is_not_there_is_none(self, browser):
        assert browser.get(page(999, "change")).status_code == 302
        assert browser.get(page(999, "redeliver")).status_code == 403

    def test_links_to_what_may_be_done_by_whom(self, sent, browser):
        dead, waiting, over = (put(sent(), state) for state in (State.DEAD, State.PENDING, State.SUCCEEDED))

        def links(browser: Client, number: int) -> list[str]:
            return re.findall(r"\d+/(redeliver|discard)/", text_of(browser.get(page(number, "change"))))

        boss = client_of(*ALL, name="boss")
        assert links(boss, dead.number) == ["redeliver", "discard"]
        assert links(boss, waiting.number) == ["discard"]
        assert links(boss, over.number) == []
        assert links(browser, dead.number) == []
        assert links(client_of(VIEW, "discard", name="bob"), dead.number) == ["discard"]

    def test_is_of_the_database_that_is_named(self, sent, browser):
        row = put(sent(), alias="other")
        assert browser.get(page(row.number + 1000, "change")).status_code == 302
        said = text_of(browser.get(page(row.number, "change") + "?database=other"))
        assert str(row.delivery_id) in said
        assert f'href="{page(row.number, "history")}?database=other"' in said
        assert browser.get(page(row.number, "history") + "?database=other").status_code == 200


class TestTheTimeline:
    def told(self, row) -> list[str]:
        return [one.what for one in timeline(all_rows().get(number=row.number))]

    def test_tells_of_each_attempt_that_failed(self, sent, browser):
        row = put(sent(), State.DEAD, attempt=2)
        lines = (
            ("retry", "7@host", "ValueError", "no luck"),
            ("lost", "8@host", "", "signal 9"),
            ("dead", "9@host", "KeyError", "none"),
        )
        for lease, (outcome, worker, kind, error) in enumerate(lines, 1):
            Attempt.objects.create(
                row=row, lease=lease, attempt=lease, outcome=outcome, started=DatabaseNow(-5), ended=DatabaseNow(),
                worker=worker, error_type=kind, error=error,
            )  # fmt: skip
        assert self.told(row) == [
            "written (durable)", "attempt 1: retry", "attempt 2: worker lost", "attempt 3: dead", "dead in attempt 2",
        ]  # fmt: skip
        said = text_of(browser.get(page(row.number, "change")))
        assert "8@host" in said
        assert "attempt 2: worker lost" in said
        assert f"the last {attempts.MOST} claims" in said

    def test_ends_with_how_the_delivery_stands(self, sent):
        ends = {state: self.told(put(sent(), state))[-1] for state in State}
        assert ends == {
            State.PENDING: "waits for attempt 1, which may begin",
            State.RUNNING: "attempt 1 runs; its lease ends",
            State.SUCCEEDED: "attempt 1 succeeded",
            State.DISCARDED: "discarded in attempt 1",
            State.DEAD: "dead in attempt 1",
        }

    def test_says_once_what_a_delivery_died_of(self, sent):
        row = put(sent(), State.DEAD, error_type="KeyError", error="none")
        Attempt.objects.create(row=row, lease=1, attempt=1, outcome="retry", ended=DatabaseNow(), error="no luck")
        assert [one.error for one in timeline(all_rows().get())] == ["", "no luck", "none"]
        Attempt.objects.create(row=row, lease=2, attempt=2, outcome="dead", ended=DatabaseNow(), error="none")
        assert [one.error for one in timeline(all_rows().get())] == ["", "no luck", "none", ""]

    def test_stands_before_all_the_rest_to_the_second(self, sent, browser):
        row = put(sent(), State.DEAD)
        said = text_of(browser.get(page(row.number, "change")))
        assert said.index("<h2>Timeline</h2>") < said.index("field-delivery_id")
        assert re.search(r"<td>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d</td>", said)

    def test_does_without_a_table_that_is_not_made_yet(self, sent, browser, monkeypatch):
        row = put(sent())
        Attempt.objects.create(row=row, lease=1, attempt=1, outcome=Failing.RETRY, ended=DatabaseNow())
        monkeypatch.setattr(attempts, "are_kept", lambda alias: False)
        assert self.told(row) == ["written (durable)", "dead in attempt 1"]
        assert browser.get(page(row.number, "change")).status_code == 200


class TestThePayload:
    def test_is_shown_as_json(self, sent):
        said = json.loads(shown(sent(number=7, text="Grüße")))
        assert said["kwargs"] == {"number": 7, "text": "Grüße"}
        assert "Grüße" in shown(sent(text="Grüße"))

    @pytest.mark.parametrize(
        "kwargs",
        [
            {"password": "hunter2"},
            {"deep": [{"api_key": {"a": ["hunter2"]}}]},
            {"text": "see password=hunter2 there"},
            {"url": "https://ada:hunter2@example.org/"},
            {"other": {1: 2, "token": "hunter2"}},
            {"headers": [("Authorization", "hunter2")]},
            {"query": QueryDict("password=hunter2&a=1")},
            {"account": Account(name="x", password="hunter2")},
            {"headers": [["Accept", "*/*"], ["Authorization", "Bearer hunter2"]]},
            {"header": ["Authorization", "Bearer hunter2"]},
            {"login": Login("ada", "hunter2")},
            {"logins": {Login("ada", "hunter2"): [Login("bob", "hunter2")]}},
            {"text": Login("password=hunter2", "")},
        ],
        ids=[
            "argument",
            "deep",
            "text",
            "url",
            "dict",
            "pairs",
            "querydict",
            "snapshot",
            "lists",
            "list",
            "namedtuple",
            "namedtuples",
            "text in a namedtuple",
        ],
    )
    def test_has_no_secrets(self, sent, kwargs):
        payload = sent(**kwargs)
        assert "hunter2" in payload
        assert "hunter2" not in shown(payload)

    def test_of_a_named_tuple_is_shown_as_far_as_its_fields_are_known(self, sent):
        known = sent(login=Login("ada", "hunter2"))
        stars = payloads._STARS
        path = f"{__name__}.Login"
        assert json.loads(shown(known))["kwargs"]["login"] == {"$namedtuple": [path, ["ada", stars]]}
        for name, values in ((path, ["ada", stars, stars]), ("shop.Gone", [stars] * 3), ("json.dumps", [stars] * 3)):
            data = {"$namedtuple": [name, ["ada", "hunter2", "more"]]}
            assert payloads._cleansed(data) == {"$namedtuple": [name, values]}
        assert payloads._cleansed({"$namedtuple": "hunter2"}) == {"$namedtuple": stars}

    def test_is_still_told_where_only_a_model_is_called_like_a_secret(self):
        data = {"$changes": ["auth.user", {"name": ["a", "b"]}], "$ref": ["auth.user", 42, "default"]}
        assert payloads._cleansed(data) == data

    def test_that_is_encrypted_is_only_said_to_be(self, sent):
        settings = {"BACKEND": "memory", "ENCRYPT": True, "ENCRYPTION_KEYS": [Fernet.generate_key().decode()]}
        with override_settings(DEFERRED_SIGNALS=settings):
            payload = sent(number="hunter2")
            said = shown(payload)
        assert set(json.loads(said).values()) == {"encrypted"}

    @pytest.mark.parametrize("payload", ["", "nonsense hunter2", '{"kwargs":"hunter2"}:abc'])
    def test_that_cannot_be_verified_is_not_shown(self, payload):
        said = shown(payload)
        assert said.startswith("Cannot be verified")
        assert "hunter2" not in said

    def test_of_another_key_is_not_shown(self, sent):
        text = sent(number="hunter2").rpartition(":")[0]
        assert "hunter2" not in shown(Signer(key="another", salt="deferred_signals.delivery").sign(text))

    def test_of_a_newer_release_is_not_shown(self, sent):
        data = parse(sent(number="hunter2").rpartition(":")[0])
        said = shown(seal(dump({**data, "v": 2})))
        assert said.startswith("Not shown")
        assert "hunter2" not in said

    def test_that_is_long_is_cut(self, sent, monkeypatch):
        monkeypatch.setattr(payloads, "LONGEST", 20)
        said = shown(sent(text="x" * 1000))
        assert len(said) < 100
        assert said.endswith("characters more]")
