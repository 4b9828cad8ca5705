"""What a project can do that has nothing but the wheel. Run by tests/wheel.py, in an environment of its own."""

import sysconfig
from pathlib import Path

import pytest
from django.contrib.staticfiles import finders
from django.core.management import call_command, get_commands, load_command_class
from django.template.loader import get_template
from office.receivers import file_letter, letter_came

import deferred_signals
from deferred_signals.outbox.models import OutboxDelivery

COMMANDS = sorted(name for name, app in get_commands().items() if app.startswith("deferred_signals"))
PAGES = "/admin/deferred_signals_outbox/outboxdelivery/"


@pytest.fixture
def dead(db, deliveries):
    """The fixture ``deliveries`` is there by the wheel's entry point."""
    letter_came.send(sender=None, number=13)
    [found] = deliveries.assert_deferred(file_letter, number=13)
    deliveries.deliver(raises=False)
    assert found.state == "dead"
    return str(found.id)


def test_it_is_the_one_that_was_installed():
    package = Path(deferred_signals.__file__).parent
    assert package.parent == Path(sysconfig.get_paths()["purelib"])
    assert (package / "py.typed").exists()


def test_the_tables_are_made_and_no_migration_is_wanting(db):
    call_command("makemigrations", "--check", "--dry-run")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        load_command_class(get_commands()[name], name).run_from_argv(["manage.py", name, "--help"])
    assert ended.value.code == 0
    assert f"manage.py {name}" in capsys.readouterr().out


def test_every_command_runs(dead, capsys, tmp_path):
    arguments = {
        "check_deliveries": [],
        "deferred_doctor": [],
        "discard_deliveries": [dead, "--no-input"],
        "explain_delivery": [dead],
        "explain_receiver": ["file_letter"],
        "list_receivers": [],
        "prune_deliveries": ["--older-than", "1d", "--no-input"],
        "redeliver": ["--all", "--dry-run"],
        "relay_outbox": ["--once"],
        "signal_map": ["--format", "svg", "--output", str(tmp_path / "map.svg")],
    }
    assert sorted(arguments) == COMMANDS
    for name, given in arguments.items():
        call_command(name, *given)
        assert capsys.readouterr().out, name


def test_the_admin_opens_with_its_templates_and_its_style(dead, admin_client):
    assert "office.receivers.file_letter" in admin_client.get(f"{PAGES}?q={dead}").content.decode()
    row = OutboxDelivery.objects.get()
    for page in ("", "dashboard/", "failures/", f"{row.pk}/change/"):
        answer = admin_client.get(PAGES + page, follow=True)
        assert answer.status_code == 200, page
        assert "deferred_signals/outbox.css" in answer.content.decode(), page
    assert finders.find("deferred_signals/outbox.css")


def test_the_templates_that_no_page_of_the_admin_shows_are_there():
    assert get_template("deferred_signals/debug_toolbar.html")
    assert get_template("admin/deferred_signals_outbox/outboxdelivery/confirm.html")
