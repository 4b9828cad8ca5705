"""The list of deliveries in Django's admin: what it shows, its filters, its pages."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext

from deferred_signals import keeping
from deferred_signals.exceptions import ConfigurationError
from deferred_signals.outbox.admin import databases, filters, paging
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.models import Origin, OutboxDelivery, State

from .admin_site import ALL, LIST, VIEW, all_rows, client_of, put, text_of, urls

pytestmark = [pytest.mark.django_db(databases=["default", "other"]), urls]


@pytest.fixture
def browser() -> Client:
    return client_of(VIEW)


def shown(browser: Client, query: str = "", path: str = LIST) -> list[str]:
    """The ids of the deliveries that a list shows, in its order."""
    return re.findall(r">([0-9a-f-]{36})</a>", text_of(browser.get(f"{path}{query}")))


def ids(*rows: OutboxDelivery) -> list[str]:
    return [str(row.delivery_id) for row in rows]


class TestTheList:
    def test_shows_what_there_is_the_newest_first(self, payload, browser):
        first = put(payload, State.DEAD, attempt=4, crashes=2)
        second = put(payload, State.PENDING, origin=Origin.SPILLED)
        said = text_of(browser.get(LIST))
        assert shown(browser) == ids(second, first)
        for what in ("tests.receivers.first", "4 (2 lost)", "could not be published", "default", "minutes"):
            assert what in said

    def test_takes_as_many_queries_for_many_rows_as_for_one_and_reads_no_payload(self, payload, browser):
        put(payload)
        browser.get(LIST)
        with CaptureQueriesContext(connection) as of_one:
            browser.get(LIST)
        for _ in range(10):
            put(payload)
        with CaptureQueriesContext(connection) as of_many:
            browser.get(LIST)
        assert len(of_many) == len(of_one)
        assert not any(re.search(r"SELECT[^()]*payload", one["sql"]) for one in of_many)

    def test_is_not_sorted_by_what_has_no_index(self, payload, browser):
        put(payload)
        with CaptureQueriesContext(connection) as asked:
            browser.get(f"{LIST}?o=-3.4")
        sorts = [one["sql"] for one in asked if "ORDER BY" in one["sql"] and "deferred_signals_delivery" in one["sql"]]
        assert sorts
        # Or by the first column, which is the number.
        assert [one for one in sorts if not re.search(r"ORDER BY (\S*number|1)\S* DESC", one)] == []

    def test_counts_no_more_than_can_be_paged_through(self, payload, browser, monkeypatch):
        monkeypatch.setattr(paging, "MOST", 2)
        put(payload)
        assert "Only the newest" not in text_of(browser.get(LIST))
        put(payload)
        put(payload)
        said = text_of(browser.get(LIST))
        assert "Only the newest 2 are counted" in said
        assert "3 deliveries" not in said

    def test_is_there_on_a_site_of_the_projects_own(self, payload, browser):
        put(payload)
        said = text_of(browser.get("/office/deferred_signals_outbox/outboxdelivery/"))
        links = re.findall(r'href="(/[^"]*outboxdelivery/[^"]*)"', said)
        assert len(links) > 2
        assert all(link.startswith("/office/") for link in links)
        assert all(browser.get(link.replace("&amp;", "&")).status_code == 200 for link in links)

    def test_has_nothing_inline_that_a_content_security_policy_would_block(self, payload):
        row = put(payload)
        browser = client_of(*ALL, name="eve")
        for path in ("", f"{row.number}/change/", "dashboard/", "failures/", "map/", f"{row.number}/redeliver/"):
            said = text_of(browser.get(LIST + path))
            assert "deferred_signals/outbox.css" in said
            assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)[^>]*>", said), path


class TestWhoMayNot:
    @pytest.mark.parametrize("path", ["", "1/change/", "1/history/", "dashboard/", "failures/", "map/", "1/redeliver/"])
    def test_see_deliveries_sees_nothing(self, payload, path):
        row = put(payload)
        browser = client_of("redeliver", "discard")
        assert browser.get(LIST + path.replace("1", str(row.number))).status_code == 403
        assert "outboxdelivery" not in text_of(browser.get("/admin/"))

    def test_even_enter_is_asked_who_he_is(self, payload):
        assert Client().get(LIST).status_code == 302
        somebody = Client()
        somebody.force_login(User.objects.create(username="bob"))
        for path in ("", "dashboard/", "failures/", "failures/abc/redeliver/", "1/discard/"):
            assert somebody.post(LIST + path).status_code == 302

    @pytest.mark.parametrize("path", ["add/", "1/delete/"])
    def test_add_or_delete_is_everybody(self, payload, path):
        row = put(payload)
        root = Client()
        root.force_login(User.objects.create_superuser("root"))
        assert root.post(LIST + path.replace("1", str(row.number)), {"post": "yes"}).status_code == 403
        assert root.post(f"{LIST}{row.number}/change/", {"state": "succeeded"}).status_code == 403
        assert all_rows().get().state == State.DEAD


class TestAFilter:
    def test_is_of_states(self, payload, browser):
        rows = {state: put(payload, state) for state in State}
        for state, row in rows.items():
            assert shown(browser, f"?state={state}") == ids(row)
        assert len(shown(browser, "?state=nonsense")) == len(State)

    @pytest.mark.parametrize(
        "query",
        [
            "payload__contains=Vienna",
            "payload__regex=V.enna",
            "state__in=dead,pending",
            "receiver__regex=(a*)*b",
            "error__contains=x",
            "traceback__isnull=1",
            "attempts__error__contains=x",
            "number=1",
            "delivery_id__startswith=0",
        ],
    )
    def test_that_is_none_of_the_lists_own_finds_nothing_out(self, payload, browser, query):
        put(payload)
        with CaptureQueriesContext(connection) as asked:
            for path in (f"{LIST}?{query}", f"{LIST}?state=dead&{query}"):
                answer = browser.get(path)
                assert (answer.status_code, answer.headers.get("Location", "")) in {(302, f"{LIST}?e=1"), (400, "")}
        column = query.partition("__")[0].partition("=")[0]
        assert not any(f'"{column}"' in one["sql"].partition("WHERE")[2] for one in asked)

    def test_is_of_the_receivers_that_are_there(self, payload, browser):
        one, other, unopened = put(payload, receiver="shop.one"), put(payload, receiver="shop.other"), put(payload)
        all_rows().filter(number=unopened.number).update(receiver="")
        said = text_of(browser.get(LIST))
        assert "?receiver=shop.one" in said
        assert "(could not be opened)" in said
        assert shown(browser, "?receiver=shop.other") == ids(other)
        assert shown(browser, "?receiver=") == ids(unopened)
        assert shown(browser, "?receiver=shop.none") == []
        assert one.receiver == "shop.one"

    def test_knows_the_receivers_of_the_newest_and_of_the_dead(self, payload, monkeypatch):
        monkeypatch.setattr(filters, "NEWEST", 2)
        monkeypatch.setattr(connections["default"].features, "supports_partial_indexes", True)
        put(payload, State.DEAD, receiver="dead")
        put(payload, State.SUCCEEDED, receiver="old")
        put(payload, State.SUCCEEDED, receiver="new")
        put(payload, State.SUCCEEDED, receiver="newer")
        assert filters.receivers("default") == {"dead", "new", "newer"}

    def test_knows_all_of_them_where_the_database_finds_them_fast(self, payload, monkeypatch):
        monkeypatch.setattr(filters, "NEWEST", 1)
        monkeypatch.setattr(connections["default"].features, "supports_partial_indexes", False)
        put(payload, State.SUCCEEDED, receiver="old")
        put(payload, State.SUCCEEDED, receiver="new")
        assert filters.receivers("default") == {"old", "new"}

    def test_is_of_origins(self, payload, browser):
        put(payload)
        buried = put(payload, origin=Origin.BURIED)
        assert shown(browser, "?origin=buried") == ids(buried)
        assert len(shown(browser, "?origin=nonsense")) == 2

    def test_is_of_ages_by_the_databases_clock(self, payload, browser):
        hour, day, older = (put(payload, created=DatabaseNow(-days * 86400)) for days in (0.001, 0.5, 8))
        assert shown(browser, "?age=hour") == ids(hour)
        assert shown(browser, "?age=day") == ids(day, hour)
        assert shown(browser, "?age=week") == ids(day, hour)
        assert shown(browser, "?age=older") == ids(older)
        assert len(shown(browser, "?age=nonsense")) == 3


class TestTheDatabase:
    def test_is_that_in_which_django_would_write_unless_another_one_is_named(self, payload, browser):
        here, there = put(payload), put(payload, alias="other")
        assert shown(browser) == ids(here)
        assert shown(browser, "?database=other") == ids(there)
        assert 'href="?database=other"' in text_of(browser.get(LIST))

    def test_of_a_delivery_is_kept_by_the_links_to_it(self, payload, browser):
        there = put(payload, alias="other")
        said = text_of(browser.get(f"{LIST}?database=other"))
        assert f'href="{LIST}{there.number}/change/?database=other"' in said
        assert f'href="{LIST}dashboard/?database=other"' in said

    @pytest.mark.parametrize("path", ["", "dashboard/", "failures/"])
    def test_is_one_that_has_an_outbox(self, payload, browser, path):
        put(payload)
        assert browser.get(f"{LIST}{path}?database=nowhere").status_code == 404

    def test_is_not_asked_for_where_there_is_one(self, payload, browser, monkeypatch):
        put(payload)
        monkeypatch.setattr(databases, "aliases", lambda: ["default"])
        assert 'href="?database=' not in text_of(browser.get(LIST))
        assert browser.get(f"{LIST}?database=other").status_code == 404

    def test_without_a_table_or_an_answer_is_none(self, monkeypatch):
        class Outbox:
            def check(self, alias: str) -> None:
                raise {"default": ConfigurationError, "other": DatabaseError}[alias]

        monkeypatch.setattr(keeping, "_outbox", Outbox())
        assert databases.aliases() == []
        assert databases.default() == "default"

    def test_is_the_first_that_has_an_outbox_where_that_of_django_has_none(self, monkeypatch, settings):
        class Router:
            def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
                return False if db == "default" and app_label == "deferred_signals_outbox" else None

        settings.DATABASE_ROUTERS = [Router()]
        assert databases.aliases() == ["other"]
        assert databases.default() == "other"


class TestWhatAColumnShows:
    def test_a_state_has_the_colour_of_the_charts(self, payload, browser):
        put(payload, "dead")
        assert '<td class="field-standing"><span class="ds-key ds-dead">dead</span></td>' in text_of(browser.get(LIST))

    def test_a_receiver_may_be_broken_after_a_dot_and_is_text(self, payload, browser):
        put(payload, receiver="shop.<b>.mail")
        assert '<td class="field-called">shop.<wbr>&lt;b&gt;.<wbr>mail</td>' in text_of(browser.get(LIST))

    def test_the_database_is_shown_only_where_there_are_several(self, payload, browser, monkeypatch):
        put(payload)
        assert "field-database" in text_of(browser.get(LIST))
        monkeypatch.setattr("deferred_signals.outbox.admin.databases.aliases", lambda: ["default"])
        assert "field-database" not in text_of(browser.get(LIST))
