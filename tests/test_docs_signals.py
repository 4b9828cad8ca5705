"""docs/signals.md is complete: every signal of Django has rows that a test verifies on a worker, or is refused."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.dispatch import Signal
from django.utils.safestring import mark_safe

from deferred_signals import NotCarried, connect, disconnect, signals
from deferred_signals.codec import requests
from deferred_signals.exceptions import ConnectError
from tests.integration.families import expectations, table
from tests.integration.families.comparison import differences
from tests.integration.families.installed_signals import installed_signals

INTEGRATION = Path(__file__).parent / "integration"
FAMILIES = sorted(path.stem for path in INTEGRATION.glob("test_signals_*.py"))
REFUSED = {name: cells for names, *cells in table.table("refused") for name, _ in table.named(names)}
OURS = {name: value for name, value in vars(signals).items() if isinstance(value, Signal)}


def receive(sender, **kwargs):
    """A receiver that a worker would find."""


def verified() -> dict[str, set[str]]:
    """The signals that each scenario of the families compares."""
    found: dict[str, set[str]] = {}
    for family in FAMILIES:
        scenarios: dict[str, Any] = import_module(f"tests.integration.{family}").SCENARIOS
        found |= {scenario: set(compared) for scenario, compared in scenarios.items()}
    return found


def test_every_signal_of_django_has_rows_or_is_refused():
    described = {row.signal for row in table.rows()}
    assert described | (REFUSED.keys() - OURS.keys()) == installed_signals().keys()
    assert not described & REFUSED.keys()


def test_a_signal_that_a_later_django_brings_is_marked_so():
    since = {
        (name, condition)
        for names, *_ in table.table("signal")
        for name, condition in table.named(names)
        if condition.startswith("Django ")
    }
    assert since == {(name, "Django 6") for name in ("task_enqueued", "task_started", "task_finished")}


def test_every_row_is_verified_on_a_worker():
    assert set().union(*verified().values()) == {row.signal for row in table.rows(every_django=True)}


def test_the_page_names_the_test_module_of_every_family():
    named = re.findall(r"`tests/integration/(test_signals_\w+)\.py`", table.PAGE.read_text())
    assert sorted(named) == FAMILIES


def test_every_word_of_the_table_has_a_meaning_that_is_checked():
    rows = table.rows(every_django=True)
    assert {row.condition for row in rows} == expectations.CONDITIONS.keys()
    assert {row.travels for row in rows} == expectations.TRAVELS.keys()
    assert {row.arrives for row in rows} == expectations.ARRIVES.keys()


def test_no_row_is_there_twice():
    rows = [str(row) for row in table.rows(every_django=True)]
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("name", sorted({row.signal for row in table.rows()}))
def test_what_has_rows_takes_a_deferred_receiver(name: str):
    signal = installed_signals()[name]
    connect(signal, receive, deferred=True)
    assert disconnect(signal, receive)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_refused_says_why_and_what_to_do_as_the_page_does(name: str):
    why, instead = REFUSED[name]
    with pytest.raises(ConnectError) as refused:
        connect(OURS.get(name) or installed_signals()[name], receive, deferred=True)
    said = str(refused.value)
    assert f"{name} cannot have deferred receivers: {why[0].lower()}{why[1:]}" in said
    remedies = re.findall("`([^`]+)`", instead) or ["Connect inline."]
    assert all(remedy in said for remedy in remedies)


def test_every_signal_of_ours_is_refused():
    assert OURS.keys() < REFUSED.keys()


def test_what_travels_of_a_request_is_as_the_page_says():
    headers = table.words("headers")
    assert set(headers) == set(requests.HEADERS)
    harmless = {
        name: f"value of {name}" for name in (*table.words("environ"), *table.words("scope")) if "*" not in name
    }
    secret = {"HTTP_COOKIE": "secret", "HTTP_AUTHORIZATION": "secret", "wsgi.input": "secret", "AWS_KEY": "secret"}
    environ = {**harmless, **secret}
    as_environ = {
        "CONTENT_TYPE" if name == "content-type" else "HTTP_" + name.upper().replace("-", "_") for name in headers
    }
    environ |= dict.fromkeys(as_environ, "header")
    assert requests.environ_snapshot(environ).keys() == {
        *(name for name in table.words("environ") if "*" not in name),
        *as_environ,
    }
    scope: dict[str, Any] = {**harmless, **secret, "state": "secret", "extensions": "secret"}
    scope["headers"] = [(b"cookie", b"secret"), *((name.encode(), b"header") for name in headers)]
    carried = requests.scope_snapshot(scope)
    assert carried.keys() == {*table.words("scope"), "headers"}
    assert {name.decode() for name, _ in carried["headers"]} == set(headers)


def shelved(**state: Any) -> User:
    made = User(pk=1, username="ada")
    vars(made._state).update(state)
    return made


@pytest.mark.parametrize(
    ("expected", "arrived"),
    [
        (1, True),
        (1, 1.0),
        ([1], (1,)),
        ([1, 2], [1]),
        ({1}, frozenset({1})),
        ({1}, {2}),
        ({"a": [1]}, {"a": [True]}),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": 1}, {}),
        ("a", mark_safe("a")),
        (User(pk=1, username="ada"), User(pk=2, username="ada")),
        (User(pk=1, username="ada"), User(pk=1, username="grace")),
        (User(username="ada"), User(username="grace")),
        (shelved(), shelved(db="other")),
        (shelved(), shelved(adding=False)),
        (requests.RequestSnapshot("GET", "/", "", "http", None, None), {"path": "/"}),
        (
            requests.RequestSnapshot("GET", "/", "", "http", None, None),
            requests.RequestSnapshot("GET", "/", "", "http", None, None, user=1),
        ),
        (NotCarried("kwargs['a']", "b", ""), NotCarried("kwargs['b']", "b", "")),
        (NotCarried("kwargs['a']", "b", ""), None),
    ],
)
def test_the_comparison_sees_what_differs(expected: Any, arrived: Any):
    assert list(differences(expected, arrived, "it"))
    assert not list(differences(expected, expected, "it"))
    assert not list(differences(arrived, arrived, "it"))
