"""The signal map in the admin."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.db.models.signals import post_save
from django.test import Client

from deferred_signals.outbox.admin import mapped
from deferred_signals.signal_map import SignalMap, as_svg
from tests import receivers
from tests.shop.models import Customer

from .admin_site import HOSTILE, LIST, VIEW, client_of, knock, text_of, urls

pytestmark = [pytest.mark.django_db(databases=["default", "other"]), urls]

MAP = f"{LIST}map/"


@pytest.fixture
def browser() -> Client:
    return client_of(VIEW)


@pytest.fixture(autouse=True)
def _connections(link: Any) -> None:
    link(knock, receivers.first, queue="letters")
    link(post_save, receivers.second, Customer, deferred=False)
    link(knock, receivers.on_item, durable=True, max_retries=7)


def rows(said: str) -> list[list[str]]:
    """The rows of the table, as text."""
    body = said.partition("The same as a table")[2].partition("<tbody>")[2].partition("</tbody>")[0]
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in body.split("</tr>") if "<td" in row]


def shown(said: str) -> list[str]:
    """The receivers of the tests that are in the table."""
    return sorted(cells[2] for cells in rows(said) if cells[2].startswith("tests.receivers."))


FIRST, SECOND, ON_ITEM = (f"tests.receivers.{name}" for name in ("first", "second", "on_item"))


def test_it_is_a_drawing_and_the_same_as_a_table(browser):
    said = text_of(browser.get(MAP))
    assert said.count('<svg xmlns="http://www.w3.org/2000/svg" class="signal-map"') == 1
    assert said.count(FIRST) == 3  # its box, the title of that, the table
    by_receiver = {cells[2]: cells for cells in rows(said)}
    signal = "tests.outbox.admin_site.knock"
    assert by_receiver[FIRST] == [signal, "any sender", FIRST, "deferred to letters", "queue=letters"]
    assert by_receiver[SECOND] == ["django.db.models.signals.post_save", "shop.Customer", SECOND, "inline", ""]
    assert by_receiver[ON_ITEM][3].endswith(", durable")
    assert "max_retries=7" in by_receiver[ON_ITEM][4]


def test_the_other_pages_link_to_it(browser):
    for path in ("", "dashboard/", "failures/"):
        assert f'href="{MAP}?database=default"' in text_of(browser.get(LIST + path))


def test_its_links_lead_back_to_the_database_it_was_reached_from(browser):
    said = text_of(browser.get(MAP + "?database=other"))
    assert f'href="{LIST}dashboard/?database=other"' in said
    assert '<input type="hidden" name="database" value="other">' in said


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [FIRST, ON_ITEM, SECOND]),
        ("manner=deferred", [FIRST, ON_ITEM]),
        ("manner=inline", [SECOND]),
        ("signal=KNOCK", [FIRST, ON_ITEM]),
        ("app=shop", [SECOND]),
        ("app=shop&manner=deferred", []),
        ("app=nowhere&manner=nonsense", [FIRST, ON_ITEM, SECOND]),
    ],
)
def test_it_can_be_filtered_as_the_command_does(browser, query, expected):
    assert shown(text_of(browser.get(f"{MAP}?{query}"))) == expected


def test_what_was_chosen_stays_in_the_form(browser):
    said = text_of(browser.get(f"{MAP}?app=shop&signal=post_save&manner=inline"))
    assert '<option value="shop" selected>' in said
    assert '<option value="inline" selected>' in said
    assert 'name="signal" value="post_save"' in said
    assert '<a href="?database=default">Show all</a>' in said
    assert "Show all" not in text_of(browser.get(MAP))


def test_it_says_when_nothing_fits(browser):
    said = text_of(browser.get(f"{MAP}?signal=no-such-signal"))
    assert "No connection fits." in said
    assert "<svg" not in said.partition('id="content-main"')[2].partition('id="footer"')[0]


def test_it_draws_no_more_than_can_be_read_and_says_so(browser, monkeypatch):
    monkeypatch.setattr(mapped, "MOST", 2)
    said = text_of(browser.get(MAP))
    assert re.search(r"<h2>\d+ connections, of which 2 are drawn: choose a filter</h2>", said)
    assert len(rows(said)) == 2


def test_it_says_what_this_release_of_django_hides(browser, monkeypatch):
    monkeypatch.setattr(mapped, "collect", lambda **kwargs: SignalMap((), 3))
    assert "3 more could not be read" in text_of(browser.get(MAP))


def test_names_and_what_is_searched_for_are_text(browser, link):
    def hostile(sender: Any, **kwargs: Any) -> None: ...

    hostile.__qualname__ = HOSTILE
    link(knock, hostile, deferred=False)
    said = text_of(browser.get(MAP, {"signal": "knock"}))
    assert HOSTILE not in said
    assert said.count(HOSTILE.replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#x27;")) == 1
    assert HOSTILE not in text_of(browser.get(MAP, {"signal": HOSTILE}))


def test_a_content_security_policy_blocks_nothing_of_it(browser):
    said = text_of(browser.get(MAP))
    assert "deferred_signals/signal_map.css" in said
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)[^>]*>", said)


def test_its_style_is_that_of_the_drawing():
    path = finders.find("deferred_signals/signal_map.css")
    assert isinstance(path, str)
    assert Path(path).read_text().endswith(as_svg.STYLE)


def test_who_may_not_see_deliveries_does_not_see_it():
    assert client_of("redeliver", "discard").get(MAP).status_code == 403
    assert Client().get(MAP).status_code == 302


def test_it_is_there_on_a_site_of_the_projects_own(browser):
    assert "/office/" in text_of(browser.get(MAP.replace("/admin/", "/office/")))
