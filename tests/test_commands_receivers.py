"""``manage.py list_receivers``, ``explain_receiver`` and ``signal_map``, as they are called from a terminal."""

from __future__ import annotations

import dataclasses
import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db.models.signals import post_delete, post_save

from deferred_signals import Signal, keeping
from deferred_signals.options import Options
from deferred_signals.signal_map import description
from tests import receivers
from tests.test_signal_map import ODD, project  # noqa: F401 - a fixture

knock = Signal()
HERE = "tests.test_commands_receivers"
FIRST = "tests.receivers.first"


def run(command: str, *arguments: Any, **options: Any) -> str:
    out = StringIO()
    call_command(command, *arguments, stdout=out, **{"stderr": StringIO(), "no_color": True, **options})
    return out.getvalue()


def inline(**kwargs: Any) -> None: ...


class Plain:
    """A receiver that is an object, and has no file of its own to speak of."""

    def __call__(self, **kwargs: Any) -> None: ...


class TestListReceivers:
    def test_a_line_for_each_connection_under_its_signal(self, link, project):  # noqa: F811
        project(task_default_queue="house")
        link(knock, receivers.first, User, max_retries=5, exclude=("b", "a"), name="short")
        link(knock, inline, deferred=False)
        assert run("list_receivers", "--signal", HERE).splitlines() == [
            f"{HERE}.knock",
            f"  any sender  {HERE}.inline  inline",
            f"  auth.User   {'short':<36}  deferred, queue house, max_retries=5, exclude=(a, b)",
            "2 connections: 1 inline, 1 deferred, 0 of them durable.",
        ]

    def test_a_durable_one_whose_queue_is_not_known(self, link):
        link(knock, receivers.first, durable=True)
        out = run("list_receivers", "--signal", HERE)
        assert "deferred, durable\n1 connection: 0 inline, 1 deferred, 1 of them durable." in out

    def test_none(self):
        assert run("list_receivers", "--signal", "nowhere") == "No such receiver is connected in this process.\n"

    def test_for_a_machine(self, link):
        link(knock, receivers.first)
        said = json.loads(run("list_receivers", "--signal", HERE, "--json"))
        assert [one["receiver"] for one in said["connections"]] == [FIRST]
        assert said["unread"] == 0

    @pytest.mark.parametrize(("option", "found"), [("--deferred", [FIRST]), ("--inline", [f"{HERE}.inline"])])
    def test_only_some(self, link, option, found):
        link(knock, receivers.first)
        link(knock, inline, deferred=False)
        said = json.loads(run("list_receivers", "--signal", HERE, option, "--json"))
        assert [one["receiver"] for one in said["connections"]] == found

    def test_both_at_once_is_refused(self):
        with pytest.raises(CommandError, match="not allowed with"):
            run("list_receivers", "--deferred", "--inline")

    def test_an_app_that_is_not_installed_is_refused(self):
        with pytest.raises(CommandError, match=r"There is no app 'moon'\. There is admin, auth, "):
            run("list_receivers", "--app", "moon")

    def test_an_app(self, link):
        link(knock, receivers.first, User)
        assert f"  auth.User  {FIRST}" in run("list_receivers", "--app", "auth")

    def test_what_could_not_be_read_is_told(self, monkeypatch):
        monkeypatch.setattr(knock, "receivers", ["of another shape"])
        for command in ("list_receivers", "signal_map"):
            errors = StringIO()
            run(command, stderr=errors)
            assert errors.getvalue().startswith("1 more could not be read: this release of Django")

    def test_nothing_that_a_terminal_would_obey(self, link):
        link(Signal(name="a:b"), receivers.first, "x\x1b[2Jy")
        assert "x?[2Jy" in run("list_receivers", "--receiver", FIRST)


class TestSignalMap:
    def test_draws_mermaid(self, link):
        link(knock, receivers.first)
        assert run("signal_map", "--signal", HERE).startswith('flowchart LR\n    s0["any sender"]')

    def test_draws_svg(self, link):
        link(knock, receivers.first)
        assert run("signal_map", "--format", "svg", "--signal", HERE).startswith("<svg xmlns=")

    def test_for_a_machine(self, link):
        link(knock, receivers.first)
        assert len(json.loads(run("signal_map", "--json", "--signal", HERE))["connections"]) == 1

    def test_into_a_file(self, link, tmp_path):
        link(knock, receivers.first, User, name="naïve")
        file = tmp_path / "map.mmd"
        out = run("signal_map", "--output", str(file), "--signal", HERE)
        assert out == f"{file}: 1 connection.\n"
        assert '["naïve"]' in file.read_text(encoding="utf-8")
        assert run("signal_map", "--output", str(file), "--signal", HERE, verbosity=0) == ""

    def test_an_empty_one_says_so_beside_the_drawing(self):
        errors = StringIO()
        assert "-->" not in run("signal_map", "--signal", "nowhere", stderr=errors)
        assert "No such receiver is connected in this process: the map is empty." in errors.getvalue()
        assert json.loads(run("signal_map", "--signal", "nowhere", "--json"))["connections"] == []

    def test_a_file_that_cannot_be_written_is_an_error(self, tmp_path):
        with pytest.raises(CommandError, match="cannot be written: No such file"):
            run("signal_map", "--output", str(tmp_path / "nowhere" / "map.svg"))


class TestExplainReceiver:
    def test_all_about_one(self, link, project):  # noqa: F811
        project(task_default_queue="house")
        link(knock, receivers.first, User, max_retries=5, aliases=("shop.once", "shop.twice"))
        lines = run("explain_receiver", FIRST).splitlines()
        line = receivers.first.__code__.co_firstlineno
        assert lines[:7] == [
            FIRST,
            "  also called:   shop.once, shop.twice",
            f"  stands in:     tests/receivers.py:{line}",
            f"  {HERE}.knock from auth.User",
            "    runs:        deferred, on a worker",
            "    queue:       house  (Celery's routing)",
            "    guarantees:  those of 'default (no tables)' in the table of guarantees",
        ]
        assert lines[7:11] == [
            "    max_retries: 5  (option)",
            f"    name:        {FIRST}  (its dotted path)",
            "    aliases:     (shop.once, shop.twice)  (option)",
            "    using:       -  (by the send's instance or sender)",
        ]
        rest = " ".join(line.strip() for line in lines[11:])
        assert rest.startswith("by default: routing_key=-, exchange=-, ")
        assert "ignore_result=True" in rest
        assert "instance=reference" in rest
        assert "autoretry_for=(Exception)" in rest
        assert {*re.findall(r"(\w+)=", rest)} | {"queue", "max_retries", "name", "aliases", "using"} == {
            field.name for field in dataclasses.fields(Options)
        }

    def test_by_its_former_name_by_its_path_or_by_the_end_of_one(self, link):
        link(knock, receivers.first, name="shop.mail", aliases=("shop.letter",))
        for name in ("shop.mail", "shop.letter", "tests.receivers.first", "mail", "receivers.first"):
            assert run("explain_receiver", name).splitlines()[:2] == ["shop.mail", f"  path:          {FIRST}"]

    def test_an_inline_one(self, link):
        link(knock, inline, deferred=False)
        assert run("explain_receiver", f"{HERE}.inline").splitlines() == [
            f"{HERE}.inline",
            f"  stands in:     tests/test_commands_receivers.py:{inline.__code__.co_firstlineno}",
            f"  {HERE}.knock from any sender",
            "    runs:        inline, in the sender's process",
        ]

    def test_an_async_one(self, link):
        link(knock, receivers.asynchronous)
        assert "  async:         it is a coroutine function" in run("explain_receiver", "asynchronous")

    def test_one_that_is_not_connected_any_more(self, link):
        link(knock, receivers.curious)
        knock.disconnect(receivers.curious)
        assert "  connected:     not any more" in run("explain_receiver", "tests.receivers.curious")

    def test_its_options_are_told_once_if_all_its_connections_have_the_same(self, link):
        link(knock, receivers.first, queue="a")
        link(knock, receivers.first, User, queue="a")
        link(post_save, receivers.first, User, queue="b")
        out = run("explain_receiver", FIRST)
        assert out.count("by default: ") == 2
        assert out.count("    queue:       a  (option)") == 2

    def test_where_each_option_comes_from(self, link, settings, outbox_is_there):
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "DURABLE": True, "ENCRYPT": False}
        link(post_delete, receivers.first, User)
        link(knock, receivers.second, on_commit=False)
        link(knock, receivers.on_item, durable=False)
        told = json.loads(run("explain_receiver", FIRST, "--json"))["connections"][0]["options"]
        assert told["durable"] == {"value": True, "from": "setting DURABLE"}
        assert told["encrypt"] == {"value": False, "from": "setting ENCRYPT"}
        assert told["instance"] == {"value": "snapshot", "from": "the signal"}
        told = json.loads(run("explain_receiver", "second", "--json"))["connections"][0]["options"]
        assert told["durable"] == {"value": False, "from": "on_commit=False"}
        told = json.loads(run("explain_receiver", "on_item", "--json"))["connections"][0]["options"]
        assert told["durable"] == {"value": False, "from": "option"}

    def test_which_column_of_the_guarantees_it_is_in(self, link, outbox_is_there):
        link(knock, receivers.first)
        link(knock, receivers.second, durable=True)
        link(knock, receivers.on_item, atomic=True)
        columns = [
            json.loads(run("explain_receiver", name, "--json"))["connections"][0]["guarantees"]
            for name in ("first", "second", "on_item")
        ]
        assert columns == list(description.COLUMNS[1:])

    def test_the_columns_are_those_of_the_documentation(self):
        head = (Path(__file__).parent.parent / "docs" / "outbox.md").read_text().partition("| fault |")[2]
        columns = [one.strip().replace("`", "") for one in head.splitlines()[0].strip("| ").split("|")]
        assert columns == list(description.COLUMNS)

    def test_the_checks_that_concern_it(self, link):
        link(post_delete, receivers.first, User)
        link(knock, receivers.second, using="moon")
        out = run("explain_receiver", FIRST)
        assert f"  deferred_signals.W002: The deferred receiver '{FIRST}' gets snapshots of auth.User" in out
        assert "    -> Leave them out with exclude=" in out
        assert "E004" not in out
        assert "E004" in run("explain_receiver", "second")

    def test_a_check_without_a_cure(self, link, monkeypatch):
        from django.core import checks

        link(knock, receivers.first)
        monkeypatch.setattr(checks, "run_checks", lambda **kwargs: [checks.Info("odd", obj=FIRST, id="x.I1")])
        assert run("explain_receiver", FIRST).endswith("  x.I1: odd\n")

    def test_for_a_machine(self, link):
        link(knock, receivers.first)
        said = json.loads(run("explain_receiver", FIRST, "--json"))
        assert (said["receiver"], said["path"], said["async"], said["aliases"]) == (FIRST, FIRST, False, [])
        assert said["connections"][0]["signal"] == f"{HERE}.knock"
        assert [one["id"] for one in said["checks"]] == []

    def test_an_unknown_name_is_an_error_that_names_those_that_are_like_it(self, link):
        link(knock, receivers.first)
        link(knock, receivers.on_instance)
        with pytest.raises(CommandError) as raised:
            run("explain_receiver", "shop.receivers.on_instanse")
        assert "No receiver 'shop.receivers.on_instanse' is connected" in str(raised.value)
        assert "Did you mean one of these?\n  tests.receivers.on_instance\n" in str(raised.value)
        assert "AppConfig.ready()" in str(raised.value)

    def test_a_part_of_a_name_is_like_it(self, link):
        link(knock, receivers.on_instance)
        with pytest.raises(CommandError, match=r"Did you mean one of these\?\n  tests\.receivers\.on_instance\n"):
            run("explain_receiver", "INSTANCE")

    def test_a_name_like_no_other(self):
        with pytest.raises(CommandError, match=r"connected in this process\.\nmanage\.py list_receivers"):
            run("explain_receiver", "zzzzzzzzzzzzzzz")

    def test_one_that_may_be_several_is_asked_back(self, link):
        link(knock, receivers.first)
        link(knock, receivers.second, name="shop.first")
        with pytest.raises(
            CommandError, match=r"may be any of these; say which:\n  shop\.first\n  tests\.receivers\.first"
        ):
            run("explain_receiver", "first")

    @pytest.mark.parametrize("odd", ODD)
    def test_whatever_the_name_is(self, odd):
        with pytest.raises(CommandError) as raised:
            run("explain_receiver", odd)
        assert "\x1b" not in str(raised.value)


@pytest.fixture
def outbox_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from deferred_signals.outbox.backend import DatabaseOutbox

    monkeypatch.setattr(keeping, "_outbox", DatabaseOutbox())


class TestThePlaceOfAReceiver:
    def test_of_a_wrapped_one_is_that_of_the_inner(self):
        assert description.place_of(receivers.wrapped).startswith("tests/receivers.py:")

    def test_of_an_object_is_that_of_its_call(self):
        assert description.place_of(Plain()).startswith("tests/test_commands_receivers.py:")

    def test_of_a_file_elsewhere_is_its_whole_path(self):
        assert Path(description.place_of(json.dumps).partition(":")[0]).is_absolute()

    def test_of_what_is_not_written_in_python_is_none(self, link):
        assert description.place_of(print) == ""
        link(knock, print, deferred=False)
        assert "  stands in:     (no file)" in run("explain_receiver", "builtins.print")
