"""Deferred receivers that are given a secret, do not tell it, and end in every way there is."""

import os
import time
from pathlib import Path

from deferred_signals import receiver

from ..journal import note
from .signals import buried, crashed, guarded, kept, kept_apart, late, postponed, retried, timed_out


@receiver(kept, deferred=True, ignore_result=False)
def keep(sender, secret, **kwargs):
    note("keep", secret=secret)


@receiver(kept_apart, deferred=True, encrypt=True)
def keep_apart(sender, secret, **kwargs):
    note("keep_apart", secret=secret)


@receiver(retried, deferred=True, ignore_result=False, retry_backoff=1)
def try_again(sender, secret, **kwargs):
    if note("try_again", secret=secret) == 1:
        raise ConnectionError("nobody there")


@receiver(buried, deferred=True, ignore_result=False, max_retries=0)
def bury(sender, secret, **kwargs):
    note("bury", secret=secret)
    raise ValueError("no")


@receiver(timed_out, deferred=True, ignore_result=False, time_limit=0.5)
def time_out(sender, secret, **kwargs):
    note("time_out", secret=secret)
    time.sleep(60)


@receiver(crashed, deferred=True, ignore_result=False)
def crash(sender, secret, **kwargs):
    note("crash", secret=secret)
    os._exit(1)


@receiver(late, deferred=True, ignore_result=False, countdown=1, expires=0.1)
def come_late(sender, secret, **kwargs):
    note("come_late", secret=secret)


@receiver(postponed, deferred=True, countdown=600)
def postpone(sender, secret, **kwargs):
    note("postpone", secret=secret)


@receiver(guarded, deferred=True, ignore_result=False)
def guard(sender, secret, **kwargs):
    """Works until the test opens the gate."""
    note("guard", secret=secret)
    gate = Path(os.environ["SHOP_JOURNAL"]).with_name("gate")
    while not gate.exists():
        time.sleep(0.01)
