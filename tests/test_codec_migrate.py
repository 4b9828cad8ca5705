"""What comes with the signals of ``migrate`` arrives as the worker's own, or as a small picture of itself."""

from __future__ import annotations

import copy
import io
from typing import Any

import django.contrib.auth
import pytest
from django.apps import AppConfig, apps
from django.apps.registry import Apps
from django.core.management import call_command
from django.core.management.base import OutputWrapper
from django.db.migrations.migration import Migration
from django.db.migrations.state import AppConfigStub, ProjectState, StateApps
from django.db.models.signals import post_migrate, pre_migrate
from django.test import modify_settings

from deferred_signals.codec import Decoder, Encoder
from deferred_signals.codec.migrate import MigrationSnapshot
from deferred_signals.exceptions import DecodeError, EncodeError, UnknownName

from .travel import travel


def test_an_app_config_arrives_as_the_workers() -> None:
    for config in apps.get_app_configs():
        assert travel(config) is config


def test_an_app_config_of_before_the_settings_were_changed_arrives() -> None:
    # override_settings makes them anew, and a test may hold the one of before.
    config = copy.copy(apps.get_app_config("auth"))
    assert travel(config) is apps.get_app_config("auth")


class Other(AppConfig):
    name = "django.contrib.auth"
    label = "auth"


@pytest.mark.parametrize(
    "config",
    [AppConfigStub("auth"), Other("django.contrib.auth", django.contrib.auth), AppConfigStub("nowhere")],
    ids=repr,
)
def test_a_config_that_is_not_of_an_installed_app_is_refused(config: AppConfig) -> None:
    with pytest.raises(EncodeError, match="Send its label"):
        Encoder().encode(config)


@modify_settings(INSTALLED_APPS={"append": "django.contrib.sites"})
def app_that_comes_later() -> Any:
    return Encoder().encode(apps.get_app_config("sites"))


def test_an_app_that_this_release_does_not_have_is_waited_for() -> None:
    with pytest.raises(UnknownName, match="not installed"):
        Decoder().decode(app_that_comes_later())


def test_every_registry_of_apps_arrives_as_the_workers_one() -> None:
    historical = ProjectState().apps
    assert isinstance(historical, StateApps)
    for registry in (apps, historical, Apps([])):
        assert travel(registry) is apps


def test_the_output_of_a_command_is_the_workers_own_there(capsys: pytest.CaptureFixture[str]) -> None:
    here = io.StringIO()
    arrived = travel(OutputWrapper(here))
    assert type(arrived) is OutputWrapper
    arrived.write("done")
    assert capsys.readouterr().out == "done\n"
    assert here.getvalue() == ""


def test_a_migration_arrives_as_whose_it_is_and_its_name() -> None:
    once = travel([(Migration("0001_initial", "shop"), True)])
    assert once == [(MigrationSnapshot("shop", "0001_initial"), True)]
    assert travel(once) == once


@pytest.mark.django_db
def test_all_that_migrate_sends_arrives() -> None:
    seen: list[str] = []

    def compare(sender: AppConfig, signal: Any, **kwargs: Any) -> None:
        assert travel(sender) is sender
        arrived = travel(kwargs)
        plan = [(MigrationSnapshot(it.app_label, it.name), back) for it, back in kwargs["plan"]]
        assert arrived.pop("plan") == plan
        assert arrived.pop("apps") is apps
        assert type(arrived.pop("stdout")) is type(kwargs["stdout"]) is OutputWrapper
        assert arrived == {name: kwargs[name] for name in ("app_config", "verbosity", "interactive", "using")}
        seen.append(sender.label)

    pre_migrate.connect(compare)
    post_migrate.connect(compare)
    try:
        call_command("migrate", "sessions", "zero", fake=True, stdout=io.StringIO())
        call_command("migrate", "sessions", fake=True, stdout=io.StringIO())
    finally:
        pre_migrate.disconnect(compare)
        post_migrate.disconnect(compare)
    assert seen.count("auth") == 4


@pytest.mark.parametrize(
    "data",
    [
        {"$appconfig": None},
        {"$appconfig": []},
        {"$appconfig": {"a": 1}},
        {"$appconfig": "django.contrib.auth"},
        {"$appconfig": 5},
        {"$migration": None},
        {"$migration": ["shop"]},
        {"$migration": ["shop", 5]},
        {"$migration": [None, "0001"]},
        {"$migration": "ab"[:1]},
        {"$migration": {"a": 1}},
    ],
    ids=str,
)
def test_nonsense_is_a_decode_error(data: Any) -> None:
    with pytest.raises(DecodeError):
        Decoder().decode(data)


@pytest.mark.parametrize("data", [None, "os.system", ["a"], {"$function": "os.system"}])
def test_what_says_nothing_cannot_say_anything_else(data: Any) -> None:
    assert Decoder().decode({"$apps": data}) is apps
    assert type(Decoder().decode({"$output": data})) is OutputWrapper
