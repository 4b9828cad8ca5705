"""What breaks in production, broken on purpose: workers, brokers, and the wait for them."""

import os
import signal

import pytest
from pytest_celery import CeleryTestSetup, CeleryTestWorker

from tests.servers import PostgreSQL

from .shop import Shop

#: No sign-up may take longer than this, whatever the broker does.
BOUND = 5.0


def send_until_published(shop: Shop, name: str) -> None:
    """Until it has seen that the broker is back, about a second, the sender's process refuses what is sent."""
    published = len(shop.notes("published"))
    shop.wait_until(lambda: shop.call("sign_up", name=name) and len(shop.notes("published")) > published, "a delivery")


# RabbitMQ sees the connection break and needs no such time.
@pytest.mark.parametrize("visibility_timeout", [2])
def test_a_delivery_whose_worker_is_killed_is_run_again(shop: Shop, worker: CeleryTestWorker):
    shop.call("send", signal="invoice_due", number=7)
    [first] = shop.wait_for("render_invoice started")
    worker.kill()
    shop.open_gate()
    worker.restart()
    [finished] = shop.wait_for("render_invoice finished")
    assert finished["number"] == 7
    assert finished["pid"] != first["pid"]
    assert len(shop.notes("render_invoice started")) == 2


def test_a_delivery_whose_child_process_is_killed_is_run_again(shop: Shop, worker: CeleryTestWorker):
    shop.call("send", signal="invoice_due", number=7)
    [first] = shop.wait_for("render_invoice started")
    os.kill(first["pid"], signal.SIGKILL)
    shop.open_gate()
    [finished] = shop.wait_for("render_invoice finished")
    assert finished["pid"] != first["pid"]
    assert len(shop.notes("render_invoice started")) == 2


def test_a_worker_that_is_asked_to_stop_finishes_its_delivery(shop: Shop, worker: CeleryTestWorker):
    shop.call("send", signal="invoice_due", number=7)
    shop.wait_for("render_invoice started")
    worker.kill("SIGTERM")
    shop.wait_for_log(worker, "Warm shutdown")
    shop.open_gate()
    shop.wait_for("succeeded", receiver="render_invoice")
    shop.wait_until(lambda: worker.container.status == "exited", "the worker's end")
    worker.restart()
    shop.call("sign_up", name="sentinel")
    shop.wait_for("send_welcome_email")
    assert len(shop.notes("render_invoice started")) == 1


def test_what_is_sent_while_no_worker_runs_waits_for_the_next(shop: Shop, worker: CeleryTestWorker):
    worker.kill()
    shop.call("sign_up", name="Ada")
    worker.restart()
    shop.wait_for("send_welcome_email", name="Ada")


@pytest.mark.parametrize("stack", ["rabbitmq-sqlite"], indirect=True)
def test_rabbitmq_keeps_what_is_waiting_over_its_restart(
    shop: Shop, worker: CeleryTestWorker, celery_setup: CeleryTestSetup
):
    worker.kill()
    shop.call("sign_up", name="Ada")
    celery_setup.broker.restart()
    worker.restart()
    shop.wait_for("send_welcome_email", name="Ada")


def test_sender_and_worker_go_on_after_the_broker_died_and_came_back(
    shop: Shop, worker: CeleryTestWorker, celery_setup: CeleryTestSetup
):
    shop.call("sign_up", name="before")
    shop.wait_for("succeeded")
    celery_setup.broker.kill()
    said = shop.call("sign_up", name="during", count=20)
    assert said["customers"] == 20
    assert said["seconds"] < BOUND
    assert len(shop.notes("unpublished")) == 20
    celery_setup.broker.restart()
    send_until_published(shop, "after")
    shop.wait_for("send_welcome_email", name="after")
    assert not shop.notes("send_welcome_email", name="during")


@pytest.mark.parametrize("stack", ["redis-sqlite", "rabbitmq-sqlite"], indirect=True)
def test_a_sign_up_stands_and_goes_on_soon_when_no_broker_is_there(shop_without_broker: Shop):
    said = shop_without_broker.call("sign_up", name="Ada", count=20)
    assert said["customers"] == 20
    assert said["seconds"] < BOUND
    lost = shop_without_broker.notes("unpublished", receiver="send_welcome_email")
    assert len({note["delivery"] for note in lost}) == 20
    assert all("OperationalError" in note["error"] or "PublishError" in note["error"] for note in lost)
    [line] = [line for line in shop_without_broker.log().splitlines() if "could not be published" in line.lower()]
    assert "shop.receivers.send_welcome_email (20)" in line
    assert not shop_without_broker.notes("published")


def test_a_sign_up_goes_on_soon_when_the_broker_is_frozen(
    shop: Shop, worker: CeleryTestWorker, celery_setup: CeleryTestSetup
):
    shop.call("sign_up", name="before")
    shop.wait_for("send_welcome_email", name="before")
    celery_setup.broker.kill("SIGSTOP")
    try:
        said = shop.call("sign_up", name="during", count=20)
    finally:
        celery_setup.broker.kill("SIGCONT")
    assert said["customers"] == 20
    assert said["seconds"] < BOUND
    assert len(shop.notes("unpublished")) == 20
    send_until_published(shop, "after")
    shop.wait_for("send_welcome_email", name="after")


@pytest.mark.parametrize("stack", ["redis-postgresql"], indirect=True)
def test_a_delivery_waits_for_a_database_that_is_away(
    shop: Shop, worker: CeleryTestWorker, request: pytest.FixtureRequest
):
    postgresql: PostgreSQL = request.getfixturevalue("postgresql")  # there, or the stack would have been skipped
    shop.call("send", signal="invoice_due", number=7)
    shop.wait_for("render_invoice started")
    shop.call("sign_up", name="Ada")  # queued behind the invoice
    postgresql.stop()
    try:
        shop.open_gate()
        shop.wait_for("retry", receiver="send_welcome_email")
    finally:
        postgresql.start()
        postgresql.wait_ready()
    [note] = shop.wait_for("send_welcome_email")
    assert note["name"] == "Ada"
