"""A page whose console blocks show something else than the commands print fails."""

from pathlib import Path

import pytest

from tests import docs_console


@pytest.fixture
def page(tmp_path: Path) -> Path:
    file = tmp_path / "page.md"
    file.write_text(
        "```console\n$ python manage.py list_receivers --signal nowhere\n"
        "No such receiver is connected in this process.\n"
        "$ python manage.py signal_map --app moon\nsomething else\n```\n\n```console\n$ pip install x\n```\n"
    )
    return file


def test_what_is_shown_is_found_by_the_command(page):
    assert docs_console.documented(page) == {
        "list_receivers --signal nowhere": "No such receiver is connected in this process.",
        "signal_map --app moon": "something else",
    }


def test_what_is_right_passes_and_what_is_wrong_is_shown(page):
    docs_console.check(page, "list_receivers --signal nowhere")
    with pytest.raises(AssertionError, match="CommandError: There is no app 'moon'"):
        docs_console.check(page, "signal_map --app moon")


def test_ids_times_ages_and_places_are_compared_by_their_form():
    one = "5b0e4c6e-0000-4000-8000-000000000001 2026-01-31 12:00:01 (2 h ago) (in 3 s) /tmp/x/shop/receivers.py:12"
    other = "5b0e4c6e-0000-4000-8000-000000000002 2025-01-31 12:00:02 (7 s ago) (in 9 min) shop/receivers.py:99"
    assert docs_console.alike(one) == docs_console.alike(other)
    assert docs_console.alike(one) != docs_console.alike(one.replace("receivers", "signals"))
