"""The system checks: ``manage.py check`` says what is wrong before a delivery is lost over it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from celery import Celery
from celery.app import app_or_default
from django.apps.registry import Apps
from django.contrib.auth.models import AbstractUser
from django.core import checks
from django.db import models
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save
from django.test.utils import isolate_apps

from deferred_signals import Signal, connect, registry
from deferred_signals.checks.connections import is_sensitive
from tests import receivers
from tests.receivers import Holder, first, second, wrapped
from tests.shop.models import AccessToken, Article, Customer, Order

knock = Signal()


def ids() -> list[str | None]:
    return [message.id for message in checks.run_checks(tags=["deferred_signals"])]


def test_a_project_without_mistakes_has_no_messages(link):
    for function in (first, wrapped, Holder.static, Holder.of_class):
        link(knock, function)
    assert ids() == []


@pytest.mark.parametrize("value", [{"BAKEND": "memory"}, {"MAX_SIZE": 0}, 7])
def test_a_mistake_in_the_settings_is_an_error_with_a_hint(value, settings):
    settings.DEFERRED_SIGNALS = value
    (message,) = checks.run_checks(tags=["deferred_signals"])
    assert (message.id, message.level) == ("deferred_signals.E001", checks.ERROR)
    assert message.hint


def test_a_backend_that_is_none_is_an_error(settings):
    settings.DEFERRED_SIGNALS = {"BACKEND": "nowhere.Backend"}
    assert ids() == ["deferred_signals.E002"]


def test_a_process_without_a_celery_app_is_a_warning(settings):
    settings.DEFERRED_SIGNALS = {}
    before = app_or_default()
    try:
        Celery("default", set_as_current=True)
        assert ids() == ["deferred_signals.W001"]
        Celery("default", broker="memory://", set_as_current=True)
        assert ids() == []
    finally:
        before.set_current()


def test_a_path_that_leads_to_something_else_is_an_error_unless_there_is_a_name(link, monkeypatch):
    link(knock, first)
    link(knock, Holder.of_class)

    def impostor(*args: Any, **kwargs: Any) -> None: ...

    monkeypatch.setattr(receivers, "first", impostor)
    monkeypatch.setattr(Holder, "of_class", classmethod(impostor))
    assert ids() == ["deferred_signals.E003", "deferred_signals.E003"]
    knock.disconnect(first)
    link(knock, first, name="tests.first")
    assert ids() == ["deferred_signals.E003"]


def test_a_database_that_does_not_exist_is_an_error(link):
    link(knock, first, using="nowhere")
    (message,) = checks.run_checks(tags=["deferred_signals"])
    assert message.id == "deferred_signals.E004"
    assert "'nowhere'" in message.msg
    assert message.hint == "using= must be one of 'default', 'other'."


def test_a_signal_without_a_name_is_an_error_for_a_receiver_of_several_signals(link):
    by_name = {"opened": Signal(), "closed": Signal(name="shop.closed")}  # as dj-stripe keeps its signals
    link(by_name["opened"], first)
    assert ids() == []
    link(by_name["closed"], first)
    (message,) = checks.run_checks(tags=["deferred_signals"])
    assert (message.id, message.level) == ("deferred_signals.E007", checks.ERROR)
    assert message.obj == "tests.receivers.first"
    by_name["opened"].disconnect(first)
    assert ids() == []


def test_a_field_that_the_sender_does_not_have_is_an_error(link):
    link(post_delete, first, Customer, fields=("name", "surname", "id"))
    link(post_delete, wrapped, "shop.Order", exclude=("customer_id", "customers", "buyers"))
    link(post_delete, Holder.static, exclude=("anything",))
    one, two = checks.run_checks(tags=["deferred_signals"])
    assert (one.id, two.id) == ("deferred_signals.E005", "deferred_signals.E005")
    assert one.msg == (
        "The deferred receiver 'tests.receivers.first' has fields= with 'surname', which no column of shop.Customer is "
        "called."
    )
    assert one.hint == "The fields are id, name, email."
    assert "'buyers', 'customers'" in two.msg


def unheard() -> list[tuple[str, str | None]]:
    messages = checks.run_checks(tags=["deferred_signals"])
    assert {message.id for message in messages} <= {"deferred_signals.W003"}
    return [(message.msg.rpartition("Django never sends: ")[2], message.hint) for message in messages]


class TestSendersOfWhichNobodyHears:
    def test_what_is_no_model(self, link):
        for sender in ([Customer, Order], Customer(pk=1)):
            link(post_save, first, sender)
        one, two = unheard()
        assert one == ("its sender is no model but a list.", "sender= is one model; connect once for each.")
        assert two[0] == "its sender is no model but a Customer."

    def test_an_abstract_model(self, link):
        link(post_save, first, AbstractUser)
        ((why, hint),) = unheard()
        assert why == "auth.AbstractUser is abstract."
        assert hint == "Connect once for each model, or without a sender, and when= says which."

    @isolate_apps("tests.shop")
    def test_a_model_that_is_swapped(self, link, settings):
        class Account(models.Model):
            class Meta:
                app_label = "shop"
                swappable = "SHOP_ACCOUNT"

        settings.SHOP_ACCOUNT = "shop.Customer"
        link(post_save, first, Account)
        assert unheard() == [
            ("shop.Account is swapped for shop.Customer.", "sender='shop.Customer', or get_user_model()")
        ]

    def test_rows_that_only_a_many_to_many_field_writes(self, link):
        link(post_save, first, Article.buyers.through)
        assert unheard() == [("shop.Article_buyers is made and written by a many-to-many field.", "m2m_changed")]

    def test_models_that_are_no_through_models(self, link):
        link(m2m_changed, first, Article)
        link(m2m_changed, first, Customer)
        link(m2m_changed, second, Article)
        link(m2m_changed, second, Article.buyers.through)
        one, two, three = unheard()
        assert one == ("shop.Article is the through model of no many-to-many field.", "sender=Article.buyers.through")
        assert two == ("shop.Customer is the through model of no many-to-many field.", "sender=Model.field.through")
        assert three == one

    def test_all_others_may_be_heard_of(self, link):
        for number, sender in enumerate((None, Customer, "shop.Order", Article)):
            link(post_save, first, sender, dispatch_uid=str(number))
        link(knock, first, [1])
        connect(post_save, wrapped, "shop.Unborn", deferred=True, apps=Apps())
        assert unheard() == []

    def test_a_model_that_came_after_its_receiver(self, link):
        link(m2m_changed, first, Article.buyers.through)
        (stand_in,) = registry.get("tests.receivers.first").connections()
        stand_in.sender = "shop.Article"  # as it is where the models were loaded later
        assert unheard() == [
            ("shop.Article is the through model of no many-to-many field.", "sender=Article.buyers.through")
        ]


@pytest.mark.parametrize(
    ("signal", "options"),
    [
        (pre_save, {}),
        (pre_delete, {}),
        (post_delete, {"exclude": {"has_password"}}),
        (post_save, {"instance": "snapshot"}),
        (knock, {"instance": "snapshot"}),
    ],
)
def test_a_snapshot_with_sensitive_fields_is_a_warning(link, signal, options):
    link(signal, first, AccessToken, **options)
    (message,) = checks.run_checks(tags=["deferred_signals"])
    assert (message.id, message.level) == ("deferred_signals.W002", checks.WARNING)
    assert message.msg == (
        "The deferred receiver 'tests.receivers.first' gets snapshots of shop.AccessToken, which carry 'api_key', "
        "'refreshToken' to the broker, where they can be read."
    )
    named = "'api_key', 'has_password', 'refreshToken'" if "exclude" in options else "'api_key', 'refreshToken'"
    assert message.hint == (
        f"Leave them out with exclude=({named},), name what the receiver needs with fields=(...), or let them "
        "travel with encrypt=True."
    )


@pytest.mark.parametrize(
    ("signal", "sender", "options"),
    [
        (post_save, AccessToken, {}),
        (post_delete, AccessToken, {"instance": "reference"}),
        (post_delete, AccessToken, {"exclude": ("api_key", "refreshToken")}),
        (post_delete, AccessToken, {"fields": ("api_key",)}),
        (post_delete, Customer, {}),
        (post_delete, None, {}),
        (knock, "text", {"instance": "snapshot"}),
    ],
)
def test_where_no_sensitive_field_travels_unasked_there_is_no_warning(link, signal, sender, options):
    link(signal, first, sender, **options)
    assert ids() == []


@pytest.mark.parametrize(
    "name",
    ["password", "passwords", "password_hash", "user_password", "userPassword", "client_secret", "secret_answer",
     "token", "authtoken", "access_tokens", "accessToken", "token_hash", "api_key", "apikey", "API_KEY", "stripe_api",
     "key", "private_key", "signing_key_encrypted", "signature"],
)  # fmt: skip
def test_a_name_that_says_it_holds_a_secret_is_sensitive(name):
    assert is_sensitive(name)


@pytest.mark.parametrize(
    "name",
    ["primary_key", "foreign_key", "public_key", "sort_key", "cache_key_hash", "key_points", "keyboard", "monkey",
     "keynote", "token_count", "token_type", "api_version", "apiary", "signature_version", "secretary", "name",
     "hash", "value", "nokey", "_", "42"],
)  # fmt: skip
def test_a_name_that_only_looks_like_it_is_not_sensitive(name):
    assert not is_sensitive(name)


def test_manage_py_check_runs_them():
    code = (
        "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'tests.settings'\n"
        "from tests import settings; settings.DEFERRED_SIGNALS = {'NONSENSE': 1}\n"
        "from django.core.management import execute_from_command_line\n"
        "execute_from_command_line(['manage.py', 'check'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "(deferred_signals.E001) DEFERRED_SIGNALS has no key 'NONSENSE'." in done.stderr
