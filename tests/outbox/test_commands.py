"""``manage.py redeliver``, ``discard_deliveries`` and ``prune_deliveries``, as they are called from a terminal."""

from __future__ import annotations

import json
import uuid
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connections
from django.utils import timezone

from deferred_signals import Signal, keeping
from deferred_signals.delivery import Delivery
from deferred_signals.envelope import seal, unseal
from deferred_signals.outbox import selection
from deferred_signals.outbox.clock import DatabaseNow
from deferred_signals.outbox.management import on_selected
from deferred_signals.outbox.management.commands import redeliver
from deferred_signals.outbox.models import Origin, OutboxDelivery, State
from deferred_signals.outbox.rows import insert, row_of
from deferred_signals.strict_json import dump, parse
from tests import receivers

knock = Signal()

pytestmark = pytest.mark.django_db(databases=["default", "other"], transaction=True)

Put = Callable[..., str]
COMMANDS = ["redeliver", "discard_deliveries"]


@pytest.fixture
def put(link, memory) -> Put:
    """Write a row; return the id of its delivery."""
    link(knock, receivers.first)
    knock.send(None, number=7)
    _, payload = memory.payloads.pop()

    def write(state: State = State.DEAD, alias: str = "default", ago: float = 0, **columns: Any) -> str:
        key = str(uuid.uuid4())
        mine = seal(dump({**parse(payload.rpartition(":")[0]), "id": key}))
        envelope = unseal(mine)
        connection = connections[alias]
        insert(connection, [row_of(connection, Delivery.of(envelope, envelope.texts()), Origin.SPILLED)])
        then = DatabaseNow(-ago)
        ended = {} if state in (State.PENDING, State.RUNNING) else {"due": None, "ring_at": None, "finished": then}
        given = {"payload": mine, "state": state, "created": then, "error_type": "builtins.ValueError", **ended}
        OutboxDelivery.objects.using(alias).filter(delivery_id=key).update(**{**given, **columns})
        return key

    return write


def run(command: str, *arguments: Any, **options: Any) -> str:
    """As from a terminal where nobody is asked; what is asked, and when, is of TestTheQuestion."""
    out = StringIO()
    call_command(command, *arguments, stdout=out, **{"stderr": StringIO(), "interactive": False, **options})
    return out.getvalue()


def in_state(state: str, alias: str = "default") -> set[str]:
    return {
        str(key)
        for key in OutboxDelivery.objects.using(alias).filter(state=state).values_list("delivery_id", flat=True)
    }


class TestWhichOnes:
    @pytest.mark.parametrize(("command", "end"), [("redeliver", "pending"), ("discard_deliveries", "discarded")])
    def test_one_id_or_several(self, put, command, end):
        one, two, _ = put(), put(), put()
        assert "2 deliveries." in run(command, one, two)
        assert in_state(end) == {one, two}

    @pytest.mark.parametrize("command", COMMANDS)
    def test_none_named_is_refused(self, put, command):
        put()
        with pytest.raises(CommandError, match="Say which: ids, --receiver"):
            run(command)
        assert len(in_state("dead")) == 1

    def test_of_a_receiver(self, put):
        one, _, two = put(receiver="shop.a"), put(receiver="shop.b"), put(receiver="shop.c")
        run("redeliver", "--receiver", "shop.a", "--receiver", "shop.c")
        assert in_state("pending") == {one, two}

    @pytest.mark.parametrize("name", ["OperationalError", "django.db.utils.OperationalError"])
    def test_of_an_exception_with_or_without_its_module(self, put, name):
        one = put(error_type="django.db.utils.OperationalError")
        put(error_type="shop.NotAnOperationalError")
        put(error_type="")
        run("redeliver", "--error-type", name)
        assert in_state("pending") == {one}

    def test_of_a_time(self, put):
        old, mid, new = put(ago=7200), put(ago=3600), put(ago=60)
        run("redeliver", "--since", "90m", "--before", "30m")
        assert in_state("pending") == {mid}
        run("redeliver", "--since", (datetime.now(UTC) - timedelta(minutes=5)).isoformat())
        assert in_state("pending") == {mid, new}
        run("redeliver", "--before", (timezone.localtime() + timedelta(days=1)).date().isoformat())
        assert in_state("pending") == {old, mid, new}

    def test_filters_hold_together(self, put):
        one = put(receiver="shop.a")
        put(receiver="shop.a", error_type="builtins.KeyError")
        put(receiver="shop.b")
        run("redeliver", "--receiver", "shop.a", "--error-type", "ValueError")
        assert in_state("pending") == {one}

    def test_all_of_every_database(self, put):
        here, there = put(), put(alias="other")
        run("redeliver", "--all")
        assert (in_state("pending"), in_state("pending", "other")) == ({here}, {there})

    def test_of_one_database(self, put):
        put()
        there = put(alias="other")
        run("redeliver", "--all", "--database", "other")
        assert (in_state("pending"), in_state("pending", "other")) == (set(), {there})

    def test_not_those_that_could_not_be_opened_unless_they_are_asked_for(self, put):
        closed, opened = put(receiver=""), put()
        run("redeliver", "--all")
        assert in_state("pending") == {opened}
        run("redeliver", "--unopened")
        assert in_state("pending") == {opened, closed}

    def test_one_that_could_not_be_opened_by_its_id(self, put):
        closed = put(receiver="")
        run("redeliver", closed)
        assert in_state("pending") == {closed}

    def test_pending_ones_where_that_is_said(self, put):
        waiting, dead, running = put(State.PENDING), put(), put(State.RUNNING)
        run("discard_deliveries", "--all", "--state", "pending")
        assert (in_state("discarded"), in_state("dead"), in_state("running")) == ({waiting}, {dead}, {running})

    def test_pending_ones_by_the_time_of_their_send(self, put):
        old, new = put(State.PENDING, ago=7200), put(State.PENDING)
        run("discard_deliveries", "--before", "1h", "--state", "pending")
        assert (in_state("discarded"), in_state("pending")) == ({old}, {new})

    @pytest.mark.parametrize("text", ["7", "d", "1y", "soon", "2030-13-01", "2030-02-31T25:00", ""])
    def test_what_is_no_time_is_refused(self, text):
        with pytest.raises(ArgumentTypeError):
            selection.moment(text)

    @pytest.mark.parametrize("days", [60, 120, 180, 240, 300])
    def test_a_time_is_that_moment_also_if_clocks_have_been_changed_since(self, days):
        then = timezone.localtime() - timedelta(days=days)
        gone = (timezone.now() - then.astimezone(UTC)).total_seconds()
        for text in (f"{then:%Y-%m-%dT%H:%M:%S}", f"{then:%Y-%m-%dT%H:%M:%S%z}"):
            assert abs(selection.moment(text) - gone) < 60

    def test_a_time_before_all_time_is_a_hundred_years_ago_everywhere(self, put):
        key = put()
        run("redeliver", "--since", "999999999w")
        assert in_state("pending") == {key}

    def test_what_is_no_age_is_refused(self):
        with pytest.raises(CommandError, match="as in 90s, 30m, 12h, 7d or 2w"):
            run("prune_deliveries", "--older-than", "2030-01-31")

    def test_what_is_no_id_is_refused(self):
        with pytest.raises(CommandError, match="the id of a delivery, a UUID"):
            run("redeliver", "7")


class TestDatabases:
    def test_one_that_does_not_exist_is_refused(self, put):
        with pytest.raises(CommandError, match="There is no database 'moon'"):
            run("redeliver", "--all", "--database", "moon")

    def test_one_without_the_table_is_refused_if_it_is_named_and_else_left_out(self, put, outbox, monkeypatch):
        key = put()
        lacking = without_table(outbox, monkeypatch, "other")
        with pytest.raises(CommandError, match=r"migrate --database=other"):
            run("redeliver", "--all", "--database", "other")
        run("redeliver", "--all")
        assert in_state("pending") == {key}
        lacking.add("default")
        with pytest.raises(CommandError, match="No database has the table"):
            run("redeliver", "--all")

    def test_a_replica_of_which_the_routers_say_so_is_left_out(self, put, settings):
        key = put(alias="other")
        settings.DATABASE_ROUTERS = ["tests.outbox.test_commands.OtherIsAReplica"]
        run("redeliver", "--all")
        assert in_state("dead", "other") == {key}

    def test_one_that_does_not_answer_is_an_error(self, put, outbox, monkeypatch):
        def away(alias: str) -> None:
            raise DatabaseError("connection refused")

        monkeypatch.setattr(outbox, "check", away)
        with pytest.raises(CommandError, match="'default' does not answer: DatabaseError: connection refused"):
            run("redeliver", "--all")

    @pytest.mark.parametrize("command", [*COMMANDS, "prune_deliveries --older-than 1h"])
    def test_one_that_fails_meanwhile_is_an_error_that_says_how(self, put, command):
        def refuse(execute: Any, sql: str, *rest: Any) -> Any:
            if OutboxDelivery._meta.db_table in sql:
                raise DatabaseError("permission denied for table deferred_signals_delivery")
            return execute(sql, *rest)

        put(), put(State.SUCCEEDED, ago=7200)
        with connections["default"].execute_wrapper(refuse), pytest.raises(CommandError, match="permission denied"):
            run(*command.split(), *(["--all"] if command in COMMANDS else []))


class OtherIsAReplica:
    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return False if db == "other" else None


def without_table(outbox: Any, monkeypatch: Any, *aliases: str) -> set[str]:
    lacking, check = set(aliases), outbox.check

    def asked(alias: str) -> None:
        if alias in lacking:
            monkeypatch.setattr(OutboxDelivery._meta, "db_table", "nowhere")
            outbox._there.discard(alias)
        try:
            check(alias)
        finally:
            monkeypatch.setattr(OutboxDelivery._meta, "db_table", "deferred_signals_delivery")

    monkeypatch.setattr(outbox, "check", asked)
    return lacking


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def wait_for_the_clock() -> None:
    """Until what happens next is later by the database's clock, however it rounds."""
    now = OutboxDelivery.objects.annotate(now=DatabaseNow()).values_list("now", flat=True)
    began = now.all()[0]
    while now.all()[0] - began < timedelta(seconds=0.1):
        pass


def asking(command: str, *arguments: Any, **options: Any) -> str:
    return run(command, *arguments, interactive=True, **options)


class TestTheQuestion:
    @pytest.fixture(autouse=True)
    def _few_are_many(self, monkeypatch):
        monkeypatch.setattr(on_selected, "MANY", 1)
        monkeypatch.setattr(redeliver.Command, "unasked", 1)

    @pytest.fixture
    def answer(self, monkeypatch) -> Callable[[str], list[str]]:
        def use(text: str) -> list[str]:
            asked: list[str] = []

            def ask(question: str) -> str:
                asked.append(question)
                if not text:
                    raise EOFError
                return text

            monkeypatch.setattr("builtins.input", ask)
            return asked

        return use

    def test_it_asks_and_shows_what_they_are(self, put, answer):
        put(receiver="shop.a"), put(receiver="shop.b")
        asked = answer("y")
        out = asking("redeliver", "--all")
        assert asked == ["Redeliver 2 deliveries of the database default? [y/N] "]
        assert "1  shop.a  builtins.ValueError  [default]" in out
        assert len(in_state("pending")) == 2

    @pytest.mark.parametrize("text", ["n", " ", "what?", ""])
    def test_without_a_yes_nothing_is_changed(self, put, answer, text):
        put(), put()
        answer(text)
        with pytest.raises(CommandError, match="Nothing is changed"):
            asking("discard_deliveries", "--all")
        assert len(in_state("dead")) == 2

    @pytest.mark.parametrize("option", ["--no-input", "--noinput"])
    def test_it_does_not_ask_where_nobody_is(self, put, answer, option):
        put(), put()
        asked = answer("n")
        call_command("redeliver", "--all", option, stdout=StringIO())
        assert (asked, len(in_state("pending"))) == ([], 2)

    def test_a_machine_is_not_asked(self, put, answer):
        put(), put()
        asked = answer("y")
        with pytest.raises(CommandError, match="Say --no-input if you mean it"):
            asking("redeliver", "--all", "--json")
        assert (asked, len(in_state("dead"))) == ([], 2)

    def test_few_are_redelivered_without_a_question(self, put, answer):
        put()
        asked = answer("n")
        asking("redeliver", "--all")
        assert asked == []

    def test_not_a_single_one_is_discarded_without_a_question(self, put, answer):
        one, _ = put(alias="other"), put()
        asked = answer("y")
        out = asking("discard_deliveries", one)
        assert out.splitlines()[0] == "        1  tests.receivers.first  builtins.ValueError  [other]"
        assert asked == ["Discard 1 delivery of the database other? [y/N] "]
        assert (in_state("discarded", "other"), len(in_state("dead"))) == ({one}, 1)

    def test_nothing_is_asked_about_nothing(self, answer):
        asked = answer("n")
        asking("discard_deliveries", "--all")
        asking("prune_deliveries", "--older-than", "1h")
        assert asked == []

    def test_before_rows_are_deleted_it_shows_which(self, put, answer):
        put(State.SUCCEEDED, ago=7200), put(ago=7200), put(State.SUCCEEDED, ago=7200, alias="other")
        asked = answer("y")
        out = asking("prune_deliveries", "--older-than", "1h", "--dead")
        assert out.splitlines() == [
            "        1  dead  [default]",
            "        1  succeeded  [default]",
            "        1  succeeded  [other]",
            "default: 2 rows deleted.",
            "other: 1 row deleted.",
        ]
        assert asked == ["Delete 3 rows of the database default, other? [y/N] "]

    @pytest.mark.parametrize(
        ("command", "state"),
        [
            (["discard_deliveries", "--all"], State.DEAD),
            (["discard_deliveries", "--all", "--state", "pending"], State.PENDING),
            (["redeliver", "--all"], State.DEAD),
            (["prune_deliveries", "--dead", "--older-than", "1h"], State.DEAD),
        ],
    )
    def test_the_answer_is_about_what_there_was_at_the_question(self, put, monkeypatch, command, state):
        put(state, ago=7200), put(state, ago=7200)
        later: list[str] = []

        def ask(question: str) -> str:
            assert " 2 " in question
            wait_for_the_clock()
            later.append(put(state, ago=3600 if "prune_deliveries" in command else 0))
            return "y"

        monkeypatch.setattr("builtins.input", ask)
        asking(*command)
        assert in_state(state) == {*later}

    @pytest.mark.parametrize("arguments", [[], ["--json"]])
    def test_without_a_yes_no_row_is_deleted(self, put, answer, arguments):
        put(State.SUCCEEDED, ago=7200)
        answer("")
        with pytest.raises(CommandError, match="ay --no-input"):
            asking("prune_deliveries", "--older-than", "1h", *arguments)
        assert len(in_state("succeeded")) == 1

    def test_a_terminal_shows_how_far_it_is(self, put, answer):
        put(), put(alias="other")
        screen = Terminal()
        run("redeliver", "--all", "--no-input", "--no-color", stderr=screen)
        assert screen.getvalue() == "\r1 of 2\r2 of 2\n"

    def test_a_terminal_shows_how_much_is_deleted(self, put):
        for _ in range(3):
            put(State.SUCCEEDED, ago=7200)
        screen = Terminal()
        run("prune_deliveries", "--older-than", "1h", "--batch", "2", "--no-color", stderr=screen)
        assert screen.getvalue() == "\r2 of 3\r3 of 3\n"


class TestWhatIsSaid:
    def test_a_dry_run_changes_nothing(self, put, memory):
        put(receiver="shop.a"), put(receiver="shop.a"), put(receiver="", alias="other", error_type="OpenError")
        out = run("redeliver", "--all", "--dry-run")
        assert out.splitlines() == ["        2  shop.a  builtins.ValueError  [default]", "        2  in all"]
        out = run("discard_deliveries", "--unopened", "--dry-run")
        assert out.splitlines()[0] == "        1  (could not be opened)  OpenError  [other]"
        assert len(in_state("dead")) == 2
        assert memory.payloads == []

    def test_a_dry_run_for_a_machine(self, put):
        put(receiver="shop.a")
        assert json.loads(run("redeliver", "--all", "--dry-run", "--json")) == {
            "count": 1,
            "groups": [{"database": "default", "receiver": "shop.a", "error_type": "builtins.ValueError", "count": 1}],
        }

    def test_what_is_left_is_named_and_the_command_ends_with_1(self, put):
        forged, absent = put(payload="forged:x"), str(uuid.uuid4())
        fine = put()
        errors = StringIO()
        with pytest.raises(CommandError, match="2 deliveries left as they are") as raised:
            run("redeliver", forged, absent, fine, stderr=errors)
        assert raised.value.returncode == 1
        assert f"{absent}: There is no dead delivery of this id." in errors.getvalue()
        assert f"{forged} to tests.receivers.first: The payload's signature is wrong" in errors.getvalue()
        assert in_state("pending") == {fine}

    def test_nothing_that_a_terminal_would_obey(self, put):
        """Who can write to the table chooses names; a title, a colour or a cleared screen is none of them."""
        put(receiver="a\x1b[2Jb", payload="forged:x", error_type="c\x9b31md\r\ne")
        assert run("redeliver", "--all", "--dry-run").splitlines()[0] == "        1  a?[2Jb  c?31md??e  [default]"
        errors = StringIO()
        with pytest.raises(CommandError, match="left as it is"):
            run("redeliver", "--all", stderr=errors)
        assert " to a?[2Jb: " in errors.getvalue()
        assert "\x1b[2J" not in errors.getvalue()

    def test_of_one_that_is_in_another_state(self, put):
        waiting = put(State.PENDING)
        errors = StringIO()
        with pytest.raises(CommandError, match="1 delivery left as it is"):
            run("redeliver", waiting, stderr=errors)
        assert f"{waiting}: It is pending, and not dead. manage.py explain_delivery says more." in errors.getvalue()

    @pytest.mark.parametrize(
        ("command", "how"),
        [
            ("redeliver", "redeliver --all --dry-run"),
            ("discard_deliveries --state pending", "discard_deliveries --state pending --all --dry-run"),
        ],
    )
    def test_where_none_is_as_asked_for_it_says_how_to_see_them(self, put, command, how):
        put(), put(State.PENDING)
        assert f"manage.py {how} shows which there are." in run(*command.split(), "--receiver", "shop.misspelt")
        assert json.loads(run(*command.split(), "--receiver", "shop.misspelt", "--json"))["left"] == []

    def test_of_what_was_misspelt(self):
        with pytest.raises(CommandError, match="'yesterday' is no time, as in 2030-01-31T12:00"):
            run("redeliver", "--since", "yesterday")
        with pytest.raises(CommandError, match="'7' is not the id of a delivery"):
            run("redeliver", "7")

    def test_to_a_machine(self, put):
        forged, fine = put(payload="forged:x"), put()
        out = StringIO()
        with pytest.raises(CommandError, match="1 delivery left as it is"):
            call_command("redeliver", forged, fine, "--json", stdout=out)
        said = json.loads(out.getvalue())
        assert said["redelivered"] == 1
        ((left),) = said["left"]
        assert (left["database"], left["id"], left["receiver"]) == ("default", forged, "tests.receivers.first")
        assert "signature" in left["reason"]

    def test_no_value_of_a_payload(self, put):
        out = run("redeliver", put(), "--json")
        assert json.loads(out) == {"redelivered": 1, "left": []}

    def test_without_the_outbox_is_an_error_that_names_the_app(self, monkeypatch):
        monkeypatch.setattr(keeping, "_outbox", None)
        with pytest.raises(Exception, match=r"deferred_signals\.outbox"):
            run("redeliver", "--all")


class TestPrune:
    def test_deletes_what_has_finished_long_enough_ago_but_no_dead_ones(self, put):
        gone = [put(State.SUCCEEDED, ago=7200), put(State.DISCARDED, ago=7200, alias="other")]
        stay = [put(State.SUCCEEDED, ago=60), put(State.DEAD, ago=7200), put(State.PENDING, ago=7200)]
        out = run("prune_deliveries", "--older-than", "1h")
        assert out.splitlines() == ["default: 1 row deleted.", "other: 1 row deleted."]
        left = OutboxDelivery.objects.values_list("delivery_id", flat=True)
        assert {str(key) for key in left} == {*stay}
        assert not {*gone} & {str(key) for key in left}

    def test_goes_by_the_setting_where_nothing_is_said(self, put, settings):
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "RETENTION": 3600}
        put(State.SUCCEEDED, ago=7200)
        kept = put(State.SUCCEEDED, ago=60)
        assert json.loads(run("prune_deliveries", "--json")) == {"pruned": {"default": 1, "other": 0}}
        assert in_state("succeeded") == {kept}

    def test_asks_for_an_age_where_the_setting_has_none(self, settings):
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "RETENTION": None}
        with pytest.raises(CommandError, match="Say --older-than"):
            run("prune_deliveries")

    def test_takes_dead_ones_where_that_is_said_in_batches(self, put):
        for _ in range(3):
            put(ago=7200)
        assert "default: 3 rows deleted." in run("prune_deliveries", "--older-than", "1h", "--dead", "--batch", "2")

    def test_a_batch_of_nothing_is_refused(self):
        with pytest.raises(CommandError, match="--batch must be 1 or more"):
            run("prune_deliveries", "--batch", "0")

    def test_of_one_database(self, put):
        put(State.SUCCEEDED, ago=7200), put(State.SUCCEEDED, ago=7200, alias="other")
        assert run("prune_deliveries", "--older-than", "1h", "--database", "other") == "other: 1 row deleted.\n"
        assert len(in_state("succeeded")) == 1
