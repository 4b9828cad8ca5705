import os
import time
from pathlib import Path
from typing import Any

from deferred_signals import current_delivery

from ..journal import note
from . import release


def ran(receiver: str, **fields: Any) -> None:
    """Write down that a receiver runs: in which release, about which delivery."""
    delivery = current_delivery()
    note("ran", receiver=receiver, release=release.NUMBER, delivery=delivery.id, attempt=delivery.attempt, **fields)


def wait_for_the_gate() -> None:
    """Work until the test opens the gate of the delivery."""
    gate = Path(os.environ["SHOP_JOURNAL"]).with_name(f"gate-{current_delivery().id}")
    while not gate.exists():
        time.sleep(0.01)
