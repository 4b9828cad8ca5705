"""``encrypt=True``: who reads the broker reads no argument, and what was encrypted never travels in clear again."""

from __future__ import annotations

import json
import logging
import sys
import time
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core import checks
from django.core.signing import Signer
from django.db import transaction
from django.db.models.signals import post_save, pre_delete
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from deferred_signals import Signal, conf, context, register_carrier
from deferred_signals.attempt import run
from deferred_signals.backends.memory import MemoryBackend
from deferred_signals.encryption import encrypted, opened
from deferred_signals.envelope import Envelope, seal, unseal
from deferred_signals.exceptions import (
    ConfigurationError,
    ConnectError,
    DecodeError,
    OpenError,
    TooLarge,
    UnknownKey,
    UnknownReceiver,
)
from deferred_signals.signals import delivery_finished, delivery_unpublished
from tests import receivers
from tests.receivers import first, on_changes, on_instance, second, troubled, wants_later
from tests.shop.models import AccessToken, Customer

from .test_envelope import JSON, OBJECTS
from .travel import envelope

whispered: Any = Signal()
OLD, NEW, STRANGE = (Fernet.generate_key().decode() for _ in range(3))
CANARY = "canary-4711"


def ours(*keys: Any, **more: Any) -> dict[str, Any]:
    return {"BACKEND": "memory", "ENCRYPTION_KEYS": list(keys), **more}


@pytest.fixture(autouse=True)
def _keys(settings):
    settings.DEFERRED_SIGNALS = ours(OLD)


def head(payload: str) -> dict[str, Any]:
    """What of a payload everybody can read."""
    found: dict[str, Any] = json.loads(Signer(salt="deferred_signals.delivery").unsign(payload))
    return found


def waiting(memory: MemoryBackend) -> str:
    ((_, payload),) = memory.payloads
    return payload


class TestWhatCanBeRead:
    def test_only_what_the_worker_goes_by_is_readable(self, link, memory):
        link(whispered, first, encrypt=True)
        [(_, delivery)] = whispered.send(sender=Customer, word=CANARY)
        found = head(waiting(memory))
        assert list(found) == ["v", "to", "signal", "id", "at", "encrypted"]
        assert (found["v"], found["id"], found["to"]) == (1, delivery.id, "tests.receivers.first")
        assert found["signal"] == "tests.test_encryption.whispered"
        for secret in (CANARY, "word", "customer", "language"):
            assert secret not in waiting(memory)

    def test_it_arrives_as_it_was_sent(self, link, memory, calls):
        link(whispered, first, encrypt=True)
        whispered.send(sender=Customer, word=CANARY, items=[1, {"a": (2, None)}])
        ((_, outcome),) = memory.deliver()
        assert outcome.state == "succeeded"
        assert calls == [
            ("first", Customer, {"signal": whispered, "word": CANARY, "items": [1, {"a": (2, None)}]}),
        ]

    def test_without_the_option_nothing_is_encrypted(self, link, memory):
        link(whispered, first)
        whispered.send(sender=None, word=CANARY)
        assert "encrypted" not in head(waiting(memory))
        assert CANARY in waiting(memory)

    @pytest.mark.parametrize(
        ("option", "setting", "wanted"),
        [(None, False, False), (None, True, True), (False, True, False), (True, False, True), (True, True, True)],
    )
    def test_the_option_decides_and_where_it_is_none_the_setting(self, link, memory, settings, option, setting, wanted):
        settings.DEFERRED_SIGNALS = ours(OLD, ENCRYPT=setting)
        link(whispered, first, encrypt=option)
        whispered.send(sender=None, word=CANARY)
        assert (CANARY not in waiting(memory)) is wanted
        assert ("encrypted" in head(waiting(memory))) is wanted

    @pytest.mark.parametrize("value", ["yes", 1, 0, "", []])
    def test_the_option_is_true_false_or_none(self, link, value):
        with pytest.raises(ConnectError, match="'encrypt' must be True or False"):
            link(whispered, first, encrypt=value)

    def test_what_carriers_captured_is_encrypted_too(self, link, memory, calls):
        restored = []

        def restore(value: Any) -> Any:
            restored.append(value)
            return nullcontext()

        register_carrier("tenant", capture=lambda: CANARY, restore=restore)
        try:
            link(whispered, first, encrypt=True)
            whispered.send(sender=None)
            assert CANARY not in waiting(memory)
            memory.deliver()
        finally:
            context.unregister_carrier("tenant")
        assert restored == [CANARY]

    def test_two_deliveries_of_the_same_do_not_look_alike(self, link, memory):
        link(whispered, first, encrypt=True)
        for _ in range(2):
            whispered.send(sender=None, word=CANARY)
        one, other = (head(payload)["encrypted"] for _, payload in memory.payloads)
        assert one[20:] != other[20:]


class TestRetries:
    def test_a_retry_is_encrypted_as_the_first_run_was(self, link, memory, calls):
        link(whispered, troubled, encrypt=True, max_retries=3)
        receivers.troubles += [ValueError("no"), ValueError("no")]
        whispered.send(sender=None, word=CANARY)
        attempts = []
        while memory.payloads:
            found = head(waiting(memory))
            attempts.append(found.get("attempt", 1))
            assert "encrypted" in found
            assert "kwargs" not in found
            assert CANARY not in waiting(memory)
            memory.deliver()
        assert attempts == [1, 2, 3]
        assert len(calls) == 3

    def test_so_is_a_retry_of_a_receiver_that_does_not_want_it_any_more(self, link, memory):
        link(whispered, wants_later, encrypt=True)
        whispered.send(sender=None, word=CANARY)
        whispered.disconnect(wants_later)
        link(whispered, wants_later, encrypt=False)
        memory.deliver()
        assert CANARY not in waiting(memory)
        assert head(waiting(memory))["attempt"] == 2

    def test_what_is_held_up_stays_encrypted(self, link, memory):
        link(whispered, first, encrypt=True)
        [(_, delivery)] = whispered.send(sender=None, word=CANARY)
        payload = delivery.payload
        data = head(payload)
        _, outcome = run(seal(json.dumps({**data, "to": "a.receiver.of.tomorrow"})))
        assert isinstance(outcome.error, UnknownReceiver)
        assert json.loads(outcome.text)["encrypted"] == data["encrypted"]
        _, outcome = run(seal(json.dumps({**data, "v": 2})))
        assert json.loads(outcome.text)["encrypted"] == data["encrypted"]

    def test_the_copy_after_a_crash_is_encrypted(self, link, memory, calls):
        link(whispered, first, encrypt=True)
        whispered.send(sender=None, word=CANARY)
        _, outcome = run(waiting(memory), redelivered=True)
        assert CANARY not in outcome.text
        assert json.loads(outcome.text)["crashes"] == 1
        assert run(seal(outcome.text))[1].state == "succeeded"
        assert calls[0][2]["word"] == CANARY

    def test_no_copy_of_an_encrypted_envelope_is_in_clear(self):
        sealed = unseal(seal(encrypted(envelope(kwargs={"word": CANARY}).to_text())))
        for copy in (sealed, sealed.next_attempt(), sealed.after_crash(), sealed.waiting(5.0)):
            assert CANARY not in copy.to_text()
            assert opened(copy) == (None, {"word": CANARY}, {})


class TestWithOtherOptions:
    @pytest.mark.django_db(transaction=True)
    def test_what_is_coalesced_is_merged_first_and_encrypted_then(self, link, memory, calls):
        link(post_save, on_instance, Customer, coalesce=True, encrypt=True)
        with transaction.atomic():
            ada = Customer.objects.create(name="Ada")
            ada.save(update_fields=["email"])
            with transaction.atomic():
                ada.save(update_fields=["name"])
        assert "encrypted" in head(waiting(memory))
        memory.deliver()
        [(_, _, kwargs)] = calls
        assert (kwargs["instance"], kwargs["created"]) == (ada, True)

    @pytest.mark.django_db
    def test_snapshots_and_changes_are_encrypted(self, link, memory, calls):
        ada = Customer.objects.create(name=CANARY)
        link(pre_delete, on_instance, Customer, encrypt=True)
        link(post_save, on_changes, Customer, changes=True, encrypt=True, on_commit=False)
        ada.name = f"{CANARY}2"
        ada.save()
        assert CANARY not in waiting(memory)
        memory.deliver()
        assert calls.pop()[2]["changes"] == {"name": (CANARY, f"{CANARY}2")}
        with override_settings(DEFERRED_SIGNALS=ours(OLD)):
            pre_delete.send(Customer, instance=ada, using="default", origin=ada)
        assert all(CANARY not in payload for _, payload in memory.payloads)

    @pytest.mark.django_db
    def test_fixtures_are_encrypted(self, link, memory):
        link(post_save, on_instance, Customer, deliver_raw=True, encrypt=True, instance="snapshot", on_commit=False)
        Customer(pk=5, name=CANARY).save_base(raw=True)
        assert CANARY not in waiting(memory)

    def test_the_size_is_judged_before_it_is_encrypted(self, link, memory, settings):
        link(whispered, first, encrypt=True)
        whispered.send(sender=None, word="x" * 1000)
        (delivery, payload) = memory.payloads.pop()
        limit = len(delivery.text) + 10  # the time of the send has more digits or fewer
        assert len(payload) > limit
        settings.DEFERRED_SIGNALS = ours(OLD, MAX_SIZE=limit)
        whispered.send(sender=None, word="x" * 1000)
        with pytest.raises(TooLarge):
            whispered.send(sender=None, word="x" * 1020)

    def test_the_immediate_backend_decrypts_what_it_encrypted(self, link, settings, calls):
        settings.DEFERRED_SIGNALS = ours(OLD, BACKEND="immediate")
        link(whispered, troubled, encrypt=True)
        receivers.troubles.append(ValueError("no"))
        whispered.send(sender=None, word=CANARY)
        assert [call[2]["attempt"] for call in calls] == [1, 2]


class TestOldAndNew:
    """A release that switches the option meets messages from before it, and the other way round."""

    def test_what_was_sent_in_clear_is_run_by_a_receiver_that_says_encrypt(self, link, memory, calls):
        link(whispered, first)
        whispered.send(sender=None, word=CANARY)
        whispered.disconnect(first)
        link(whispered, first, encrypt=True)
        assert memory.deliver()[0][1].state == "succeeded"

    def test_what_was_encrypted_is_run_by_a_receiver_that_does_not(self, link, memory, calls):
        link(whispered, first, encrypt=True)
        whispered.send(sender=None, word=CANARY)
        whispered.disconnect(first)
        link(whispered, first)
        assert memory.deliver()[0][1].state == "succeeded"
        assert calls[0][2]["word"] == CANARY

    def test_one_name_may_be_encrypted_for_one_signal_and_not_for_another(self, link, memory):
        link(whispered, first, encrypt=True)
        link(post_save, first, Customer)
        whispered.send(sender=None, word=CANARY)
        assert CANARY not in waiting(memory)

    def test_keys_rotate_decrypt_first_encrypt_later(self):
        text = envelope(kwargs={"word": CANARY}).to_text()
        steps = [(OLD,), (OLD, NEW), (NEW, OLD)]
        for before, after in pairwise(steps):
            for sender, worker in ((before, after), (after, before)):
                with override_settings(DEFERRED_SIGNALS=ours(*sender)):
                    payload = seal(encrypted(text))
                with override_settings(DEFERRED_SIGNALS=ours(*worker)):
                    assert opened(unseal(payload))[1] == {"word": CANARY}

    def test_the_first_key_encrypts(self):
        with override_settings(DEFERRED_SIGNALS=ours(NEW, OLD)):
            payload = seal(encrypted(envelope().to_text()))
        with override_settings(DEFERRED_SIGNALS=ours(OLD)), pytest.raises(UnknownKey):
            opened(unseal(payload))

    def test_a_key_may_be_bytes(self):
        with override_settings(DEFERRED_SIGNALS=ours(OLD.encode())):
            assert opened(unseal(seal(encrypted(envelope().to_text())))) == (None, {}, {})


def lacks_the_key(monkeypatch, settings) -> str:
    settings.DEFERRED_SIGNALS = ours(STRANGE, RELEASE_WINDOW=60)
    return "ENCRYPTION_KEYS lack"


def has_no_keys(monkeypatch, settings) -> str:
    settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "RELEASE_WINDOW": 60}
    return "ENCRYPTION_KEYS'] has none"


def has_no_cryptography(monkeypatch, settings) -> str:
    # None in sys.modules is how Python itself says that a module cannot be imported. Other keys: a keyring is kept.
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)
    settings.DEFERRED_SIGNALS = ours(OLD, STRANGE, RELEASE_WINDOW=60)
    return "pip install deferred-signals[encrypt]"


class TestWithoutTheKey:
    @pytest.mark.parametrize("worker", [lacks_the_key, has_no_keys, has_no_cryptography])
    def test_a_worker_that_cannot_decrypt_waits_for_one_that_can(
        self, link, memory, calls, settings, monkeypatch, caplog, worker
    ):
        link(whispered, first, encrypt=True)
        [(_, delivery)] = whispered.send(sender=None, word=CANARY)
        with monkeypatch.context() as patch:
            reason = worker(patch, settings)
            ((made, outcome),) = memory.deliver()
        assert made.id == delivery.id
        assert outcome.state == "retry"
        assert isinstance(outcome.error, UnknownKey)
        assert reason in outcome.reason
        assert not calls
        assert CANARY not in caplog.text
        found = head(waiting(memory))
        assert found["waiting"] > 0
        assert "attempt" not in found
        settings.DEFERRED_SIGNALS = ours(NEW, OLD)
        assert memory.deliver()[0][1].state == "succeeded"
        assert calls[0][2]["word"] == CANARY

    @pytest.mark.parametrize("worker", [lacks_the_key, has_no_keys, has_no_cryptography])
    def test_after_the_release_window_it_is_dead(self, link, memory, calls, settings, monkeypatch, caplog, worker):
        link(whispered, first, encrypt=True)
        whispered.send(sender=None, word=CANARY)
        with monkeypatch.context() as patch:
            worker(patch, settings)
            memory.deliver()
            then = time.time()
            patch.setattr("time.time", lambda: then + 61)
            ((_, outcome),) = memory.deliver()
        assert outcome.state == "dead"
        assert isinstance(outcome.error, UnknownKey)
        assert not calls
        assert not memory.payloads
        [line] = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert "is dead: The delivery is encrypted" in line.getMessage()

    @pytest.mark.parametrize("sender", [has_no_keys, has_no_cryptography])
    def test_a_send_that_cannot_be_encrypted_is_refused(self, link, memory, settings, monkeypatch, sender):
        link(whispered, first, encrypt=True)
        with monkeypatch.context() as patch:
            reason = sender(patch, settings)
            with pytest.raises(ConfigurationError) as caught:
                whispered.send(sender=None, word=CANARY)
        assert reason in str(caught.value)
        assert not memory.payloads
        assert CANARY not in str(caught.value)

    def test_other_receivers_need_no_key(self, link, memory, settings, calls):
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory"}
        link(whispered, first, encrypt=True)
        link(whispered, second)
        (_, refused), (_, delivery) = whispered.send_robust(sender=None)
        assert isinstance(refused, ConfigurationError)
        assert [made.id for made, _ in memory.deliver()] == [delivery.id]

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("meanwhile", [has_no_keys, has_no_cryptography])
    def test_what_loses_its_key_before_the_commit_is_unpublished_and_never_in_clear(
        self, link, memory, settings, monkeypatch, caplog, meanwhile
    ):
        lost: list[Any] = []

        def keep(delivery: Any, error: Exception, **kwargs: Any) -> None:
            lost.append((delivery.id, type(error)))

        link(whispered, first, encrypt=True)
        delivery_unpublished.connect(keep)
        try:
            with monkeypatch.context() as patch, transaction.atomic():
                [(_, delivery)] = whispered.send(sender=None, word=CANARY)
                meanwhile(patch, settings)
        finally:
            delivery_unpublished.disconnect(keep)
        assert lost == [(delivery.id, ConfigurationError)]
        assert not memory.payloads
        assert "tests.receivers.first (1)" in caplog.text
        assert CANARY not in caplog.text


class TestHostile:
    """Who signs with our key and sends nonsense: an old bug, a key of another environment."""

    def token(self, text: str) -> str:
        return Fernet(OLD).encrypt(text.encode()).decode()

    def sent(self, **changes: Any) -> str:
        data = {"v": 1, "id": "1", "at": time.time(), "to": "tests.receivers.first", "signal": None}
        return seal(json.dumps({**data, **changes}))

    @pytest.mark.parametrize(
        "text",
        ["", "null", "[]", "5", "{", "\ufeff{}", '{"kwargs":{},"kwargs":{}}', '{"kwargs":NaN}', "[" * 100_000],
        ids=repr,
    )
    def test_a_token_of_garbage_is_dead(self, link, calls, text):
        link(whispered, first, encrypt=True)
        _, outcome = run(self.sent(encrypted=self.token(text)))
        assert outcome.state == "dead"
        assert isinstance(outcome.error, OpenError)
        assert not calls

    @pytest.mark.parametrize("key", ["sender", "kwargs", "context"])
    def test_a_token_must_hold_all_three(self, link, calls, key):
        link(whispered, first, encrypt=True)
        contents: dict[str, Any] = {"sender": None, "kwargs": {}, "context": {}}
        del contents[key]
        _, outcome = run(self.sent(encrypted=self.token(json.dumps(contents))))
        assert (outcome.state, type(outcome.error)) == ("dead", OpenError)
        assert repr(key) in outcome.reason
        assert not calls

    @pytest.mark.parametrize(("key", "value"), [("kwargs", []), ("kwargs", None), ("context", "x")])
    def test_a_token_must_hold_what_an_envelope_holds(self, link, calls, key, value):
        link(whispered, first, encrypt=True)
        contents = {"sender": None, "kwargs": {}, "context": {}, key: value}
        _, outcome = run(self.sent(encrypted=self.token(json.dumps(contents))))
        assert (outcome.state, type(outcome.error)) == ("dead", OpenError)
        assert not calls

    def test_what_else_a_token_says_changes_nothing(self, link, calls):
        link(whispered, first, encrypt=True)
        contents = {"sender": None, "kwargs": {"a": 1}, "context": {}, "to": "os.system", "id": "2", "attempt": 9}
        made, outcome = run(self.sent(encrypted=self.token(json.dumps(contents))))
        assert outcome.state == "succeeded"
        assert made is not None
        assert (made.id, made.attempt, made.receiver) == ("1", 1, "tests.receivers.first")

    @pytest.mark.parametrize("value", [None, 5, True, [], {}, ["a"]])
    def test_the_token_is_a_string(self, value):
        with pytest.raises(OpenError, match="its 'encrypted' is not"):
            unseal(self.sent(encrypted=value))

    @pytest.mark.parametrize("key", ["sender", "kwargs", "context"])
    def test_nothing_stands_in_clear_beside_a_token(self, key):
        with pytest.raises(OpenError, match=f"has '{key}' beside 'encrypted'"):
            unseal(self.sent(encrypted=self.token("{}"), **{key: {}}))

    @pytest.mark.parametrize("value", ["", "x", "ü" * 200, "gAAAAA==", "A" * 100, "=" * 99, "\x00"])
    def test_what_is_no_token_is_never_run(self, link, calls, value):
        link(whispered, first, encrypt=True)
        _, outcome = run(self.sent(encrypted=value))
        assert (outcome.state, type(outcome.error)) == ("retry", UnknownKey)
        assert not calls

    @given(st.data())
    def test_no_changed_byte_of_a_token_is_run(self, data):
        with override_settings(DEFERRED_SIGNALS=ours(OLD)):
            token = bytearray(self.token('{"sender":null,"kwargs":{},"context":{}}').rstrip("=").encode())
            # Of the last character before the padding some bits mean nothing.
            place = data.draw(st.integers(0, len(token) - 2))
            other = data.draw(st.sampled_from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"))
            changed = bytes([*token[:place], other, *token[place + 1 :]])
            padding = "=" * (-len(token) % 4)
            if bytes(token) != changed:
                with pytest.raises(UnknownKey):
                    opened(unseal(self.sent(encrypted=changed.decode() + padding)))

    def test_a_forged_one_is_dead_at_once(self, link, memory, calls):
        link(whispered, first, encrypt=True)
        whispered.send(sender=None, word=CANARY)
        _, outcome = run(waiting(memory)[:-1])
        assert (outcome.state, type(outcome.error)) == ("dead", OpenError)
        assert not calls


@given(
    st.builds(
        Envelope,
        id=st.text().filter(str.isprintable),
        created=st.integers(0, 253402300799),
        receiver=st.text().filter(str.isprintable),
        signal=st.none() | st.text(),
        sender=JSON,
        kwargs=OBJECTS,
        context=OBJECTS,
        attempt=st.integers(1, 2**31 - 1),
        crashes=st.integers(0, 2**31 - 1),
        depth=st.integers(0, 2**31 - 1),
        repeats=st.integers(0, 2**31 - 1),
        waiting_since=st.none() | st.integers(0, 253402300799),
    )
)
def test_every_envelope_arrives_as_it_was(sent: Envelope) -> None:
    with override_settings(DEFERRED_SIGNALS=ours(OLD)):
        arrived = unseal(seal(encrypted(sent.to_text())))
        assert opened(arrived) == (sent.sender, sent.kwargs, sent.context)
        for field in ("id", "created", "receiver", "signal", "attempt", "crashes", "depth", "repeats", "waiting_since"):
            assert getattr(arrived, field) == getattr(sent, field)
        assert (arrived.sender, arrived.kwargs, arrived.context) == (None, {}, {})
        assert unseal(seal(arrived.to_text())) == arrived


class TestSettings:
    @pytest.mark.parametrize(
        "value",
        [
            [],
            "",
            OLD,
            [""],
            [5],
            ["hunter2"],
            [OLD, "hunter2"],
            [OLD[:-4]],
            ["ü" * 44],
            [b"\xff" * 44],
            [OLD[:-1]],
            {OLD},
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_what_is_no_list_of_keys_is_a_mistake_that_shows_no_key(self, value):
        values, ((key, message, hint),) = conf.read({"ENCRYPTION_KEYS": value})
        assert values == {}
        assert key == "ENCRYPTION_KEYS"
        assert message.startswith("DEFERRED_SIGNALS['ENCRYPTION_KEYS'] must be a non-empty list of")
        for secret in ("hunter2", OLD):
            assert secret not in message + hint

    @pytest.mark.parametrize("value", [None, "yes", 1, 0])
    def test_encrypt_is_true_or_false(self, value):
        assert conf.read({"ENCRYPT": value})[1][0].message == "DEFERRED_SIGNALS['ENCRYPT'] must be True or False."

    def test_the_settings_do_not_show_their_keys(self, settings):
        settings.DEFERRED_SIGNALS = ours(OLD, SIGNING_KEYS=["hunter2"])
        assert OLD not in repr(conf.current())
        assert "hunter2" not in repr(conf.current())

    def test_a_wrong_key_is_said_by_the_check_and_by_the_send(self, link, settings):
        link(whispered, first, encrypt=True)
        settings.DEFERRED_SIGNALS = ours("hunter2")
        assert [found.id for found in checks.run_checks(tags=["deferred_signals"])] == ["deferred_signals.E001"]
        with pytest.raises(ConfigurationError, match="ENCRYPTION_KEYS") as caught:
            whispered.send(sender=None)
        assert "hunter2" not in str(caught.value)


class TestChecks:
    def found(self) -> list[Any]:
        return [found for found in checks.run_checks(tags=["deferred_signals"]) if found.id == "deferred_signals.E006"]

    def test_an_option_without_keys_is_an_error_that_names_the_receiver(self, link, settings):
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory"}
        link(whispered, first, encrypt=True)
        (message,) = self.found()
        assert message.level == checks.ERROR
        assert "encrypt=True of tests.receivers.first" in message.msg
        assert "ENCRYPTION_KEYS" in message.msg
        assert "generate_key" in message.hint

    def test_the_setting_without_keys_is_an_error(self, settings):
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory", "ENCRYPT": True}
        (message,) = self.found()
        assert message.msg.startswith("DEFERRED_SIGNALS asks for encryption")

    def test_keys_without_cryptography_are_an_error_for_a_worker_could_not_decrypt(self, settings, monkeypatch):
        monkeypatch.setitem(sys.modules, "cryptography.fernet", None)
        settings.DEFERRED_SIGNALS = ours(OLD, STRANGE)
        (message,) = self.found()
        assert "pip install deferred-signals[encrypt]" in message.msg

    def test_with_both_or_with_neither_there_is_none(self, link, settings):
        link(whispered, first, encrypt=True)
        assert self.found() == []
        whispered.disconnect(first)
        settings.DEFERRED_SIGNALS = {"BACKEND": "memory"}
        link(whispered, first, encrypt=False)
        assert self.found() == []

    @pytest.mark.parametrize(("option", "setting"), [(True, False), (None, True)])
    def test_a_snapshot_with_a_password_is_no_warning_where_it_is_encrypted(self, link, settings, option, setting):
        link(pre_delete, first, AccessToken, encrypt=option)
        settings.DEFERRED_SIGNALS = ours(OLD, ENCRYPT=setting)
        assert checks.run_checks(tags=["deferred_signals"]) == []
        pre_delete.disconnect(first, sender=AccessToken)
        link(pre_delete, first, AccessToken, encrypt=False)
        assert [found.id for found in checks.run_checks(tags=["deferred_signals"])] == ["deferred_signals.W002"]


def test_observers_are_told_of_encrypted_deliveries_as_of_others(link, memory):
    told: list[Any] = []

    def observer(delivery: Any, outcome: Any, **kwargs: Any) -> None:
        told.append((delivery.receiver, outcome.state))

    link(whispered, first, encrypt=True)
    whispered.send(sender=None, word=CANARY)
    delivery_finished.connect(observer)
    try:
        memory.deliver()
    finally:
        delivery_finished.disconnect(observer)
    assert told == [("tests.receivers.first", "succeeded")]


def test_what_cannot_be_decoded_is_dead_as_in_clear(link):
    link(whispered, first, encrypt=True)
    nonsense = envelope(receiver="tests.receivers.first", kwargs={"a": {"$uuid": "x"}})
    _, outcome = run(seal(encrypted(nonsense.to_text())))
    assert (outcome.state, type(outcome.error)) == ("dead", DecodeError)
