"""The app without Django's admin, and what a wheel has of the admin's files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from django.contrib import admin
from django.contrib.staticfiles import finders
from django.template.loader import get_template

from deferred_signals.outbox.admin import DeliveryAdmin
from deferred_signals.outbox.models import OutboxDelivery

ROOT = Path(__file__).resolve().parents[2]


def test_it_is_registered_with_djangos_own_site():
    assert isinstance(admin.site._registry[OutboxDelivery], DeliveryAdmin)


def test_the_app_does_without_the_admin(tmp_path):
    (tmp_path / "bare_settings.py").write_text(
        "from tests.settings import *\n"
        "INSTALLED_APPS.remove('django.contrib.admin')\n"
        "INSTALLED_APPS.remove('django.contrib.messages')\n"
        "MIDDLEWARE = []\n"
    )
    script = (
        "import sys, django; django.setup()\n"
        "from django.core.management import call_command\n"
        "call_command('check', 'deferred_signals_outbox')\n"
        "call_command('migrate', verbosity=0)\n"
        "call_command('prune_deliveries', '--older-than', '1d', '--no-input')\n"
        "assert not [name for name in sys.modules if 'admin' in name.split('.')], sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env={
            **{name: value for name, value in os.environ.items() if name != "TEST_DATABASE"},
            "DJANGO_SETTINGS_MODULE": "bare_settings",
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_templates_and_styles_are_found():
    for name in ("change_list", "change_form", "dashboard", "failures", "map", "confirm", "base", "pages"):
        assert get_template(f"admin/deferred_signals_outbox/outboxdelivery/{name}.html")
    assert finders.find("deferred_signals/outbox.css")
