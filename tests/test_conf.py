"""The settings: read late, typed, and every mistake said with what to do."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from deferred_signals import conf
from deferred_signals.exceptions import ConfigurationError
from deferred_signals.setting_checks import CHECKS


def test_every_key_has_a_default_and_a_check() -> None:
    names = [field.name for field in dataclasses.fields(conf.Settings)]
    assert list(CHECKS) == names
    for name in names:
        default = getattr(conf.Settings(), name)
        assert conf.read({name.upper(): default}) == ({name: default}, [])


@pytest.mark.parametrize("raw", [{}, None])
def test_without_settings_the_defaults_hold(raw: Any) -> None:
    with override_settings(DEFERRED_SIGNALS=raw):
        assert conf.current() == conf.Settings()


@override_settings()
def test_without_the_setting_the_defaults_hold() -> None:
    del settings.DEFERRED_SIGNALS
    assert conf.current() == conf.Settings()


def test_settings_are_read_late_and_once() -> None:
    with override_settings(DEFERRED_SIGNALS={"MAX_DEPTH": 7}):
        first = conf.current()
        assert first.max_depth == 7
        assert conf.current() is first
        with override_settings(DEFERRED_SIGNALS={"MAX_DEPTH": 8}):
            assert conf.current().max_depth == 8
        assert conf.current().max_depth == 7


def test_settings_that_are_assigned_are_seen_at_once() -> None:
    with override_settings(DEFERRED_SIGNALS={"MAX_DEPTH": 7}):
        assert conf.current().max_depth == 7
        settings.DEFERRED_SIGNALS = {"MAX_DEPTH": 8}
        assert conf.current().max_depth == 8
        del settings.DEFERRED_SIGNALS
        assert conf.current() == conf.Settings()
        settings.DEFERRED_SIGNALS = {"MAX_DEPTH": 9}
        assert conf.current().max_depth == 9


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("MAX_AGE", None, None),
        ("MAX_AGE", 60, 60.0),
        ("MAX_AGE", timedelta(days=1), 86400.0),
        ("PUBLISH_TIMEOUT", 0.5, 0.5),
        ("RELEASE_WINDOW", timedelta(milliseconds=1), 0.001),
        ("DATABASE_WINDOW", timedelta.max, timedelta.max.total_seconds()),
        ("MAX_SIZE", 1, 1),
        ("MAX_DEPTH", 1, 1),
        ("MAX_DEPTH", 100, 100),
        ("CHAIN_LIMIT", 10**9, 10**9),
        ("BACKEND", "shop.backends.Mine", "shop.backends.Mine"),
        ("SIGNING_KEYS", None, None),
        ("SIGNING_KEYS", ["new", b"old"], ("new", b"old")),
        ("SIGNING_KEYS", ("only",), ("only",)),
    ],
)
def test_right_values_are_read(key: str, value: Any, read: Any) -> None:
    with override_settings(DEFERRED_SIGNALS={key: value}):
        found = getattr(conf.current(), key.lower())
    assert (found, type(found)) == (read, type(read))


SECONDS = "a positive number of seconds or a timedelta"
NO_SECONDS: list[Any] = [0, -1, True, "5", [], float("nan"), float("inf"), 10**400, timedelta(0), timedelta(-1)]
NO_COUNT: list[Any] = [0, -1, True, 1.0, "5", None, [], float("nan")]
WHOLE = "a positive whole number"
KEYS = "a non-empty list of keys"


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        *(
            (key, value, SECONDS)
            for key in ("MAX_AGE", "PUBLISH_TIMEOUT", "RELEASE_WINDOW", "DATABASE_WINDOW")
            for value in NO_SECONDS
        ),
        *((key, None, SECONDS) for key in ("PUBLISH_TIMEOUT", "RELEASE_WINDOW", "DATABASE_WINDOW")),
        *((key, value, WHOLE) for key in ("MAX_SIZE", "CHAIN_LIMIT") for value in NO_COUNT),
        *(("MAX_DEPTH", value, "a whole number from 1 to 100") for value in (0, 101, True, 2.0, "5", None, 10**400)),
        *(
            ("OUTSIDE_TRANSACTION", value, '"warn" or "raise" or "ignore"')
            for value in ("error", "", None, True, ["warn"])
        ),
        *(("BACKEND", value, '"celery", "immediate", "memory" or the dotted path') for value in ("", None, 5, dict)),
        *(
            ("SIGNING_KEYS", value, KEYS)
            for value in (
                [],
                (),
                "secret",
                b"secret",
                5,
                True,
                {"a", "b"},
                {"a": "b"},
                (key for key in "ab"),
                [""],
                ["a", ""],
                [b""],
                ["a", 5],
                [None],
                [["a"]],
            )
        ),
    ],
)
def test_wrong_values_are_said_with_what_is_wanted(key: str, value: Any, wanted: str) -> None:
    values, problems = conf.read({key: value})
    assert values == {}
    ((said_key, message, hint),) = problems
    assert said_key == key
    assert message.startswith(f"DEFERRED_SIGNALS[{key!r}] must be {wanted}")
    assert hint


def test_no_message_shows_a_key_of_the_signature() -> None:
    _, problems = conf.read({"SIGNING_KEYS": ["hunter2", 5]})
    assert "hunter2" not in str(problems)


@pytest.mark.parametrize("key", ["MAX_AGES", "max_age", "Max_Age", "", 5, None, ("MAX_AGE",)])
def test_an_unknown_key_is_said_with_those_that_there_are(key: Any) -> None:
    ((_, message, hint),) = conf.read({key: 1})[1]
    assert message == f"DEFERRED_SIGNALS has no key {key!r}."
    assert "BACKEND, SIGNING_KEYS, MAX_AGE" in hint


@pytest.mark.parametrize("raw", [[], "celery", 5, [("BACKEND", "celery")]])
def test_only_a_dict_will_do(raw: Any) -> None:
    ((key, message, _),) = conf.read(raw)[1]
    assert (key, message) == ("", "DEFERRED_SIGNALS must be a dict.")


def test_all_mistakes_are_said_at_once_and_the_right_values_still_read() -> None:
    values, problems = conf.read({"MAX_AGE": -1, "MAX_SIZE": 5, "NOTHING": 1})
    assert values == {"max_size": 5}
    assert [problem.key for problem in problems] == ["MAX_AGE", "NOTHING"]


def test_a_mistake_is_raised_each_time_until_it_is_corrected() -> None:
    with override_settings(DEFERRED_SIGNALS={"MAX_AGE": -1, "NOTHING": 1}):
        for _ in range(2):
            with pytest.raises(
                ConfigurationError, match=r"MAX_AGE.*The defaults are in.*NOTHING.*The keys are"
            ) as caught:
                conf.current()
        assert isinstance(caught.value, ImproperlyConfigured)
    assert conf.current().backend == "memory"
