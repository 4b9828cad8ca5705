"""Django's authentication signals on a worker, sent by its log-in and log-out views."""

import pytest

from .families import table
from .shop import Shop

AUTH = ("user_logged_in", "user_logged_out", "user_login_failed")
SCENARIOS = {"auth.logins": AUTH}
pytestmark = pytest.mark.parametrize("stack", ["rabbitmq-postgresql"], indirect=True)


def test_every_argument_arrives_as_the_table_says(families: Shop):
    answer = families.call("auth.logins")
    assert answer["differences"] == []
    assert set(answer["compared"]) == table.ids(AUTH)
    assert answer["sent"] == [
        ["user_login_failed", "NoneType"],
        ["user_logged_in", "User"],
        ["user_logged_out", "SimpleLazyObject"],
        ["user_logged_out", "NoneType"],
        ["user_login_failed", "NoneType"],
    ]
    # Django masks by the key's name: what the page says of one-time passwords is so.
    assert answer["credentials"][-1] == {"username": "ada", "password": "*" * 20, "api_key": "*" * 20, "otp": "123456"}


def test_what_coroutines_send_arrives_too(families: Shop):
    answer = families.call("auth.logins_of_coroutines")
    assert answer["differences"] == []
    # Django's test client logs out without saying whom, and tries to log in without a request.
    assert table.ids(AUTH) - set(answer["compared"]) == {
        "user_logged_out.sender (a model)",
        "user_logged_out.user (not `None`)",
        "user_login_failed.request (not `None`)",
    }
    assert answer["sent"] == [
        ["user_logged_in", "User"],
        ["user_logged_out", "NoneType"],
        ["user_login_failed", "NoneType"],
    ]
