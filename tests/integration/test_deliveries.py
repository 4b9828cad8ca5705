"""The main job, end to end: what the sender's process sends is run by a worker, as Django's users expect it."""

import pytest
from pytest_celery import CeleryTestWorker

from .conftest import ALL_STACKS
from .shop import Shop

RECEIVERS = "tests.integration.project.shop.receivers"


@pytest.mark.parametrize("stack", ALL_STACKS, indirect=True)
def test_a_deferred_receiver_runs_on_the_worker_with_the_row_as_it_is_there(shop: Shop, worker: CeleryTestWorker):
    shop.call("sign_up", name="Ada")
    [inline] = shop.wait_for("greet")
    [deferred] = shop.wait_for("send_welcome_email")
    assert inline["pid"] != deferred["pid"]
    assert deferred["created"] is True
    # The e-mail was set after the signal was sent: the instance is fetched anew.
    assert (deferred["name"], deferred["email"]) == ("Ada", "ada@example.com")


def test_the_worker_logs_the_name_of_the_receiver(shop: Shop, worker: CeleryTestWorker):
    shop.call("sign_up", name="Ada")
    [note] = shop.wait_for("send_welcome_email")
    shop.wait_for_log(worker, f"Task {RECEIVERS}.send_welcome_email[{note['delivery']}] received")
    shop.wait_for_log(worker, f"Task {RECEIVERS}.send_welcome_email[{note['delivery']}] succeeded")


def test_a_save_outside_a_transaction_is_delivered_at_once(shop: Shop, worker: CeleryTestWorker):
    shop.call("sign_up_outside_a_transaction", name="Ada")
    assert shop.wait_for("send_welcome_email")[0]["created"] is True


def test_a_second_save_arrives_as_not_created(shop: Shop, worker: CeleryTestWorker):
    shop.call("sign_up", name="Ada")
    shop.call("rename", name="Ada", new="Grace")
    _, second = shop.wait_for("send_welcome_email", 2)
    assert (second["created"], second["name"]) == (False, "Grace")


def test_a_rolled_back_transaction_delivers_nothing(shop: Shop, worker: CeleryTestWorker):
    shop.call("sign_up_and_roll_back", name="ghost")
    shop.call("sign_up", name="sentinel")
    # One child runs the queue in its order: what stood before the sentinel would have been run.
    shop.wait_for("succeeded")
    assert [note["name"] for note in shop.notes("send_welcome_email")] == ["sentinel"]
    assert [note["name"] for note in shop.notes("greet")] == ["ghost", "sentinel"]
    assert len(shop.notes("published")) == 1


def test_a_rolled_back_savepoint_delivers_nothing_of_it(shop: Shop, worker: CeleryTestWorker):
    shop.call("sign_up_and_roll_the_savepoint_back", kept="kept", lost="lost")
    shop.call("sign_up", name="sentinel")
    shop.wait_for("succeeded", 2)
    assert [note["name"] for note in shop.notes("send_welcome_email")] == ["kept", "sentinel"]
    assert len(shop.notes("published")) == 2


def test_several_receivers_of_a_custom_signal_run_also_an_async_one(shop: Shop, worker: CeleryTestWorker):
    responses = shop.call("complete_order", name="Ada")
    [inline], [stock], [warehouse] = map(shop.wait_for, ("thank", "take_from_stock", "tell_warehouse"))
    assert inline["pid"] not in {stock["pid"], warehouse["pid"]}
    assert (stock["sender"], stock["total"], stock["lines"]) == ("Order", "9.90", [["tea", 2], ["milk", 1]])
    assert warehouse["customer"] == "Ada"
    # What send() returned names the deliveries that were run.
    run = {note["receiver"]: note["delivery"] for note in shop.wait_for("succeeded", 3)}
    assert {name: run.get(name) for name in responses} == responses
    assert responses["thank"] is None


def test_a_receiver_that_raises_once_succeeds_on_retry_under_the_same_id(shop: Shop, worker: CeleryTestWorker):
    shop.call("send", signal="payment_due")
    [end] = shop.wait_for("succeeded", receiver="charge_card")
    [retry] = shop.notes("retry", receiver="charge_card")
    assert len(shop.notes("charge_card")) == 2
    assert retry["delivery"] == end["delivery"]
    shop.wait_for_log(worker, f"Task {RECEIVERS}.charge_card[{end['delivery']}] succeeded")


def test_a_receiver_that_always_raises_ends_dead(shop: Shop, worker: CeleryTestWorker):
    shop.call("send", signal="webhook_due")
    [end] = shop.wait_for("dead", receiver="call_webhook")
    assert len(shop.notes("call_webhook")) == 2
    shop.wait_for_log(worker, f"Delivery {end['delivery']} to {RECEIVERS}.call_webhook, attempt 2, is dead")


def test_a_receiver_may_discard_its_delivery(shop: Shop, worker: CeleryTestWorker):
    shop.call("send", signal="newsletter_due")
    [end] = shop.wait_for("discarded", receiver="send_newsletter")
    assert end["reason"] == "unsubscribed"
    assert len(shop.notes("send_newsletter")) == 1


def test_a_delivery_about_a_row_that_is_gone_is_discarded(shop: Shop, worker: CeleryTestWorker):
    shop.call("sign_up_and_leave", name="Ada")
    shop.wait_for("discarded", receiver="send_welcome_email")
    assert not shop.notes("send_welcome_email")


def test_language_and_time_zone_of_the_sender_are_restored(shop: Shop, worker: CeleryTestWorker):
    shop.call("sign_up_abroad", name="Ada", language="de", zone="Asia/Tokyo")
    shop.call("sign_up", name="Grace")
    abroad, home = shop.wait_for("send_welcome_email", 2)
    assert (abroad["language"], abroad["timezone"]) == ("de", "Asia/Tokyo")
    assert (home["language"], home["timezone"]) == ("en", "UTC")
