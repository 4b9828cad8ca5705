"""Django's and its users' ways to make requests and tests: clients, servers, ATOMIC_REQUESTS, factories, plugins."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import factory
import pytest
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.db import transaction
from django.db.models.signals import post_save
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, LiveServerTestCase, override_settings
from django.urls import path

from deferred_signals import Delivery, Signal, backends, connect
from deferred_signals.codec.requests import RequestSnapshot
from tests.receivers import asynchronous, first, on_instance, second
from tests.shop.models import Customer

bell: Any = Signal()  # Django's stubs say that every response is a string


class CustomerFactory(factory.django.DjangoModelFactory):  # type: ignore[type-arg]
    class Meta:
        model = Customer

    name = "Ada"


@factory.django.mute_signals(post_save)
class MutedFactory(CustomerFactory): ...


@factory.django.mute_signals(post_save, bell)
def quietly() -> None:
    CustomerFactory()
    bell.send(sender=None)


@pytest.mark.django_db(transaction=True)
class TestFactoryBoy:
    @pytest.fixture(autouse=True)
    def _receivers(self, link):
        link(post_save, on_instance, Customer)
        link(post_save, first, Customer, deferred=False)
        link(bell, second)

    def test_mute_signals_mutes_deferred_receivers_as_a_context_and_they_come_back(self, memory, calls):
        with factory.django.mute_signals(post_save, bell):
            CustomerFactory()
            bell.send(sender=None)
        assert (memory.payloads, calls) == ([], [])
        CustomerFactory()
        bell.send(sender=None)
        assert [outcome.state for _, outcome in memory.deliver()] == ["succeeded", "succeeded"]
        assert [name for name, _, _ in calls] == ["first", "on_instance", "second"]

    def test_and_as_a_decorator_of_functions_and_factories(self, memory, calls):
        quietly()
        MutedFactory()
        assert (memory.payloads, calls) == ([], [])
        bell.send(sender=None)
        assert len(memory.payloads) == 1

    def test_disconnecting_goes_on_working_after_it(self, memory):
        with factory.django.mute_signals(bell):
            pass
        assert bell.disconnect(second)
        bell.send(sender=None)
        assert memory.payloads == []

    def test_what_is_connected_while_muted_stays_connected(self, memory, link):
        with factory.django.mute_signals(bell):
            link(bell, first)
        bell.send(sender=None)
        assert len(memory.payloads) == 2


class TestPytestDjango:
    @pytest.fixture(autouse=True)
    def _receivers(self, link):
        link(post_save, on_instance, Customer)

    def test_with_db_nothing_is_committed_so_nothing_leaves(self, db, memory):
        CustomerFactory()
        assert memory.payloads == []

    def test_with_transactional_db_commits_are_real(self, transactional_db, memory):
        with transaction.atomic():
            CustomerFactory()
            assert memory.payloads == []
        assert len(memory.payloads) == 1

    def test_django_capture_on_commit_callbacks_executes_ours(self, db, memory, django_capture_on_commit_callbacks):
        with django_capture_on_commit_callbacks(execute=True) as callbacks:
            CustomerFactory()
            CustomerFactory()
        assert len(callbacks) == len(memory.payloads) == 2
        assert {outcome.state for _, outcome in memory.deliver()} == {"succeeded"}

    def test_without_execute_they_are_there_to_be_called(self, db, memory, django_capture_on_commit_callbacks):
        with django_capture_on_commit_callbacks() as callbacks:
            CustomerFactory()
        assert memory.payloads == []
        for callback in callbacks:
            callback()
        assert len(memory.payloads) == 1


@pytest.mark.django_db(transaction=True)
class TestRequests:
    @pytest.fixture
    def _atomic_requests(self, settings):
        connection = transaction.get_connection()
        before = connection.settings_dict["ATOMIC_REQUESTS"]
        connection.settings_dict["ATOMIC_REQUESTS"] = True
        yield
        connection.settings_dict["ATOMIC_REQUESTS"] = before

    def test_a_view_behind_the_test_client_publishes(self, link, memory):
        link(post_save, on_instance, Customer)
        Client().post("/sign-up/", {"name": "Ada"})
        assert len(memory.payloads) == 1

    @pytest.mark.usefixtures("_atomic_requests")
    def test_with_atomic_requests_an_error_after_the_send_publishes_nothing(self, link, memory):
        link(post_save, on_instance, Customer)
        assert Client(raise_request_exception=False).post("/broken/").status_code == 500
        assert Customer.objects.count() == 0
        assert memory.payloads == []
        Client().post("/sign-up/", {"name": "Ada"})
        assert len(memory.payloads) == 1

    def test_a_login_of_the_test_client_arrives(self, link, memory, calls):
        link(user_logged_in, first)
        user = User.objects.create_user("ada")
        Client().force_login(user)
        assert [outcome.state for _, outcome in memory.deliver()] == ["succeeded"]
        [(_, sender, kwargs)] = calls
        assert (sender, kwargs["user"]) == (User, user)
        assert isinstance(kwargs["request"], RequestSnapshot)


@override_settings(STATIC_URL="/static/")
class TestLiveServer(LiveServerTestCase):
    def test_its_threads_publish(self):
        connect(post_save, on_instance, Customer, deferred=True)
        self.addCleanup(post_save.disconnect, on_instance, sender=Customer)
        with urllib.request.urlopen(f"{self.live_server_url}/sign-up/", data=b"name=Ada") as answer:
            assert answer.status == 200
        assert len(backends.current().payloads) == 1  # type: ignore[attr-defined]


async def ring(request: HttpRequest) -> HttpResponse:
    await bell.asend(sender=None, word="asynchronously")
    return HttpResponse("rung")


class TestAsyncViews:
    async def test_an_async_view_sends_with_asend_and_gets_the_delivery(self, settings, link, memory):
        settings.ROOT_URLCONF = type("urlconf", (), {"urlpatterns": [path("ring/", ring)]})
        link(bell, first)
        link(bell, asynchronous)
        assert (await AsyncClient().get("/ring/")).content == b"rung"
        assert len(memory.payloads) == 2

    async def test_asend_and_asend_robust_return_deliveries(self, link, memory):
        link(bell, first)
        for send in (bell.asend, bell.asend_robust):
            [(function, delivery)] = await send(sender=None)
            assert function.__name__ == "first"
            assert isinstance(delivery, Delivery)


SUITE = """
import os
from deferred_signals import Signal, backends
from tests.receivers import first
import pytest
bell = Signal(name="xdist bell")
bell.connect(first, deferred=True)

@pytest.mark.parametrize("number", range(8))
def test_each_process_has_deliveries_of_its_own(number, memory):
    bell.send(sender=None, number=number)
    [(_, outcome)] = memory.deliver()
    assert outcome.state == "succeeded"
    assert os.environ["PYTEST_XDIST_WORKER"] in ("gw0", "gw1")
"""


def test_a_suite_that_is_spread_by_xdist_needs_nothing(tmp_path: Path):
    (tmp_path / "test_spread.py").write_text(SUITE)
    command = "-m pytest -q -n 2 -p tests.kit -p no:cacheprovider -p no:randomly --ds tests.settings --no-header"
    root = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "PYTHONPATH": root, "PYTEST_ADDOPTS": ""}
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, *command.split(), "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "8 passed" in done.stdout, done.stdout + done.stderr
