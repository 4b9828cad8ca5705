"""What is the same of a traceback each time."""

from __future__ import annotations

import time
import traceback

import pytest

from deferred_signals.outbox.fingerprints import fingerprint, normalised, relative, without_varying


def raised(action) -> str:
    try:
        action()
    except Exception as error:  # noqa: BLE001
        return "".join(traceback.format_exception(error))
    raise AssertionError


ONE = """Traceback (most recent call last):
  File "/srv/releases/41/venv/lib/python3.11/site-packages/requests/api.py", line 59, in request
    return session.request(method=method, url=url, **kwargs)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/srv/releases/41/shop/orders/receivers.py", line 12, in call_webhook
    post(url)
shop.errors.WebhookError: order 1017 of 'ada@example.org' at https://api.example.org/a/1: 503
"""
OTHER = """Traceback (most recent call last):
  File "/opt/app/.venv/lib/python3.13/site-packages/requests/api.py", line 61, in request
    return session.request(method=method, url=url, **kwargs)
  File "/opt/app/shop/orders/receivers.py", line 14, in call_webhook
    post(url, timeout=3)
    ~~~~^^^^^^^^^^^^^^^^
shop.errors.WebhookError: order 9 of "bob" at https://api.example.org/b/22: 502
"""


def test_a_traceback_is_its_files_and_functions_and_what_was_said():
    assert normalised(ONE) == (
        "Traceback (most recent call last):\n"
        "requests/api.py:request\n"
        "orders/receivers.py:call_webhook\n"
        "shop.errors.WebhookError: order N of STRING at URL N"
    )


def test_releases_hosts_lines_and_values_make_no_difference():
    assert normalised(ONE) == normalised(OTHER)


def test_another_function_or_another_text_does():
    assert normalised(ONE) != normalised(ONE.replace("in call_webhook", "in call_other"))
    assert normalised(ONE) != normalised(ONE.replace("order ", "customer "))


def test_causes_are_a_part_of_it():
    def fail():
        try:
            dict[str, int]()["number 7"]
        except KeyError as error:
            raise ValueError("no such order") from error

    said = normalised(raised(fail))
    assert "KeyError: STRING" in said
    assert "The above exception was the direct cause of the following exception:" in said
    assert said.endswith("outbox/test_fingerprints.py:fail\nValueError: no such order")


def test_groups_of_exceptions_are_read_through_their_bars():
    def fail():
        raise ExceptionGroup("two", [ValueError("5 of them"), KeyError("x")])

    said = normalised(raised(fail))
    assert "ExceptionGroup: two (N sub-exceptions)" in said
    assert "ValueError: N of them" in said
    assert "KeyError: STRING" in said
    assert "line" not in said
    assert "raise ExceptionGroup" not in said


def test_code_and_what_is_repeated_is_left_out():
    def again(number=0):
        return again(number + 1)

    said = normalised(raised(again))
    assert "return again" not in said
    assert "repeated" not in said
    assert said.endswith("RecursionError: maximum recursion depth exceeded")


def test_an_error_without_a_traceback_is_what_was_said():
    assert normalised("", "its worker was lost 3 times, the last one was 7@host/0badcafe") == (
        "its worker was lost N times, the last one was ADDRESS"
    )


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("/usr/lib/python3/dist-packages/django/db/models/base.py", "django/db/models/base.py"),
        ("/usr/lib/python3.12/json/decoder.py", "json/decoder.py"),
        (r"C:\venv\Lib\site-packages\celery\app\task.py", "celery/app/task.py"),
        ("/srv/app/shop/orders/receivers.py", "orders/receivers.py"),
        (r"C:\app\shop\orders\receivers.py", "orders/receivers.py"),
        ("/srv/releases/20300131/receivers_2.py", "N/receivers_2.py"),
        ("receivers.py", "receivers.py"),
        ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap>"),
    ],
)
def test_a_file_is_named_without_where_it_is_installed(file, expected):
    assert relative(file) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("<Order object at 0x7f3c2a1b>", "<Order object at HEX>"),
        ("5b0e1c6a-0b4e-4e0f-9b7e-0f6a1f6d7c11 is gone", "ID is gone"),
        ("5b0e1c6a0b4e4e0f9b7e0f6a1f6d7c11 is gone", "ID is gone"),
        ("commit 0123456789abcdef0123", "commit HEX"),
        ("took 1,234.5 s at 2030-01-31", "took N s at N"),
        ("b'bytes' or \"it's\"", "STRING or STRING"),
        ("deadbeef is a word without digits", "deadbeef is a word without digits"),
    ],
)
def test_what_differs_from_one_delivery_to_the_next_is_a_word(said, expected):
    assert without_varying(said) == expected


def test_a_fingerprint_is_of_receiver_exception_and_place():
    one = fingerprint("shop.send", "ValueError", "a")
    assert one == fingerprint("shop.send", "ValueError", "a")
    others = [("s", "ValueError", "a"), ("shop.send", "K", "a"), ("shop.send", "ValueError", "b")]
    assert len({one, *(fingerprint(*other) for other in others)}) == 4


@pytest.mark.parametrize("piece", ["a", "'", "0", "1.", "a-", "@", "a@", "a.", "abcdef", "x://", '"\\', '  File "'])
def test_a_long_text_takes_no_long_time(piece):
    """Texts of errors are anybody's, and some patterns take minutes for a few thousand characters."""
    began = time.process_time()
    normalised(piece * 10_000, piece * 10_000)
    assert time.process_time() - began < 2
