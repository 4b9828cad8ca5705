"""What is lost for good in the default mode, for want of a table of ours: shown, so that nobody promises it."""

import signal

import pytest
from pytest_celery import CeleryTestSetup, CeleryTestWorker
from redis import Redis

from .shop import Shop

LOSSES = "tests.integration.project.shop.losses"


def nothing_is_left_of(shop: Shop, worker: CeleryTestWorker, name: str) -> None:
    """The worker runs what is sent now, and has not run, retried or buried anything else."""
    shop.call("sign_up", name="sentinel")
    shop.wait_for("succeeded")
    assert [note["name"] for note in shop.notes("send_welcome_email")] == ["sentinel"]
    assert len(shop.notes("succeeded")) == 1
    assert not any(map(shop.notes, ("retry", "discarded", "dead")))
    assert shop.call("elsewhere", path=f"{LOSSES}.customers", name=name) == 1


def kill_a_sender(shop: Shop, scenario: str, name: str) -> None:
    with pytest.raises(AssertionError, match="the sender ended in elsewhere"):
        shop.call("elsewhere", path=f"{LOSSES}.{scenario}", name=name)
    assert shop._sender
    shop._sender.communicate()
    assert shop._sender.returncode == -signal.SIGKILL
    shop._sender = None  # the next call starts another


@pytest.mark.parametrize("stack", ["redis-sqlite"], indirect=True)
def test_what_waits_in_redis_is_lost_with_flushall_and_nothing_pretends_otherwise(
    shop: Shop, worker: CeleryTestWorker, celery_setup: CeleryTestSetup
):
    worker.kill()
    shop.call("sign_up", name="Ada")
    [published] = shop.notes("published")
    with Redis(port=celery_setup.broker.container.port) as redis:
        assert redis.llen(shop.queue) == 1
        redis.flushall()
    worker.restart()
    nothing_is_left_of(shop, worker, "Ada")
    # The sender was told the truth: the broker had it. That it has it no longer, nobody has heard.
    assert published["receiver"] == "send_welcome_email"
    assert not shop.notes("unpublished")


@pytest.mark.parametrize("stack", ["redis-sqlite"], indirect=True)
def test_what_waits_in_a_redis_without_persistence_is_lost_when_it_restarts(
    shop: Shop, worker: CeleryTestWorker, celery_setup: CeleryTestSetup
):
    worker.kill()
    shop.call("sign_up", name="Ada")
    assert len(shop.notes("published")) == 1
    celery_setup.broker.restart()
    worker.restart()
    nothing_is_left_of(shop, worker, "Ada")
    assert not shop.notes("unpublished")


def test_what_a_sender_had_not_published_when_it_was_killed_is_lost_although_its_row_is_there(
    shop: Shop, worker: CeleryTestWorker
):
    kill_a_sender(shop, "sign_up_and_die_after_the_commit", "Ada")
    assert not shop.notes("published")
    assert not shop.notes("unpublished")
    nothing_is_left_of(shop, worker, "Ada")


def test_a_sender_that_is_killed_before_its_commit_leaves_neither_row_nor_delivery(
    shop: Shop, worker: CeleryTestWorker
):
    kill_a_sender(shop, "sign_up_and_die_before_the_commit", "Ada")
    shop.call("sign_up", name="sentinel")
    shop.wait_for("succeeded")
    assert [note["name"] for note in shop.notes("send_welcome_email")] == ["sentinel"]
    assert shop.call("elsewhere", path=f"{LOSSES}.customers", name="Ada") == 0


def test_what_a_sender_had_published_when_it_was_killed_is_delivered(shop: Shop, worker: CeleryTestWorker):
    kill_a_sender(shop, "sign_up_and_die_after_publishing", "Ada")
    assert [note["name"] for note in shop.wait_for("send_welcome_email")] == ["Ada"]
