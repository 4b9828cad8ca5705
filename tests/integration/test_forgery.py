"""Who can write to the broker cannot make a worker call anything through this library."""

from typing import Any

import pytest
from celery import Celery
from django.core.signing import Signer
from pytest_celery import CeleryTestSetup, CeleryTestWorker

from .shop import Shop

FORGERIES = {
    "not signed": lambda payload: payload.rpartition(":")[0],
    "a function instead of the receiver": lambda payload: payload.replace(NEWSLETTER, "os.system"),
    "another receiver": lambda payload: payload.replace("send_newsletter", "call_webhook"),
    "another attempt": lambda payload: payload.replace('"v":1', '"v":1,"attempt":2'),
    "signed with another key": lambda payload: sign(payload.rpartition(":")[0], "another key"),
    "signed for another purpose": lambda payload: sign(payload.rpartition(":")[0], "integration", "sessions"),
    "cut off": lambda payload: payload[:-1],
    "nothing": lambda payload: "",
}
NEWSLETTER = "tests.integration.project.shop.receivers.send_newsletter"


def sign(text: str, key: str, salt: str = "deferred_signals.delivery") -> str:
    return Signer(key=key, fallback_keys=[], salt=salt).sign(text)


@pytest.mark.parametrize("stack", ["redis-sqlite"], indirect=True)
def test_forged_payloads_are_not_run_and_the_worker_goes_on(
    shop: Shop, worker: CeleryTestWorker, celery_setup: CeleryTestSetup
):
    genuine = shop.call("payload_for", signal="newsletter_due")
    for forge in FORGERIES.values():
        assert forge(genuine) != genuine
        put(celery_setup.app, shop, forge(genuine))
    # Not even a payload: these come no further than the main process.
    put(celery_setup.app, shop, {"v": 1, "to": "os.system"})
    put(celery_setup.app, shop)
    put(celery_setup.app, shop, genuine)
    # The genuine one stood last in the queue and is run, by the same worker.
    shop.wait_for("discarded", receiver="send_newsletter")
    assert len(shop.notes("send_newsletter")) == 1
    assert not shop.notes("call_webhook")
    assert len(shop.notes("dead", receiver=None)) == len(FORGERIES)
    assert worker.logs().count("The payload's signature is wrong") >= len(FORGERIES)
    assert worker.logs().count("is refused: its arguments are not one string") == 2


@pytest.mark.parametrize("stack", ["redis-sqlite"], indirect=True)
def test_no_other_task_is_called_on_a_message_s_word(
    shop: Shop, worker: CeleryTestWorker, celery_setup: CeleryTestSetup
):
    alarm = celery_setup.app.signature("tests.integration.project.shop.tasks.alarm", queue=shop.queue)
    genuine = shop.call("payload_for", signal="newsletter_due")
    put(celery_setup.app, shop, genuine, link=alarm, link_error=alarm, chain=[alarm])
    put(celery_setup.app, shop, "forged", link=alarm, link_error=alarm, chain=[alarm])
    shop.wait_for("dead", receiver=None)
    shop.call("sign_up", name="sentinel")
    shop.wait_for("send_welcome_email")
    assert len(shop.notes("send_newsletter")) == 1
    assert not shop.notes("alarm")


def put(app: Celery, shop: Shop, *payload: Any, **options: Any) -> None:
    app.send_task("deferred_signals.deliver", payload, queue=shop.queue, **options)
