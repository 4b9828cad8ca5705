"""Django's request signals on a worker, sent by its real handlers."""

import pytest

from .families import table
from .shop import Shop

REQUESTS = ("request_started", "request_finished", "got_request_exception")
SCENARIOS = dict.fromkeys(("requests.of_the_test_client", "requests.of_a_wsgi_server", "requests.of_asgi"), REQUESTS)
#: What a kind of request has not.
NOT_OF = {
    "requests.of_the_test_client": {"request_started.scope", "request_finished.sender (not `None`)"},
    "requests.of_a_wsgi_server": {"request_started.scope", "request_finished.sender (`None`)"},
    "requests.of_asgi": {"request_started.environ", "request_finished.sender (`None`)"},
}
SENDERS = {
    "requests.of_the_test_client": ["ClientHandler", "None"],
    "requests.of_a_wsgi_server": ["None", "WSGIHandler"],
    "requests.of_asgi": ["ASGIHandler", "None"],
}
on_redis_and_sqlite = pytest.mark.parametrize("stack", ["redis-sqlite"], indirect=True)


@on_redis_and_sqlite
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_argument_arrives_as_the_table_says(families: Shop, scenario: str):
    answer = families.call(scenario)
    assert answer["differences"] == []
    assert set(answer["compared"]) == table.ids(REQUESTS) - NOT_OF[scenario]
    assert answer["senders"] == SENDERS[scenario]


def test_no_row_is_left_out_by_all_kinds_of_requests():
    assert set.intersection(*NOT_OF.values()) == set()
    assert set.union(*NOT_OF.values()) < table.ids(REQUESTS)


@on_redis_and_sqlite
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_secret_of_a_request_is_in_a_message(families: Shop, scenario: str):
    answer = families.call(scenario)
    assert answer["secrets in live arguments"] is True
    assert answer["secrets in deliveries"] == []
