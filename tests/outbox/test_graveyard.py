"""Dead deliveries of every mode are kept, with what they died of; errors are kept without secrets."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.db import DatabaseError, connections, transaction
from django.db.models import QuerySet
from django.db.models.signals import post_delete, post_save

from deferred_signals import Signal, attempt
from deferred_signals.bell import Bell
from deferred_signals.delivery import Delivery
from deferred_signals.envelope import seal, unseal
from deferred_signals.exceptions import OpenError
from deferred_signals.outbox import graveyard
from deferred_signals.outbox.graveyard import LONGEST, kept, report
from deferred_signals.outbox.models import Origin, OutboxDelivery, State
from deferred_signals.outbox.rows import insert, row_of
from deferred_signals.outcome import Outcome
from deferred_signals.strict_json import dump, parse
from tests import receivers
from tests.shop.models import Customer

knock = Signal()

pytestmark = pytest.mark.django_db(databases=["default", "other"], transaction=True)

STARS = "********************"


def the_row() -> OutboxDelivery:
    return OutboxDelivery.objects.get()


def sent(memory: Any, **kwargs: Any) -> str:
    """The payload of a delivery that has been published."""
    knock.send(None, **kwargs)
    _, payload = memory.payloads.pop()
    return str(payload)


def changed(payload: str, **keys: Any) -> str:
    return seal(dump({**parse(payload.rpartition(":")[0]), **keys}))


class TestADeliveryThatDies:
    def test_by_its_retries_is_kept_with_its_payload_error_and_attempts(self, link, memory):
        link(knock, receivers.troubled, max_retries=1)
        receivers.troubles[:] = [ValueError("no luck"), ValueError("none at all")]
        knock.send(None, number=7)
        memory.deliver()
        assert OutboxDelivery.objects.count() == 0
        ((delivery, _),) = memory.deliver()
        row = the_row()
        assert (row.origin, row.state, row.receiver) == (Origin.BURIED, State.DEAD, "tests.receivers.troubled")
        assert (str(row.delivery_id), row.attempt, row.crashes) == (delivery.id, 2, 0)
        assert row.error_type == "ValueError"
        assert "the last (max_retries): none at all" in row.error
        assert "receivers.troubles.pop(0)" not in row.error
        assert row.traceback.startswith("Traceback")
        assert "in troubled\n    raise receivers" not in row.traceback
        assert "raise troubles.pop(0)" in row.traceback
        assert unseal(row.payload).kwargs == {"number": 7}
        assert (row.due, row.ring_at) == (None, None)
        assert row.finished is not None

    def test_for_its_row_is_gone_is_kept_when_that_is_death(self, link, memory):
        link(post_save, receivers.on_instance, Customer, missing="dead")
        customer = Customer.objects.create(name="Ada")
        customer.delete()
        memory.deliver()
        row = the_row()
        assert (row.receiver, row.error_type) == (
            "tests.receivers.on_instance",
            "deferred_signals.exceptions.InstanceMissing",
        )
        assert row.signal == "django.db.models.signals.post_save"

    def test_for_it_is_one_too_many_of_a_chain_is_kept(self, link, memory, settings):
        link(knock, receivers.first)
        attempt.run(changed(sent(memory), depth=9))
        assert the_row().error_type == "deferred_signals.exceptions.TooDeep"

    def test_of_its_workers_is_kept_with_the_count(self, link, memory):
        link(knock, receivers.first)
        _, end = attempt.run(changed(sent(memory), crashes=9), redelivered=True)
        assert end.state == "dead"
        row = the_row()
        assert (row.crashes, row.error_type) == (10, "deferred_signals.exceptions.WorkerLost")

    def test_with_arguments_that_cannot_be_made_again_is_kept(self, link, memory):
        link(knock, receivers.first)
        attempt.run(changed(sent(memory), kwargs={"when": {"$date": "never"}}))
        assert the_row().error_type == "deferred_signals.exceptions.DecodeError"

    def test_of_an_unknown_receiver_is_kept_when_the_release_window_is_over(self, link, memory, settings):
        link(knock, receivers.first)
        attempt.run(changed(sent(memory), to="shop.gone", waiting=time.time() - 2 * 3600))
        row = the_row()
        assert (row.receiver, row.error_type) == ("shop.gone", "deferred_signals.exceptions.UnknownReceiver")

    def test_stays_encrypted_if_it_travelled_so(self, link, memory, settings):
        settings.DEFERRED_SIGNALS = {
            **settings.DEFERRED_SIGNALS,
            "ENCRYPTION_KEYS": [Fernet.generate_key().decode()],
        }
        link(knock, receivers.troubled, encrypt=True, max_retries=0)
        receivers.troubles[:] = [ValueError("no luck")]
        knock.send(None, word="Rosebud")
        memory.deliver()
        assert "Rosebud" not in the_row().payload
        assert unseal(the_row().payload).encrypted

    def test_is_not_kept_when_it_is_discarded_or_retried_or_has_run(self, link, memory, rows):
        link(knock, receivers.discards)
        link(knock, receivers.wants_later)
        link(knock, receivers.first)
        knock.send(None)
        memory.deliver()
        assert rows("state") == []

    def test_fires_no_receiver_of_the_project_for_our_row(self, link, memory, calls):
        heard = []

        def listen(sender: Any, **kwargs: Any) -> None:
            heard.append(sender)

        post_save.connect(listen)
        post_delete.connect(listen)
        try:
            link(knock, receivers.troubled, max_retries=0)
            receivers.troubles[:] = [ValueError()]
            knock.send(None)
            memory.deliver()
        finally:
            post_save.disconnect(listen)
            post_delete.disconnect(listen)
        assert the_row().state == State.DEAD
        assert heard == []


class TestPayloadsThatCannotBeOpened:
    def test_one_with_a_wrong_signature_is_kept_as_it_is_without_a_receiver(self, link, memory):
        link(knock, receivers.first)
        forged = sent(memory)[:-1] + "!"
        _, end = attempt.run(forged)
        assert isinstance(end.error, OpenError)
        row = the_row()
        assert (row.payload, row.receiver, row.state, row.origin) == (forged, "", State.DEAD, Origin.BURIED)
        assert row.error_type == "deferred_signals.exceptions.OpenError"

    def test_one_that_is_too_old_is_kept_as_it_is(self, link, memory, settings):
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "MAX_AGE": 60}
        link(knock, receivers.first)
        attempt.run(changed(sent(memory), at=time.time() - 61))
        assert "older than MAX_AGE" in the_row().error

    def test_the_same_one_is_kept_once(self, rows):
        attempt.run("forged:1")
        attempt.run("forged:1")
        attempt.run("forged:2")
        assert rows("payload") == ["forged:1", "forged:2"]

    def test_more_than_so_many_are_not_kept_and_the_log_says_so(self, rows, monkeypatch, caplog):
        monkeypatch.setattr(graveyard, "MOST_UNOPENED", 2)
        for number in range(4):
            attempt.run(f"forged:{number}")
        assert rows("payload") == ["forged:0", "forged:1"]
        assert caplog.text.count("2 payloads that cannot be opened are kept already, and this one is not.") == 2

    def test_their_number_keeps_out_none_that_can_be_opened(self, link, memory, rows, monkeypatch):
        monkeypatch.setattr(graveyard, "MOST_UNOPENED", 1)
        link(knock, receivers.troubled, max_retries=0)
        receivers.troubles[:] = [ValueError()]
        attempt.run("forged:1")
        attempt.run(sent(memory))
        assert rows("receiver") == ["", "tests.receivers.troubled"]

    @pytest.mark.parametrize("payload", ["nul\0", "a line\n", "\ud800:x"])
    def test_what_no_sender_of_ours_can_have_written_is_not_kept(self, rows, caplog, payload):
        attempt.run(payload)
        assert rows("payload") == []
        assert "could not be kept" not in caplog.text

    def test_what_is_not_printable_but_may_be_ours_is_kept(self, rows):
        attempt.run("\u2028\u200b\ue000:x")
        assert rows("payload") == ["\u2028\u200b\ue000:x"]

    def test_a_doorbell_is_not_kept_for_its_rows_are(self, rows):
        attempt.run(Bell("default", ()).payload[:-1] + "!")
        assert rows("payload") == []


class TestADeliveryThatHasARow:
    def spill(self, payload: str, **columns: Any) -> OutboxDelivery:
        envelope = unseal(payload)
        default = connections["default"]
        insert(default, [row_of(default, Delivery.of(envelope, envelope.texts()), Origin.SPILLED)])
        rows = OutboxDelivery.objects.filter(delivery_id=envelope.id)
        rows.update(**columns)
        return rows.get()

    @pytest.fixture
    def payload(self, link, memory) -> str:
        """Of a delivery that dies."""
        link(knock, receivers.troubled, max_retries=0)
        receivers.troubles[:] = [ValueError("no luck")]
        return sent(memory)

    @pytest.mark.parametrize("state", [State.PENDING, State.DEAD])
    def test_which_waits_or_is_dead_is_dead_there(self, payload, state):
        row = self.spill(payload, state=state)
        attempt.run(payload)
        after = the_row()
        assert (after.number, after.state, after.origin) == (row.number, State.DEAD, Origin.SPILLED)
        assert (after.due, after.ring_at) == (None, None)
        assert "no luck" in after.error

    @pytest.mark.parametrize("state", [State.RUNNING, State.SUCCEEDED, State.DISCARDED])
    def test_which_runs_or_has_ended_otherwise_is_left_alone(self, payload, state, caplog):
        self.spill(payload, state=state)
        attempt.run(payload)
        assert (the_row().state, the_row().error) == (state, "")
        assert "could not be kept" not in caplog.text

    def test_which_another_process_writes_at_the_same_time_is_one_row(self, payload, monkeypatch, caplog):
        self.spill(payload)
        monkeypatch.setattr(QuerySet, "exists", lambda self: False)  # not yet, when it was asked
        attempt.run(payload)
        assert the_row().state == State.DEAD
        assert "could not be kept" not in caplog.text


class TestWhenTheDatabaseIsAway:
    @pytest.fixture
    def dying(self, link, memory) -> str:
        link(knock, receivers.troubled, max_retries=0)
        receivers.troubles[:] = [ValueError("no luck")]
        return sent(memory)

    def test_there_is_one_line_and_the_delivery_ends_as_it_would(self, dying, caplog, monkeypatch):
        def away(*given: Any) -> None:
            raise DatabaseError("the server closed the connection")

        monkeypatch.setattr("deferred_signals.outbox.backend.bury", away)
        _, end = attempt.run(dying)
        assert (end.state, str(end.error)) == ("dead", "no luck")
        (line,) = [record for record in caplog.records if "could not be kept" in record.message]
        assert line.message == "A dead delivery could not be kept: DatabaseError: the server closed the connection"
        assert line.exc_info is None

    def test_a_connection_that_had_broken_is_made_anew(self, dying, caplog, monkeypatch):
        # Where the test's database is not in this process's memory, the real thing; else what looks the same.
        default = connections["default"]
        default.ensure_connection()
        if default.vendor == "sqlite":
            monkeypatch.setattr("deferred_signals.outbox.backend.bury", FailsOnce(graveyard.bury))
            monkeypatch.setattr("deferred_signals.outbox.backend.database_is_away", lambda: True)
        else:
            default.connection.close()
        attempt.run(dying)
        assert the_row().state == State.DEAD
        assert "could not be kept" not in caplog.text

    def test_an_alias_without_the_table_is_one_line(self, dying, outbox, caplog, monkeypatch):
        monkeypatch.setattr(OutboxDelivery._meta, "db_table", "nowhere")
        attempt.run(dying)
        assert (
            "A dead delivery could not be kept: ConfigurationError: The database 'default' has no table" in caplog.text
        )

    def test_a_mistake_of_ours_is_told_with_its_traceback_and_changes_nothing(self, dying, caplog, monkeypatch):
        monkeypatch.setattr("deferred_signals.outbox.backend.bury", lambda *given: 1 / 0)
        _, end = attempt.run(dying)
        assert end.state == "dead"
        (line,) = [record for record in caplog.records if "could not be kept" in record.message]
        assert line.exc_info is not None


class FailsOnce:
    def __init__(self, function: Any) -> None:
        self.function = function
        self.called = 0

    def __call__(self, *given: Any) -> Any:
        self.called += 1
        if self.called == 1:
            raise DatabaseError("the server closed the connection")
        return self.function(*given)


class TestInATransaction:
    def test_of_the_sender_s_own_it_is_kept_with_it(self, link, memory, rows):
        link(knock, receivers.troubled, max_retries=0)
        receivers.troubles[:] = [ValueError()]
        payload = sent(memory)
        with transaction.atomic():
            attempt.run(payload)
            assert rows("state") == ["dead"]
        assert rows("state") == ["dead"]

    def test_that_has_failed_it_is_not_kept_and_nothing_else_is_touched(self, link, memory, rows, caplog):
        link(knock, receivers.troubled, max_retries=0)
        receivers.troubles[:] = [ValueError("no luck")]
        payload = sent(memory)
        with transaction.atomic():
            transaction.set_rollback(True)
            _, end = attempt.run(payload)
            transaction.set_rollback(True)
        assert str(end.error) == "no luck"
        assert rows("state") == []
        assert "A dead delivery could not be kept: TransactionManagementError" in caplog.text


class TestWhereTheyAreKept:
    def test_is_where_the_router_says(self, link, memory, rows, settings):
        settings.DATABASE_ROUTERS = ["tests.outbox.test_graveyard.DeadGoElsewhere"]
        link(knock, receivers.troubled, max_retries=0)
        receivers.troubles[:] = [ValueError()]
        attempt.run(sent(memory))
        assert (rows("state"), rows("state", alias="other")) == ([], ["dead"])


class DeadGoElsewhere:
    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "other" if model is OutboxDelivery else None


class TestSecrets:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("password=hunter2 and more", f"password={STARS} and more"),
            ("{'api_key': 'hunter2', 'name': 'Ada'}", f"{{'api_key': {STARS}, 'name': 'Ada'}}"),
            ('{"refreshToken": "hunter \\"2\\"", "n": 1}', f'{{"refreshToken": {STARS}, "n": 1}}'),
            ("kwargs={'password': b'hunter2'}", f"kwargs={{'password': {STARS}}}"),
            ("Authorization: Bearer hunter2", f"Authorization: {STARS}"),
            ("https://x.example/?token=hunter2&page=2", f"https://x.example/?token={STARS}&page=2"),
            ("redis://ada:hunter2@cache:6379/0", f"redis://ada:{STARS}@cache:6379/0"),
            ("Key (token)=(hunter2) already exists.", f"Key (token)={STARS} already exists."),
            ('the JSON "{\\"secret\\": \\"hunter2\\"}"', f'the JSON "{{\\"secret\\": {STARS}}}"'),
        ],
    )
    def test_a_value_that_is_called_like_one_is_stars(self, text, expected):
        assert kept(text) == expected

    @pytest.mark.parametrize(
        "text", ["KeyError: 'customer'", "shop.errors.APIException: out of stock", "name='Ada'", "no secret here"]
    )
    def test_what_is_not_called_like_one_stays(self, text):
        assert kept(text) == text

    def test_a_long_text_is_read_in_reasonable_time(self):
        for text in ("a" * 10**6, "password" * 10**5, "password=" * 10**5, "('\"" * 10**5, "key=(" * 10**5):
            begun = time.process_time()
            assert len(kept(text)) <= 2 * LONGEST
            assert time.process_time() - begun < 2

    def test_no_value_of_a_variable_stands_in_a_traceback(self, link, memory):
        link(knock, receivers.troubled, max_retries=0)
        receivers.troubles[:] = [ValueError("password: hunter2")]
        knock.send(None, word="Rosebud")
        memory.deliver()
        row = the_row()
        assert "Rosebud" not in row.error + row.traceback
        assert "hunter2" not in row.error + row.traceback
        assert "ValueError: password: " + STARS in row.traceback


class TestReports:
    def test_of_long_texts_keep_the_beginning_and_the_end(self):
        said = report(Outcome("dead", ValueError("begin" + "x" * 50_000 + "end"), "why"))["error"]
        assert len(said) <= LONGEST
        assert said.startswith("why: begin")
        assert said.endswith("end")

    def test_take_out_what_databases_refuse(self):
        said = report(Outcome("dead", ValueError("nul\0 and \ud800 half a pair"), "why"))
        assert said["error"] == "why: nul\\x00 and \\ud800 half a pair"
        OutboxDelivery.objects.create(
            delivery_id="5b0e1c6a-0b4e-4e0f-9b7e-0f6a1f6d7c11", created=datetime.now(UTC), payload="", **said
        )

    def test_of_an_error_without_a_text_say_the_reason(self):
        class Mute(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        said = report(Outcome("dead", Mute(), "why"))
        assert said["error"] == "why"
        assert said["error_type"].endswith("Mute")

    def test_without_an_error_say_the_reason(self):
        assert report(Outcome("discarded", None, "expired")) == {"error_type": "", "error": "expired", "traceback": ""}
