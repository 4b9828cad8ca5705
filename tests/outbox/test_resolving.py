"""Whether a delivery still resolves in this release, and what ``manage.py check_deliveries`` says of it."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connections
from django.db.models.signals import post_delete, post_init

from deferred_signals import Signal, context, register_carrier, register_codec
from deferred_signals.codec import base, custom
from deferred_signals.delivery import Delivery
from deferred_signals.envelope import seal, unseal
from deferred_signals.outbox import inspection
from deferred_signals.outbox.management.commands import check_deliveries
from deferred_signals.outbox.models import Origin, OutboxDelivery, State
from deferred_signals.outbox.resolving import problem_of
from deferred_signals.outbox.rows import insert, row_of
from deferred_signals.strict_json import dump, parse
from tests import receivers

knock = Signal()
FIRST = "tests.receivers.first"

pytestmark = pytest.mark.django_db(databases=["default", "other"], transaction=True)


@dataclasses.dataclass(frozen=True)
class Parcel:
    weight: int
    owner: Any = None


class Money:
    """Of a codec of the project's own."""

    def __init__(self, cents: int) -> None:
        self.cents = cents


def refuse(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("nothing of the project's is called")


@pytest.fixture
def codec() -> Iterator[None]:
    register_codec(Money, encode=lambda money: {"cents": money.cents, "of": Parcel(1)}, decode=refuse, tag="money")
    yield
    del base.tags["$money"], custom._owners["$money"], base._exact[Money]
    base._found.clear()


@pytest.fixture
def carrier() -> Iterator[None]:
    register_carrier("tenant", capture=lambda: Parcel(3), restore=refuse)
    yield
    context._carriers.pop("tenant", None)


@pytest.fixture
def sent(memory) -> Callable[..., str]:
    """The payload of a send."""

    def send(signal: Any = knock, sender: Any = None, **named: Any) -> str:
        signal.send(sender, **named)
        _, payload = memory.payloads.pop()
        return str(payload)

    return send


def changed(payload: str, change: Callable[[dict[str, Any]], Any]) -> str:
    """A payload as another release would have written it."""
    data = parse(payload.rpartition(":")[0])
    change(data)
    return seal(dump(data))


@contextmanager
def no_queries() -> Iterator[None]:
    with connections["default"].execute_wrapper(refuse), connections["other"].execute_wrapper(refuse):
        yield


class TestWhatResolves:
    def test_every_kind_of_value_without_a_query_and_without_a_call_of_others(self, link, sent, codec, carrier):
        user = User.objects.create_user("ada", email="ada@example.com")
        group = Group(name="customers")
        link(knock, receivers.first)
        payload = sent(
            sender=User,
            user=user,
            unsaved=group,
            twice={user: [group, {"again": group}]},
            parcel=Parcel(7, user),
            all_of_them=Group.objects.all(),
            money=[Money(5)],
            model=Group,
            function=refuse,
            error=ValueError("x"),
        )
        made: list[Any] = []
        post_init.connect(made.append)
        with no_queries():
            assert problem_of(payload) is None
        post_init.disconnect(made.append)
        assert made == []

    def test_a_snapshot_with_its_alias(self, link, sent):
        link(post_delete, receivers.on_instance, User)
        user = User.objects.create_user("ada")
        assert problem_of(sent(post_delete, User, instance=user, using="default", origin=user)) is None

    def test_a_field_that_the_database_fills_in_is_not_asked_for_its_default(self, link, sent):
        from tests.shop.models import Article

        link(knock, receivers.first)
        payload = changed(
            sent(item=Article(title="a")),
            lambda data: data["kwargs"]["item"]["$snapshot"][3].update(stock={"$default": None}),
        )
        assert problem_of(payload) is None

    def test_a_sender_that_no_module_of_this_process_has_is_none_to_worry_about(self, link, sent):
        link(knock, receivers.first)
        payload = changed(sent(), lambda data: data.update(sender={"$class": "shop.views.Gone"}))
        assert problem_of(payload) is None

    def test_a_receiver_by_its_former_name(self, link, sent):
        link(knock, receivers.first, aliases=("shop.once",))
        assert problem_of(changed(sent(), lambda data: data.update(to="shop.once"))) is None

    def test_an_encrypted_one(self, link, sent, settings):
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "ENCRYPTION_KEYS": [Fernet.generate_key()]}
        link(knock, receivers.first, encrypt=True)
        payload = sent(number=7)
        assert problem_of(payload) is None
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "ENCRYPTION_KEYS": [Fernet.generate_key()]}
        found = problem_of(payload)
        assert found
        assert (found.kind, "ENCRYPTION_KEYS lack" in found.reason) == ("payload", True)

    def test_however_old_it_is(self, link, sent, settings):
        link(knock, receivers.first)
        payload = changed(sent(), lambda data: data.update(at=1_000_000_000.0))
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "MAX_AGE": 60}
        assert problem_of(payload) is None


class TestWhatDoesNot:
    @pytest.mark.parametrize(
        ("change", "kind", "said"),
        [
            (lambda data: data.update(v=99), "wire", "wire version 99"),
            (lambda data: data.update(to="shop.gone"), "receiver", "No receiver of the name"),
            (lambda data: data["kwargs"].update(x={"$unheard": 1}), "value", "a type that this process does not know"),
            (lambda data: data["kwargs"].update(x={"$ref": ["shop.gone", 1, "default"]}), "value", "not installed"),
            (lambda data: data["kwargs"].update(x={"$ref": ["auth.user", "x", "default"]}), "value", "primary key"),
            (lambda data: data["kwargs"].update(x={"$ref": ["auth.user", 1, "moon"]}), "value", "DATABASES"),
            (lambda data: data["kwargs"].update(x={"$snapshot": ["shop.gone", None, True, {}]}), "value", "model"),
            (lambda data: data["kwargs"].update(x={"$snapshot": ["auth.user", "moon", True, {}]}), "value", "alias"),
            (
                lambda data: data["kwargs"].update(x={"$snapshot": ["auth.user", None, True, {"beard": 1}]}),
                "value",
                "A snapshot of auth.User has fields",
            ),
            (lambda data: data["kwargs"].update(x={"$snapshot": 7}), "value", r"be made again \("),
            (
                lambda data: data["kwargs"].update(
                    x={"$snapshot": ["auth.user", None, True, {"last_login": {"$field": "no time"}}]}
                ),
                "value",
                r"A value cannot be made again \(ValidationError\)",
            ),
            (lambda data: data["kwargs"].update(x={"$class": "shop.Gone"}), "value", "class or function"),
            (lambda data: data["context"].update(tenant=7), "value", "register_carrier"),
            (lambda data: data.update(sender={"$unheard": 1}), "value", "does not know"),
        ],
    )
    def test_says_why_and_shows_no_value(self, link, sent, change, kind, said):
        import re

        link(knock, receivers.first)
        found = problem_of(changed(sent(secret="hunter2"), change))
        assert found
        assert found.kind == kind
        assert re.search(said, found.reason)
        assert "hunter2" not in found.reason

    def test_a_signal_that_is_gone_where_the_receiver_hears_several(self, link, sent):
        link(knock, receivers.first)
        link(Signal(name="other"), receivers.first)
        found = problem_of(changed(sent(), lambda data: data.update(signal="shop.signals.gone")))
        assert found
        assert found.kind == "receiver"

    def test_a_payload_that_was_forged(self):
        found = problem_of("forged:x")
        assert found
        assert (found.kind, "signature is wrong" in found.reason) == ("payload", True)

    def test_a_value_of_a_codec_of_the_projects_is_looked_into(self, link, sent, codec):
        link(knock, receivers.first)
        payload = changed(
            sent(money=Money(5)),
            lambda data: data["kwargs"]["money"]["$money"]["of"]["$dataclass"].__setitem__(0, "shop.Gone"),
        )
        found = problem_of(payload)
        assert found
        assert "class or function" in found.reason

    def test_what_a_carrier_of_the_projects_has_captured_is_looked_into(self, link, sent, carrier):
        link(knock, receivers.first)
        payload = changed(sent(), lambda data: data["context"]["tenant"].update({"$dataclass": ["shop.Gone", {}]}))
        assert problem_of(payload)

    @pytest.mark.parametrize(
        ("function", "said"),
        [
            (receivers.on_item, "The receiver does not take what was sent: missing a required argument: 'item'."),
            (
                receivers.without_kwargs,
                "The receiver does not take what was sent: got an unexpected keyword argument",
            ),
        ],
    )
    def test_a_receiver_that_asks_for_other_arguments_by_now(self, link, sent, function, said):
        link(knock, receivers.first)
        link(Signal(), receivers.on_item)
        link(Signal(), receivers.without_kwargs)
        name = f"{function.__module__}.{function.__name__}"
        found = problem_of(changed(sent(number=7), lambda data: data.update(to=name)))
        assert found
        assert found.kind == "arguments"
        assert found.reason.startswith(said)


Put = Callable[..., str]


@pytest.fixture
def put(link, sent) -> Put:
    """Write a row; return the id of its delivery."""
    link(knock, receivers.first)
    payload = sent(number=7)

    def write(state: State = State.DEAD, alias: str = "default", **columns: Any) -> str:
        key = str(uuid.uuid4())
        mine = changed(payload, lambda data: data.update(id=key))
        envelope = unseal(mine)
        connection = connections[alias]
        insert(connection, [row_of(connection, Delivery.of(envelope, envelope.texts()), Origin.SPILLED)])
        OutboxDelivery.objects.using(alias).filter(delivery_id=key).update(
            **{"payload": mine, "state": state, **columns}
        )
        return key

    return write


def run(*arguments: str, **options: Any) -> str:
    out = StringIO()
    call_command("check_deliveries", *arguments, stdout=out, **{"stderr": StringIO(), "no_color": True, **options})
    return out.getvalue()


class TestTheCommand:
    def test_ends_well_where_all_resolve(self, put):
        put(State.PENDING), put(State.RUNNING), put(), put(State.SUCCEEDED, payload="forged:x")
        put(State.DISCARDED, payload="forged:x")
        assert run() == "default: 3 of 3 deliveries resolve.\nother: 0 of 0 deliveries resolve.\n"

    def test_ends_with_1_where_one_does_not_and_groups_them(self, put):
        put(State.PENDING)
        first = put(payload="forged:x")
        put(payload="forged:x")
        put(State.PENDING, "other", payload="forged:y")
        out = StringIO()
        with pytest.raises(CommandError, match="3 deliveries do not resolve in this release") as raised:
            call_command("check_deliveries", stdout=out, no_color=True)
        assert raised.value.returncode == 1
        lines = out.getvalue().splitlines()
        assert lines[0] == f"        2  dead  {FIRST}  [default], as {first}"
        assert lines[1].startswith("           payload: The payload's signature is wrong")
        assert lines[2] == "default: 1 of 3 deliveries resolve."
        assert lines[3].startswith(f"        1  pending  {FIRST}  [other], as ")
        assert lines[5] == "other: 0 of 1 deliveries resolve."

    def test_one_that_does_not(self, put):
        put(payload="forged:x")
        with pytest.raises(CommandError, match=r"^1 delivery does not resolve"):
            run()

    def test_only_one_database(self, put):
        put(payload="forged:x")
        assert run("--database", "other") == "other: 0 of 0 deliveries resolve.\n"

    def test_what_could_not_be_opened_when_it_came_fails_no_deployment(self, put):
        put(receiver="", payload="forged:x")
        assert "default: passed over 1 dead payload that could not be opened.\n" in run()

    def test_for_a_machine(self, put):
        one = put(payload="forged:x")
        put(receiver="", payload="forged:x")
        out = StringIO()
        with pytest.raises(CommandError):
            call_command("check_deliveries", "--json", stdout=out)
        said = json.loads(out.getvalue())
        reason = said["groups"][0].pop("reason")
        assert "signature" in reason
        assert said == {
            "resolves": False,
            "checked": 1,
            "failing": 1,
            "unopened": 1,
            "groups": [
                {
                    "database": "default",
                    "state": "dead",
                    "receiver": FIRST,
                    "kind": "payload",
                    "count": 1,
                    "example": one,
                }
            ],
        }

    def test_for_a_machine_where_all_resolve(self, put):
        put()
        assert json.loads(run("--json"))["resolves"] is True

    def test_reads_in_batches_and_each_row_once(self, put, monkeypatch):
        monkeypatch.setattr(inspection, "BATCH", 2)
        for _ in range(5):
            put()
        assert run("--database", "default") == "default: 5 of 5 deliveries resolve.\n"
        told: list[int] = []
        inspection.inspect_rows("default", told.append)
        assert told == [2, 2, 1]
        assert inspection.inspect_rows("default").checked == 5

    @pytest.mark.parametrize(("many", "shown"), [(1, "\r1 of 2\r2 of 2\n"), (2, "")])
    def test_a_terminal_shows_how_far_it_is_if_there_are_many(self, put, monkeypatch, many, shown):
        class Terminal(StringIO):
            def isatty(self) -> bool:
                return True

        monkeypatch.setattr(check_deliveries, "MANY", many)
        put(), put(alias="other")
        screen = Terminal()
        run(stderr=screen)
        assert screen.getvalue() == shown

    def test_a_database_that_fails_is_an_error_that_says_how(self, put):
        def fail(execute: Any, sql: str, *rest: Any) -> Any:
            if OutboxDelivery._meta.db_table in sql:
                raise DatabaseError("permission denied")
            return execute(sql, *rest)

        with connections["default"].execute_wrapper(fail), pytest.raises(CommandError, match="permission denied"):
            run()

    def test_nothing_that_a_terminal_would_obey(self, put):
        put(receiver="a\x1b[2Jb", payload="forged:x")
        out = StringIO()
        with pytest.raises(CommandError):
            call_command("check_deliveries", stdout=out, no_color=True)
        assert "a?[2Jb" in out.getvalue()
        assert "\x1b" not in out.getvalue()
