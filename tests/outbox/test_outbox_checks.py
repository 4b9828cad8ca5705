"""The system checks of the outbox, and the one of the core that asks for it."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.core import checks
from django.db import connections
from django.db.models.signals import post_save

from deferred_signals import Signal, keeping
from deferred_signals.outbox.models import Attempt, OutboxDelivery
from tests import receivers
from tests.shop.models import Customer

knock = Signal()


def found(*databases: str, deploy: bool = False) -> list[checks.CheckMessage]:
    asked = checks.run_checks(
        tags=["deferred_signals", *(["database"] if databases else [])],
        include_deployment_checks=deploy,
        databases=list(databases) or None,
    )
    return [
        message
        for message in asked
        if str(message.id).startswith(("deferred_signals.E3", "deferred_signals.W3", "deferred_signals.I3"))
    ]


def ids(*databases: str, deploy: bool = False) -> list[str | None]:
    return [message.id for message in found(*databases, deploy=deploy)]


class Router:
    """The outbox is not allowed on ``default``; customers are written to ``other``."""

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return False if app_label == "deferred_signals_outbox" and db == "default" else None

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "other" if model is Customer else None


@pytest.fixture
def routed(settings: Any) -> None:
    settings.DATABASE_ROUTERS = ["tests.outbox.test_outbox_checks.Router"]


def lead_to(monkeypatch: Any, change: dict[str, Any], **here: Any) -> None:
    """Have both aliases lead to one place, but for what is changed about the second one."""
    place = {"NAME": "shop", "HOST": "db", "PORT": "5432", **here}
    for alias, where in {"default": place, "other": {**place, **change}}.items():
        for name, value in where.items():
            monkeypatch.setitem(connections[alias].settings_dict, name, value)


@pytest.fixture
def configure(settings: Any) -> Any:
    def change(**given: Any) -> None:
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, **given}

    return change


@pytest.mark.django_db(databases=["default", "other"])
def test_a_project_with_the_outbox_and_its_tables_has_no_messages(link):
    link(knock, receivers.first, durable=True)
    link(post_save, receivers.second, Customer, atomic=True, time_limit=20)
    assert ids("default", "other", deploy=True) == []


class TestWithoutTheApp:
    def test_a_durable_receiver_is_an_error_that_names_it(self, link, monkeypatch):
        monkeypatch.setattr(keeping, "_outbox", None)
        link(knock, receivers.first, durable=True)
        link(knock, receivers.second, order_by="number")
        (message,) = found()
        assert (message.id, message.level) == ("deferred_signals.E301", checks.ERROR)
        assert "tests.receivers.first, tests.receivers.second" in message.msg
        assert "'deferred_signals.outbox'" in str(message.hint)

    def test_the_setting_is_an_error(self, monkeypatch, configure):
        monkeypatch.setattr(keeping, "_outbox", None)
        configure(DURABLE=True)
        (message,) = found()
        assert message.id == "deferred_signals.E301"
        assert "DEFERRED_SIGNALS['DURABLE']" in message.msg

    def test_nothing_durable_is_no_error(self, link, monkeypatch):
        monkeypatch.setattr(keeping, "_outbox", None)
        link(knock, receivers.first)
        assert ids() == []


def test_the_app_without_that_of_the_core_is_an_error(monkeypatch):
    installed = apps.is_installed
    monkeypatch.setattr(apps, "is_installed", lambda name: name != "deferred_signals" and installed(name))
    assert ids() == ["deferred_signals.E302"]


def test_nothing_is_said_of_wrong_settings_that_have_their_own_error(configure):
    configure(LEASE=-1)
    assert ids("default", deploy=True) == []


class TestRouters:
    def test_that_forbid_the_table_where_deliveries_are_sent_are_an_error(self, link, routed):
        link(knock, receivers.first, durable=True)
        (message,) = found()
        assert message.id == "deferred_signals.E303"
        assert "tests.receivers.first are sent on 'default'" in message.msg

    def test_are_asked_where_the_sender_is_written(self, link, routed):
        link(post_save, receivers.first, Customer, durable=True)
        link(post_save, receivers.second, "shop.Customer", durable=True)
        link(knock, receivers.asynchronous, durable=True, using="other")
        assert ids() == []

    def test_are_not_asked_where_nothing_durable_is_sent(self, link, routed):
        link(knock, receivers.first)
        assert ids() == []


def test_a_database_without_a_clock_that_we_know_is_an_error(link, monkeypatch):
    link(knock, receivers.first, durable=True)
    monkeypatch.setattr(connections["default"], "vendor", "oracle")
    (message,) = found()
    assert message.id == "deferred_signals.E304"
    assert "'oracle'" in message.msg


class TestTables:
    @pytest.fixture(autouse=True)
    def _missing(self, db, monkeypatch):
        monkeypatch.setattr(OutboxDelivery._meta, "db_table", "nowhere")

    @pytest.mark.django_db(databases=["default", "other"])
    def test_one_that_is_missing_where_deliveries_are_sent_is_a_warning_that_names_them(self, link):
        link(knock, receivers.first, durable=True, using="other")
        (message,) = found("other")
        # An error would keep migrate, which asks this first, from making the table.
        assert (message.id, message.level) == ("deferred_signals.W301", checks.WARNING)
        assert "to tests.receivers.first cannot be sent" in message.msg
        assert "migrate --database other deferred_signals_outbox" in str(message.hint)

    @pytest.mark.django_db(databases=["default", "other"])
    def test_one_that_is_missing_where_the_dead_are_kept_is_a_warning(self):
        (message,) = found("default", "other")
        assert "'default' has no table of the outbox yet: nothing can be kept." in message.msg

    def test_of_a_database_that_was_not_named_nothing_is_said(self, link):
        link(knock, receivers.first, durable=True)
        assert ids() == []

    def test_of_one_where_the_routers_forbid_it_nothing_is_said_twice(self, link, routed):
        link(knock, receivers.first, durable=True)
        assert ids("default") == ["deferred_signals.E303"]


@pytest.mark.django_db
def test_a_table_of_a_newer_release_that_is_missing_is_a_warning(monkeypatch):
    monkeypatch.setattr(Attempt._meta, "db_table", "nowhere")
    (message,) = found("default")
    assert message.id == "deferred_signals.W301"
    assert "attempts that fail are not noted down" in message.msg


class TestSettings:
    def test_notify_without_postgresql_is_a_warning(self, configure, monkeypatch):
        configure(NOTIFY=True)
        for alias in connections:
            monkeypatch.setattr(connections[alias], "vendor", "sqlite")
        assert ids() == ["deferred_signals.W302"]
        monkeypatch.setattr(connections["other"], "vendor", "postgresql")
        assert ids() == []

    def test_a_short_lease_is_a_warning(self, configure):
        configure(LEASE=2)
        assert ids() == ["deferred_signals.W303"]
        configure(LEASE=3)
        assert ids() == []

    def test_a_lease_that_cannot_be_renewed_and_is_shorter_than_its_receiver_may_run_is_a_warning(
        self, link, monkeypatch
    ):
        monkeypatch.setattr(connections["default"], "vendor", "sqlite")
        link(post_save, receivers.first, Customer, atomic=True)
        link(knock, receivers.first, atomic=True, soft_time_limit=30)
        link(knock, receivers.second, durable=True, time_limit=300)
        (message,) = found()
        assert message.id == "deferred_signals.W304"
        assert "'tests.receivers.first'" in message.msg
        assert "'LEASE': 60" in str(message.hint)
        monkeypatch.setattr(connections["default"], "vendor", "postgresql")
        assert ids() == []

    def test_two_aliases_of_one_database_are_one_too_many_for_an_atomic_receiver(self, link, monkeypatch, settings):
        lead_to(monkeypatch, {})
        link(knock, receivers.second, durable=True)
        assert ids() == []
        link(knock, receivers.on_item, atomic=True)
        (message,) = found()
        assert message.id == "deferred_signals.W305"
        assert "'default' and 'other' are one" in message.msg
        assert "of tests.receivers.on_item (atomic)" in message.msg
        settings.DATABASE_ROUTERS = ["tests.outbox.test_commands.OtherIsAReplica"]
        assert ids() == []

    @pytest.mark.parametrize(
        "change",
        [{"NAME": "another"}, {"PORT": "5433"}, {"OPTIONS": {"options": "-c search_path=another"}}],
        ids=["name", "port", "schema"],
    )
    def test_two_databases_are_not_one(self, link, monkeypatch, change):
        lead_to(monkeypatch, change)
        link(knock, receivers.on_item, atomic=True)
        assert ids() == []

    def test_two_databases_in_memory_are_not_one(self, link, monkeypatch):
        lead_to(monkeypatch, {}, NAME=":memory:")
        link(knock, receivers.on_item, atomic=True)
        assert ids() == []

    def test_workers_without_the_relay_are_told_of_in_production(self, configure):
        configure(RELAY=False)
        assert ids() == []
        assert ids(deploy=True) == ["deferred_signals.I301"]
