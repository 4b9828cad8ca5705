"""The dashboard, its charts, and the groups of failures."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from deferred_signals.outbox import attempts, failures
from deferred_signals.outbox.admin import charts, figures
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.models import Attempt, State

from .admin_site import ALL, HOSTILE, LIST, VIEW, client_of, put, text_of, urls

pytestmark = [pytest.mark.django_db(databases=["default", "other"]), urls]

TRACE = """Traceback (most recent call last):
  File "/srv/{}/shop/mail.py", line {}, in send
    connect()
ConnectionError: order {} is lost
"""


@pytest.fixture
def browser() -> Client:
    return client_of(VIEW)


class TestTheFigures:
    def test_count_what_waits_runs_and_is_dead(self, payload):
        for state, count in ((State.PENDING, 3), (State.RUNNING, 2), (State.DEAD, 1), (State.SUCCEEDED, 4)):
            for _ in range(count):
                put(payload, state)
        found = figures.figures("default")
        assert (found.waiting, found.running, found.dead) == (3, 2, 1)

    def test_tell_the_oldest_that_waits_and_that_could_run(self, payload):
        put(payload, State.PENDING, created=DatabaseNow(-7200), due=DatabaseNow(3600))
        put(payload, State.PENDING, created=DatabaseNow(-60), due=DatabaseNow(-30))
        put(payload, State.SUCCEEDED, created=DatabaseNow(-86400))
        found = figures.figures("default")
        assert found.oldest == pytest.approx(7200, abs=50)
        assert found.overdue == pytest.approx(30, abs=50)

    def test_of_an_empty_outbox_are_none(self, browser):
        found = figures.figures("default")
        assert (found.oldest, found.overdue, found.parked) == (None, None, [])
        assert all(not any(hour.values()) for hour in found.finished)
        assert "none" in text_of(browser.get(f"{LIST}dashboard/"))

    def test_count_what_has_finished_by_hours(self, payload):
        put(payload, State.SUCCEEDED, finished=DatabaseNow(-60))
        put(payload, State.SUCCEEDED, finished=DatabaseNow(-1800))
        put(payload, State.DEAD, finished=DatabaseNow(-1.5 * 3600))
        put(payload, State.DISCARDED, finished=DatabaseNow(-23.5 * 3600))
        put(payload, State.DISCARDED, finished=DatabaseNow(-24.5 * 3600))
        hours = figures.figures("default").finished
        assert len(hours) == figures.HOURS
        assert hours[-1] == {"succeeded": 2, "discarded": 0, "dead": 0}
        assert hours[-2] == {"succeeded": 0, "discarded": 0, "dead": 1}
        assert hours[0] == {"succeeded": 0, "discarded": 1, "dead": 0}
        assert sum(sum(hour.values()) for hour in hours) == 4

    def test_count_what_is_not_finished_by_its_age(self, payload):
        """The first hour is of all that are older: the oldest must not fall out of the picture."""
        for state, ago in ((State.PENDING, 0.5), (State.PENDING, 1.5), (State.RUNNING, 23.5), (State.PENDING, 100)):
            put(payload, state, created=DatabaseNow(-3600 * ago))
        put(payload, State.SUCCEEDED, created=DatabaseNow(-60))
        hours = figures.figures("default").unfinished
        assert len(hours) == figures.HOURS
        assert hours[-1] == {"pending": 1, "running": 0}
        assert hours[-2] == {"pending": 1, "running": 0}
        assert hours[0] == {"pending": 1, "running": 1}
        assert sum(sum(hour.values()) for hour in hours) == 4

    def test_count_failed_attempts_by_hours_of_the_newest(self, payload, monkeypatch):
        row = put(payload)
        for hours in (30, 2.5, 0.5):
            Attempt.objects.create(row=row, lease=1, attempt=1, outcome="retry", ended=DatabaseNow(-hours * 3600))
        failed = figures.figures("default").failed
        assert [hour["retry"] for hour in failed[-3:]] == [1, 0, 1]
        monkeypatch.setattr(figures, "NEWEST", 1)
        assert sum(hour["retry"] for hour in figures.figures("default").failed) == 1

    def test_do_without_a_table_that_is_not_made_yet(self, browser, monkeypatch):
        monkeypatch.setattr(attempts, "are_kept", lambda alias: False)
        assert figures.figures("default").failed == []
        assert "Failed attempts" not in text_of(browser.get(f"{LIST}dashboard/"))


class TestTheDashboard:
    def test_shows_them_of_the_database_that_is_named(self, payload, browser):
        put(payload, State.PENDING, alias="other")
        said = text_of(browser.get(f"{LIST}dashboard/?database=other"))
        assert re.search(r"\?database=other&amp;state=pending\">1</a>", said)
        assert re.search(r"\?database=default&amp;state=pending\">0</a>", text_of(browser.get(f"{LIST}dashboard/")))
        assert 'href="?database=default"' in said

    def test_has_charts_and_the_numbers_as_text(self, payload, browser):
        put(payload, State.SUCCEEDED)
        said = text_of(browser.get(f"{LIST}dashboard/"))
        assert said.count("<svg") >= 2
        assert "Finished deliveries: 1 in 24 hours, at most 1 in one of them." in said
        assert '<th scope="row">in the last hour</th><td>1</td><td>0</td><td>0</td>' in said

    def test_draws_how_old_is_what_waits(self, payload, browser):
        put(payload, State.PENDING, created=DatabaseNow(-3600 * 100))
        said = text_of(browser.get(f"{LIST}dashboard/"))
        assert "Not finished, by age: 1 in 24 hours and before, at most 1 in one of them." in said
        assert "<title>more than 23 hours ago: 1 pending</title>" in said
        assert '<th scope="row">more than 23 hours ago</th><td>1</td><td>0</td>' in said
        assert "<span>24 hours ago and before</span>" in said

    def test_says_how_high_a_bar_is(self, payload, browser):
        assert "Nothing in these hours" in text_of(browser.get(f"{LIST}dashboard/"))
        for _ in range(3):
            put(payload, State.SUCCEEDED)
        assert "The highest bar: 3 in an hour" in text_of(browser.get(f"{LIST}dashboard/"))

    def test_shows_which_keys_are_parked(self, payload, browser, monkeypatch):
        dead = put(payload, State.DEAD, order_key="mail:<1>")
        put(payload, State.PENDING, order_key="mail:<1>")
        said = text_of(browser.get(f"{LIST}dashboard/"))
        assert "mail:&lt;1&gt;" in said
        assert f"{dead.number}/change/?database=default" in said
        assert "And more." not in said
        put(payload, State.DEAD, order_key="mail:2")
        monkeypatch.setattr("deferred_signals.outbox.admin.pages.PARKED", 1)
        said = text_of(browser.get(f"{LIST}dashboard/"))
        assert "And more." in said
        assert "mail:2" not in said


class TestAChart:
    def test_is_as_high_as_its_highest_hour(self):
        drawn = charts.bars("Mail", [{"succeeded": 4}, {"succeeded": 1, "dead": 1}])
        heights = [float(found) for found in re.findall(r'<rect[^>]* height="([\d.]+)"', drawn)]
        assert heights == [charts.HEIGHT, charts.HEIGHT / 4, charts.HEIGHT / 4]

    def test_shows_also_one_of_a_million(self):
        drawn = charts.bars("Mail", [{"succeeded": 1_000_000, "dead": 1}])
        assert 'class="ds-bar ds-dead"' in drawn
        assert 'height="1.0"' in drawn
        assert "-" not in "".join(re.findall(r' y="([^"]+)"', drawn))

    def test_says_what_it_shows(self):
        drawn = charts.bars("Mail", [{"succeeded": 0}, {"succeeded": 2000, "dead": 1}])
        assert "<title>in the last hour: 2,000 succeeded, 1 dead</title>" in drawn
        assert "<title>1 to 2 hours ago: nothing</title>" in drawn
        assert 'role="img"' in drawn
        assert "Mail: 2,001 in 2 hours" in drawn

    def test_of_nothing_is_empty(self):
        assert "<rect" not in charts.bars("Mail", [{}, {}])

    def test_escapes(self):
        assert HOSTILE not in charts.bars(HOSTILE, [{HOSTILE: 1}])


class TestFailures:
    def test_are_grouped_by_receiver_exception_and_place(self, payload, browser):
        for number in range(3):
            trace = TRACE.format(f"release-{number}", number, number)
            last = put(payload, error_type="ConnectionError", error=f"order {number} is lost", traceback=trace)
        put(payload, error_type="ConnectionError", traceback=TRACE.format("a", 1, 1).replace("in send", "in other"))
        put(payload, error_type="KeyError", traceback=TRACE.format("a", 1, 1))
        put(payload, receiver="", error_type="OpenError", error="not authentic")
        found = failures.groups("default")
        assert [group.count for group in found] == [3, 1, 1, 1]
        assert found[0].sample == last.number
        said = text_of(browser.get(f"{LIST}failures/"))
        assert "3 &times; ConnectionError" in said
        assert "order 2 is lost" in said
        assert "shop/mail.py:send" in said
        assert "(could not be opened)" in said
        assert "of the newest" not in said

    def test_are_not_what_has_not_died(self, payload, browser):
        put(payload, State.PENDING, error_type="ValueError")
        assert failures.groups("default") == []
        assert "No delivery is dead." in text_of(browser.get(f"{LIST}failures/"))

    def test_are_looked_at_as_far_as_the_page_says(self, payload, browser, monkeypatch):
        monkeypatch.setattr(failures, "MOST", 2)
        monkeypatch.setattr(failures.groups, "__defaults__", (2,))
        for _ in range(3):
            put(payload, error_type="ValueError")
        said = text_of(browser.get(f"{LIST}failures/"))
        assert "of the newest 2 dead ones, not of all" in said
        assert "2 &times; ValueError" in said

    def test_link_to_what_may_be_done_by_whom(self, payload, browser):
        put(payload)

        def links(browser: Any) -> list[str]:
            return re.findall(r"failures/[0-9a-f]+/(\w+)/\?database=default", text_of(browser.get(f"{LIST}failures/")))

        assert links(browser) == []
        assert links(client_of(VIEW, "redeliver", name="bob")) == ["redeliver"]
        assert links(client_of(*ALL, name="boss")) == ["redeliver", "discard"]
