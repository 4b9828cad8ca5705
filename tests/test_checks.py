"""The system checks: ``manage.py check`` says what is wrong before a delivery is lost over it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from celery import Celery
from celery.app import app_or_default
from django.core import checks

from deferred_signals import Signal
from tests import receivers
from tests.receivers import Holder, first, wrapped

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


def test_manage_py_check_runs_them():
    code = (
        "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'tests.settings'\n"
        "from tests import settings; settings.DEFERRED_SIGNALS = {'NONSENSE': 1}\n"
        "from django.core.management import execute_from_command_line\n"
        "execute_from_command_line(['manage.py', 'check'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "(deferred_signals.E001) DEFERRED_SIGNALS has no key 'NONSENSE'." in done.stderr
