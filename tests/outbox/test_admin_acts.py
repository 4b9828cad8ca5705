"""Redelivering and discarding in the admin: by whom, after which question, and what is on record."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.contrib.messages import get_messages
from django.db import DatabaseError
from django.test import Client

from deferred_signals.outbox import redelivery
from deferred_signals.outbox.admin import acts, deliveries, pages
from deferred_signals.outbox.failures import groups
from deferred_signals.outbox.models import OutboxDelivery, State

from .admin_site import ALL, DISCARD, LIST, REDELIVER, VIEW, all_rows, client_of, page, put, text_of, urls

pytestmark = [pytest.mark.django_db(transaction=True, databases=["default", "other"]), urls]


@pytest.fixture
def boss() -> Client:
    return client_of(*ALL, name="boss")


def states(alias: str = "default") -> list[str]:
    return list(all_rows(alias).order_by("number").values_list("state", flat=True))


def said(response: Any) -> list[str]:
    return [str(one) for one in get_messages(response.wsgi_request)]


def select(*rows: OutboxDelivery, act: str = "redeliver", confirmed: bool = True, **more: Any) -> dict[str, Any]:
    data = {"action": f"{act}_selected", "_selected_action": [row.number for row in rows], **more}
    return {**data, "confirmed": "yes"} if confirmed else data


def answer(question: str) -> dict[str, str]:
    """What the form of a question sends, if somebody says yes."""
    form = question.partition('<form method="post">')[2]
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form))


class TestASelection:
    def test_is_redelivered_after_a_question(self, payload, boss, memory, calls):
        one, other = put(payload), put(payload)
        asked = text_of(boss.post(LIST, select(one, confirmed=False)))
        assert "Redeliver 1 delivery in the database <strong>default</strong>?" in asked
        assert str(one.delivery_id) in asked
        assert str(other.delivery_id) not in asked
        assert states() == ["dead", "dead"]
        done = boss.post(LIST, select(one))
        assert (done.status_code, said(done)) == (302, ["Redelivered 1 delivery."])
        assert states() == ["pending", "dead"]
        memory.deliver()
        assert [name for name, *_ in calls] == ["first"]

    def test_is_discarded_after_a_question(self, payload, boss):
        rows = [put(payload, state) for state in (State.DEAD, State.PENDING, State.RUNNING, State.SUCCEEDED)]
        asked = text_of(boss.post(LIST, select(*rows, act="discard", confirmed=False)))
        assert "Discard 2 deliveries" in asked
        done = boss.post(LIST, select(*rows, act="discard"))
        assert said(done) == ["Discarded 2 deliveries."]
        assert states() == ["discarded", "discarded", "running", "succeeded"]

    def test_answers_with_what_the_question_has_asked(self, payload, boss):
        """The page's own form, with all that it carries."""
        rows = [put(payload) for _ in range(3)]
        asked = text_of(boss.post(LIST, select(rows[0], confirmed=False, select_across="1")))
        done = boss.post(LIST, answer(asked))
        assert said(done) == ["Redelivered 3 deliveries."]

    def test_is_not_of_what_has_come_since_the_question(self, payload, boss, settings):
        settings.USE_THOUSAND_SEPARATOR = True
        row = put(payload)
        all_rows().update(number=9_012_345)
        row.number = 9_012_345
        form = answer(text_of(boss.post(LIST, select(row, confirmed=False, select_across="1"))))
        # The sequence knows nothing of the number above, and has drawn who knows how many in this process.
        all_rows().filter(number=put(payload).number).update(number=9_012_346)
        assert said(boss.post(LIST, form)) == ["Redelivered 1 delivery."]
        assert states() == ["pending", "dead"]

    def test_of_nothing_is_not_of_what_has_come_since_the_question(self, payload, boss):
        row = put(payload, State.SUCCEEDED)
        form = answer(text_of(boss.post(LIST, select(row, confirmed=False, select_across="1"))))
        put(payload)
        boss.post(LIST, form)
        assert states() == ["succeeded", "dead"]

    def test_is_nothing_if_the_answer_makes_no_sense(self, payload, boss):
        assert boss.post(LIST, select(put(payload), newest="nonsense")).status_code == 400
        assert states() == ["dead"]

    def test_of_everything_is_of_so_many(self, payload, boss, monkeypatch):
        monkeypatch.setattr(deliveries, "MOST", 2)
        rows = [put(payload) for _ in range(3)]
        boss.post(LIST, select(rows[0], select_across="1"))
        assert states() == ["dead", "pending", "pending"]

    def test_is_of_the_database_that_is_named(self, payload, boss):
        here, there = put(payload), put(payload, alias="other")
        all_rows("other").update(number=here.number)
        there = all_rows("other").get()
        boss.post(f"{LIST}?database=other", select(there))
        assert (states(), states("other")) == (["dead"], ["pending"])
        assert LogEntry.objects.get().change_message == "Redelivered in the database other."

    def test_of_many_is_shown_in_part(self, payload, boss, monkeypatch):
        monkeypatch.setattr(pages, "SHOWN", 1)
        rows = [put(payload) for _ in range(2)]
        asked = text_of(boss.post(LIST, select(*rows, confirmed=False)))
        assert "Redeliver 2 deliveries" in asked
        assert "and more" in asked
        assert sum(str(row.delivery_id) in asked for row in rows) == 1

    @pytest.mark.parametrize("codenames", [(), (VIEW,), (VIEW, "redeliver"), ("discard",), ("redeliver", "discard")])
    @pytest.mark.parametrize("confirmed", [False, True])
    def test_needs_permissions(self, payload, codenames, confirmed):
        row = put(payload)
        browser = client_of(*codenames)
        browser.post(LIST, select(row, act="discard", confirmed=confirmed))
        assert states() == ["dead"]
        assert not LogEntry.objects.exists()

    def test_is_offered_to_whom_may_do_it(self, payload, boss):
        put(payload)
        offered = text_of(client_of(VIEW, "redeliver").get(LIST))
        assert "redeliver_selected" in offered
        assert "discard_selected" not in offered
        assert "redeliver_selected" not in text_of(client_of(VIEW, name="bob").get(LIST))

    def test_of_nothing_that_suits_says_so(self, payload, boss):
        row = put(payload, State.SUCCEEDED)
        assert said(boss.post(LIST, select(row))) == ["Nothing was there to redeliver: see the states."]


class TestOne:
    @pytest.mark.parametrize(("act", "state"), [("redeliver", "pending"), ("discard", "discarded")])
    def test_is_treated_by_a_post_and_never_by_a_get(self, payload, boss, act, state):
        row = put(payload)
        path = page(row.number, act)
        assert "Yes, " + act in text_of(boss.get(path))
        assert states() == ["dead"]
        done = boss.post(path)
        assert done.status_code == 302
        assert done["Location"] == page(row.number, "change") + "?database=default"
        assert states() == [state]

    @pytest.mark.parametrize("act", ["redeliver", "discard"])
    @pytest.mark.parametrize("codenames", [(), (VIEW,), ("redeliver", "discard")])
    def test_needs_permissions(self, payload, act, codenames):
        row = put(payload)
        browser = client_of(*codenames)
        assert browser.get(page(row.number, act)).status_code == 403
        assert browser.post(page(row.number, act)).status_code == 403
        assert states() == ["dead"]

    def test_needs_the_permission_for_just_that(self, payload):
        row = put(payload)
        assert client_of(VIEW, "redeliver").post(page(row.number, "discard")).status_code == 403
        assert client_of(VIEW, "discard", name="bob").post(page(row.number, "redeliver")).status_code == 403
        assert states() == ["dead"]

    def test_is_not_treated_by_a_forged_request(self, payload):
        row = put(payload)
        browser = Client(enforce_csrf_checks=True)
        browser.force_login(User.objects.create_superuser("root"))
        assert browser.post(page(row.number, "redeliver")).status_code == 403
        assert states() == ["dead"]

    def test_that_is_gone_is_not_found(self, boss):
        assert boss.post(page(999, "redeliver")).status_code == 404

    def test_is_treated_on_a_site_of_the_projects_own(self, payload, boss):
        row = put(payload)
        done = boss.post(page(row.number, "redeliver").replace("/admin/", "/office/"))
        assert done["Location"].startswith("/office/")
        assert states() == ["pending"]

    def test_is_on_record(self, payload, boss):
        row = put(payload)
        boss.post(page(row.number, "redeliver"))
        (entry,) = LogEntry.objects.all()
        assert (entry.user.username, entry.action_flag, entry.object_id) == ("boss", CHANGE, str(row.number))
        assert str(row.delivery_id) in entry.object_repr
        assert entry.get_change_message() == "Redelivered in the database default."
        assert "Redelivered in the database default." in text_of(boss.get(page(row.number, "history")))


class TestWhatIsLeft:
    def test_is_told_with_the_reason(self, payload, boss):
        row = put(payload)
        all_rows().update(payload=f"{row.payload}x")
        (told,) = said(boss.post(page(row.number, "redeliver")))
        assert told.startswith(f"{row.delivery_id} was left as it is. ")
        assert states() == ["dead"]
        assert not LogEntry.objects.exists()

    def test_is_told_of_a_few_and_counted(self, payload, boss, monkeypatch):
        monkeypatch.setattr(acts, "NAMED", 1)
        rows = [put(payload) for _ in range(4)]
        all_rows().exclude(number=rows[0].number).update(payload="nonsense")
        told = said(boss.post(LIST, select(*rows)))
        assert told[0] == "Redelivered 1 delivery."
        assert told[2] == "2 deliveries more were left as they are."
        assert len(told) == 3

    def test_after_an_error_of_the_database_is_left_and_the_rest_on_record(self, payload, boss, monkeypatch):
        monkeypatch.setattr(redelivery, "BATCH", 1)
        rows = [put(payload) for _ in range(3)]
        real, asked = redelivery._revive, []

        def fails_the_second_time(*given: Any) -> bool:
            asked.append(given)
            if len(asked) > 1:
                raise DatabaseError("the disk of hunter2 is full")
            return real(*given)

        monkeypatch.setattr(redelivery, "_revive", fails_the_second_time)
        told = said(boss.post(LIST, select(*rows)))
        assert told[0].startswith("The database default has failed: DatabaseError.")
        assert told[1:] == ["Redelivered 1 delivery."]
        assert states().count("pending") == LogEntry.objects.count() == 1


class TestAGroup:
    def path(self, act: str, alias: str = "default") -> str:
        (group,) = groups(alias)
        return f"{LIST}failures/{group.key}/{act}/?database={alias}"

    def test_is_redelivered_after_a_question(self, payload, boss):
        for _ in range(3):
            put(payload, error_type="ValueError", error="order 7")
        path = self.path("redeliver")
        assert "Redeliver 3 deliveries" in text_of(boss.get(path))
        assert states() == ["dead"] * 3
        done = boss.post(path)
        assert said(done) == ["Redelivered 3 deliveries."]
        assert states() == ["pending"] * 3
        assert LogEntry.objects.count() == 3
        assert boss.post(path).status_code == 404

    def test_is_discarded(self, payload, boss):
        put(payload, alias="other")
        boss.post(self.path("discard", "other"))
        assert states("other") == ["discarded"]

    def test_is_not_of_what_has_come_since_the_question(self, payload, boss):
        put(payload, error_type="ValueError")
        path = self.path("redeliver")
        form = answer(text_of(boss.get(path)))
        put(payload, error_type="ValueError")
        assert said(boss.post(path, form)) == ["Redelivered 1 delivery."]
        assert states() == ["pending", "dead"]

    def test_is_only_that_group(self, payload, boss):
        put(payload, error_type="ValueError")
        path = self.path("redeliver")
        put(payload, error_type="KeyError")
        boss.post(path)
        assert states() == ["pending", "dead"]

    @pytest.mark.parametrize("codenames", [(), (VIEW,), (VIEW, "discard"), ("redeliver",)])
    def test_needs_permissions(self, payload, codenames):
        put(payload)
        browser = client_of(*codenames)
        assert browser.get(self.path("redeliver")).status_code == 403
        assert browser.post(self.path("redeliver")).status_code == 403
        assert states() == ["dead"]


def test_the_acts_are_called_as_their_permissions():
    assert [act.permission for act in acts.ACTS] == [
        f"deferred_signals_outbox.{REDELIVER}",
        f"deferred_signals_outbox.{DISCARD}",
    ]
