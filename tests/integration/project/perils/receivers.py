"""Receivers that end what runs them, each in a way of its own, and such as only wait for a signal of the test."""

import asyncio
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from celery.exceptions import Reject

from deferred_signals import current_delivery, receiver

from ..journal import note
from .signals import async_peril_due, haste_due, patience_due, peril_due, slowness_due


def leave():
    os._exit(3)


def be_killed():
    os.kill(os.getpid(), signal.SIGKILL)


def read_what_is_not_there():
    ctypes.string_at(0)


def exit_python():
    sys.exit("the configuration is wrong")


def interrupt():
    raise KeyboardInterrupt


def run_out_of_memory():
    bytearray(sys.maxsize)


def recurse(depth=0):
    return recurse(depth + 1) + 1


def order_celery():
    raise Reject("no", requeue=True)


def _here():
    delivery = current_delivery()
    return {"attempt": delivery.attempt, "crashes": delivery.crashes, "parent": os.getppid()}


@receiver(peril_due, deferred=True, max_retries=1, retry_backoff=0.1)
def perish(sender, how, **kwargs):
    note("perish", how=how, **_here())
    globals()[how]()


async def _exit_beside():
    sys.exit(1)


async def exit_in_a_task():
    """What comes out of the event loop itself, too."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_exit_beside())
        await asyncio.sleep(60)


async def recurse_async():
    await recurse_async()


async def exit_async():
    exit_python()


@receiver(async_peril_due, deferred=True, max_retries=1, retry_backoff=0.1)
async def perish_async(sender, how, **kwargs):
    note("perish_async", how=how, **_here())
    await globals()[how]()


@receiver(slowness_due, deferred=True, time_limit=1)
def take_too_long(sender, **kwargs):
    note("take_too_long", **_here())
    time.sleep(60)


@receiver(haste_due, deferred=True, expires=0.001)
def hurry(sender, **kwargs):
    note("hurry", **_here())


@receiver(patience_due, deferred=True)
def wait_for_the_gate(sender, number, **kwargs):
    note("wait_for_the_gate", number=number, **_here())
    gate = Path(os.environ["SHOP_JOURNAL"]).with_name("gate")
    while not gate.exists():
        time.sleep(0.01)
