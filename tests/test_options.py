"""The options of a connection: each checked when the receiver is connected, with a remedy in the error."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from deferred_signals.exceptions import ConnectError
from deferred_signals.option_checks import LONGEST_DURATION
from deferred_signals.options import Options, parse
from tests import receivers


def test_the_defaults_are_the_documented_ones():
    options = parse({})
    assert options == Options()
    assert options.message == {"ignore_result": True}
    assert (options.max_retries, options.retry_backoff, options.retry_backoff_max, options.missing) == (
        3,
        True,
        600,
        "discard",
    )


def test_durations_may_be_timedeltas():
    options = parse({"countdown": timedelta(minutes=1), "expires": timedelta(hours=1)})
    assert options.message == {"countdown": 60, "ignore_result": True}
    assert options.expires == 3600


def test_the_message_gets_what_was_given_and_nothing_else():
    given: dict[str, Any] = {
        "queue": "mail",
        "priority": 0,
        "headers": {"a": 1},
        "time_limit": 5,
        "ignore_result": False,
    }
    assert parse({**given, "max_retries": 1}).message == given


def test_an_unknown_option_is_a_type_error_that_guesses_what_was_meant():
    with pytest.raises(TypeError, match="Did you mean 'max_retries'"):
        parse({"max_retry": 3})
    with pytest.raises(TypeError, match=r"The options are queue, .* deliver_raw"):
        parse({"xyzzy": 3})


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("queue", 7, "a non-empty string"),
        ("using", "", "a non-empty string"),
        ("countdown", -1, "seconds"),
        ("countdown", True, "seconds"),
        ("expires", float("nan"), "seconds"),
        ("countdown", LONGEST_DURATION + 1, "at most a thousand years"),
        ("expires", 10**12, "at most a thousand years"),
        ("debounce", 1e300, "at most a thousand years"),
        ("retry_backoff_max", float("inf"), "at most a thousand years"),
        ("time_limit", "5", "seconds"),
        ("priority", 1.5, "whole number"),
        ("max_retries", -1, "whole number"),
        ("ignore_result", None, "True or False"),
        ("on_commit", 1, "True or False"),
        ("autoretry_for", [Exception, 7], "exception classes"),
        ("dont_autoretry_for", "ValueError", "exception classes"),
        ("retry_backoff", -1, "seconds"),
        ("retry_backoff", None, "seconds"),
        ("headers", {1: 2}, "string keys"),
        ("headers", [1], "string keys"),
        ("headers", {"task": "os.system", "mine": 1}, "headers of your own; Celery's protocol uses task"),
        ("when", receivers.asynchronous, "not async"),
        ("name", "two words", "letters"),
        ("name", 7, "letters"),
        ("aliases", "old.name", "tuple of names"),
        ("aliases", ["a b"], "letters"),
        ("when", 7, "a function, not async"),
        ("when", lambda created: created, "any keyword arguments"),
        ("instance", "pickle", '"reference" or "snapshot"'),
        ("missing", None, '"discard" or "retry" or "dead"'),
    ],
)
def test_a_wrong_value_names_the_option_and_what_it_must_be(name, value, wanted):
    with pytest.raises(ConnectError, match=f"The option '{name}' must be .*{wanted}") as raised:
        parse({name: value})
    plain = isinstance(value, str | int | float)
    assert str(raised.value).endswith(f", not {value!r}." if plain else f", not {type(value).__name__}.")


def test_durations_end_where_clocks_do():
    """A thousand years from now every database, and Python, can tell the time; ten thousand years from now none can."""
    names = ("countdown", "expires", "time_limit", "retry_backoff_max", "retry_backoff")
    for name in names:
        assert getattr(parse({name: LONGEST_DURATION}), name) == LONGEST_DURATION
        with pytest.raises(ConnectError, match=f"'{name}' must be a number of seconds .*, not timedelta"):
            parse({name: timedelta.max})
    assert parse({"unique": "instance.pk", "debounce": LONGEST_DURATION}).debounce == LONGEST_DURATION


def test_none_is_as_if_not_given_and_for_ever_for_max_retries():
    assert parse({"queue": None, "when": None}) == Options()
    assert parse({"max_retries": None}).max_retries is None


def test_a_soft_time_limit_above_the_hard_one_makes_no_sense():
    assert parse({"time_limit": 5, "soft_time_limit": 5}).message["soft_time_limit"] == 5
    with pytest.raises(ConnectError, match="soft_time_limit"):
        parse({"time_limit": 5, "soft_time_limit": 6})


def test_exceptions_and_names_may_be_lists_or_one():
    options = parse(
        {"autoretry_for": [OSError], "dont_autoretry_for": KeyError, "aliases": ["old.name"], "retry_backoff": 2}
    )
    assert (options.autoretry_for, options.dont_autoretry_for, options.aliases) == (
        (OSError,),
        (KeyError,),
        ("old.name",),
    )
