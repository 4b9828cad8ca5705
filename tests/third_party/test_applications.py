"""What third parties' applications send in real use, and what has arrived of it, without a worker.

``tests/integration/test_third_party.py`` runs the same tests on what a worker got.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = "tests.third_party.project"
BY_REFERENCE = f"{PROJECT}.recording.arrived"
AS_A_SNAPSHOT = f"{PROJECT}.recording.arrived_as_it_was"
MARKER = "deferred_signals.codec.stand_ins.NotCarried"
REQUEST = "deferred_signals.codec.requests.RequestSnapshot"
ARTICLE = f"{PROJECT}.models.Article"

#: What the visits must have sent, at least: an application that stays silent proves nothing.
SENT = {
    "allauth.account.signals._add_email",
    "allauth.account.signals.authentication_step_completed",
    "allauth.account.signals.email_added",
    "allauth.account.signals.email_changed",
    "allauth.account.signals.email_confirmation_sent",
    "allauth.account.signals.email_confirmed",
    "allauth.account.signals.email_removed",
    "allauth.account.signals.password_changed",
    "allauth.account.signals.password_reset",
    "allauth.account.signals.user_logged_in",
    "allauth.account.signals.user_signed_up",
    "django.contrib.auth.signals.user_logged_in",
    "django.contrib.auth.signals.user_logged_out",
    "django.contrib.auth.signals.user_login_failed",
    "django.db.models.signals.post_delete",
    "django_fsm.signals.post_transition",
    "django_fsm.signals.pre_transition",
    "easy_thumbnails.signals.saved_file",
    "easy_thumbnails.signals.thumbnail_created",
    "easy_thumbnails.signals.thumbnail_missed",
    "knox.signals.token_expired",
    "oauth2_provider.signals.app_authorized",
    "simple_history.signals.post_create_historical_m2m_records",
    "simple_history.signals.post_create_historical_record",
    "simple_history.signals.pre_create_historical_m2m_records",
    "simple_history.signals.pre_create_historical_record",
}

#: What stays behind, and nobody could want on a worker.
NOT_CARRIED = {
    ("allauth.account.signals.user_logged_in", "response"): "django.http.response.HttpResponseRedirect",
    ("easy_thumbnails.signals.thumbnail_missed", "options"): "easy_thumbnails.options.ThumbnailOptions",
}


class Send(NamedTuple):
    """One send to one of the two receivers that note all: what should arrive, what has, and how the delivery ended."""

    signal: str
    receiver: str
    expected: dict[str, Any]
    arrived: dict[str, Any] | None
    end: dict[str, Any]


class Journal:
    """What the processes of the magazine have noted."""

    def __init__(self, home: Path) -> None:
        self.entries = [json.loads(line) for line in (home / "journal").read_text().splitlines()]
        arrived = {entry["delivery"]: entry["kwargs"] for entry in self.of("arrived")}
        ends = {entry["delivery"]: entry for entry in self.of("finished")}
        published = defaultdict(list)
        for entry in self.of("published"):
            published[entry["receiver"], entry["signal"]].append(entry["delivery"])
        self.sends = []
        # To one receiver the deliveries of one signal are published in the order of the sends.
        for entry in self.of("sent"):
            delivery = published[entry["receiver"], entry["signal"]].pop(0)
            made = Send(entry["signal"], entry["receiver"], entry["kwargs"], arrived.get(delivery), ends[delivery])
            self.sends.append(made)

    def of(self, what: str) -> list[dict[str, Any]]:
        return [entry for entry in self.entries if entry["what"] == what]

    def got(self, signal: str, receiver: str = BY_REFERENCE) -> list[dict[str, Any]]:
        """The arguments with which the receiver was called, for each send of the signal that arrived."""
        sends = [send for send in self.sends if (send.signal, send.receiver) == (signal, receiver)]
        return [send.arrived for send in sends if send.arrived is not None]

    def mails(self, subject: str) -> list[tuple[str, str]]:
        return [(*mail["to"], mail["body"]) for mail in self.of("mail") if mail["subject"] == subject]


def environment(home: Path, **more: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    own = {"DJANGO_SETTINGS_MODULE": f"{PROJECT}.settings", "MAGAZINE_HOME": str(home), "PYTHONPATH": path}
    return os.environ | own | more


def visit(home: Path, **more: str) -> Journal:
    """Use the magazine, in a process of its own: these tests' settings have none of the applications."""
    done = subprocess.run(
        [sys.executable, "-m", PROJECT],
        cwd=home,
        env=environment(home, **more),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Journal(home)


class Arrivals:
    """The tests, whoever has delivered: the module of a subclass has the ``journal``."""

    def test_all_that_the_applications_send_is_published(self, journal: Journal) -> None:
        # A send that was not would have ended the making of the journal.
        for receiver in (BY_REFERENCE, AS_A_SNAPSHOT):
            assert {send.signal for send in journal.sends if send.receiver == receiver} >= SENT
        assert not journal.of("unpublished")
        assert len(journal.of("published")) == len(journal.of("finished"))

    @pytest.mark.parametrize("receiver", [BY_REFERENCE, AS_A_SNAPSHOT])
    def test_what_arrives_is_what_was_sent_or_its_documented_stand_in(self, journal: Journal, receiver: str) -> None:
        compared = 0
        for send in journal.sends:
            if send.receiver != receiver or send.arrived is None:
                continue
            assert send.arrived.keys() == send.expected.keys()
            for name, itself in send.expected.items():
                kind = NOT_CARRIED.get((send.signal, name))
                expected = itself if kind is None else [MARKER, f"<NotCarried kwargs['{name}'] ({kind})>"]
                assert send.arrived[name] == expected, (send.signal, name)
                compared += 1
        assert compared > len(SENT)

    def test_only_what_refers_to_a_deleted_row_is_discarded_and_a_snapshot_is_not(self, journal: Journal) -> None:
        ends = {(send.signal, send.receiver, send.end["reason"]) for send in journal.sends if send.arrived is None}
        gone = "A row of magazine.article that the delivery refers to is gone."
        assert ends == {(signal, BY_REFERENCE, gone) for signal in SENT if signal.startswith("simple_history.")}
        assert {entry["state"] for entry in journal.of("finished")} == {"succeeded", "discarded"}

    def test_allauth_a_confirmation_arrives_with_its_address(self, journal: Journal) -> None:
        first, second = journal.of("confirmation")
        assert (first["email"], first["signup"]) == ("ada@example.com", True)
        assert (second["email"], second["signup"]) == ("lovelace@example.com", False)

    def test_allauth_the_old_address_is_warned(self, journal: Journal) -> None:
        assert journal.mails("Your address has changed") == [("ada@example.com", "to lovelace@example.com")]

    def test_allauth_an_address_that_was_removed_still_arrives(self, journal: Journal) -> None:
        [kwargs] = journal.got("allauth.account.signals.email_removed", AS_A_SNAPSHOT)
        assert kwargs["email_address"][1]["email"] == ["builtins.str", "'ada@example.com'"]

    def test_oauth_toolkit_the_token_arrives_with_its_application(self, journal: Journal) -> None:
        assert journal.mails("Access to your account") == [("lovelace@example.com", "Reader may read")]

    def test_oauth_toolkit_the_view_that_is_the_sender_arrives_as_its_class(self, journal: Journal) -> None:
        [kwargs] = journal.got("oauth2_provider.signals.app_authorized")
        assert kwargs["sender"] == ["builtins.type", "oauth2_provider.views.base.TokenView"]

    def test_rest_framework_a_request_arrives_with_its_user(self, journal: Journal) -> None:
        *_, kwargs = journal.got("django.contrib.auth.signals.user_logged_out")
        kind, request = kwargs["request"]
        assert (kind, request["path"]) == (REQUEST, ["builtins.str", "'/api/logout/'"])
        assert request["user"] == kwargs["user"] == ["django.contrib.auth.models.User", "1"]

    def test_rest_framework_a_login_from_the_api_is_told_as_one_from_a_page(self, journal: Journal) -> None:
        page, api = "from Lynx at 127.0.0.1", "from app/1 at 127.0.0.1"
        assert [body for _, body in journal.mails("A new login")] == [page, page, api, api, page]

    def test_simple_history_what_has_changed_is_found_on_the_worker(self, journal: Journal) -> None:
        labels = [{"article": 1, "label": 1}, {"article": 1, "label": 2}]
        assert [(entry["record"], entry["by"], entry["changes"]) for entry in journal.of("audit")] == [
            ("Created", "ada", []),
            ("Changed", "ada", [["title", "On Engines", "On the Engine"]]),
            ("Changed", "ada", [["labels", [], labels]]),
            ("Changed", "ada", [["state", "draft", "published"]]),
            ("Deleted", "ada", [["labels", labels, []]]),
        ]

    def test_fsm_a_snapshot_shows_a_state_that_is_not_in_the_row(self, journal: Journal) -> None:
        [(to, body)] = journal.mails("On the Engine")
        assert (to, body) == ("lovelace@example.com", "is published, says ada")
        states = [
            kwargs["instance"][1]["state"]
            for kwargs in journal.got("django_fsm.signals.post_transition", AS_A_SNAPSHOT)
        ]
        assert states == [["builtins.str", "'published'"], ["builtins.str", "'disputed'"]]

    def test_fsm_the_arguments_of_a_transition_and_its_field_arrive(self, journal: Journal) -> None:
        published, disputed = journal.got("django_fsm.signals.post_transition")
        assert published["method_args"][1] == [["django.contrib.auth.models.User", "1"]]
        assert published["field"] == ["django_fsm.FSMField", "magazine.Article.state"]
        assert disputed["exception"] == ["deferred_signals.codec.stand_ins.CarriedError", ["ValueError", "it is true"]]

    def test_money_a_deleted_row_arrives_with_its_amount_and_currency(self, journal: Journal) -> None:
        assert journal.mails("No fee") == [("lovelace@example.com", "of 12.50 USD")]

    def test_easy_thumbnails_its_own_function_makes_the_thumbnails_on_the_worker(self, journal: Journal) -> None:
        [kwargs] = journal.got("easy_thumbnails.signals.saved_file")
        assert kwargs["fieldfile"] == [
            "easy_thumbnails.files.ThumbnailerImageFieldFile",
            ["covers/cover.png", [ARTICLE, "1"]],
        ]
        assert journal.of("thumbnails")[0]["files"] == ["cover.png.10x10_q85.jpg", "cover.png.40x40_q85.jpg"]


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Journal:
    return visit(tmp_path_factory.mktemp("magazine"))


class TestWithoutAWorker(Arrivals):
    pass
