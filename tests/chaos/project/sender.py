"""A sender's process: ``python -m tests.chaos.project.sender <number> <seed> <deliveries> <file that says: wait>``."""

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import django

django.setup()

from django.db import transaction  # noqa: E402

from deferred_signals import Delivery, Signal  # noqa: E402
from deferred_signals.signals import delivery_published, delivery_unpublished  # noqa: E402
from tests.chaos.journal import note  # noqa: E402
from tests.chaos.programs import Block, Programs, Send  # noqa: E402
from tests.chaos.project.models import Intent  # noqa: E402
from tests.chaos.project.receivers import happened  # noqa: E402


class RolledBack(Exception):
    """Takes a block back."""


#: The signal of each kind of intent that is not announced by its own post_save.
SIGNALS = {"custom": happened}


def run(block: Block, signals: Mapping[str, Signal] = SIGNALS) -> None:
    with contextlib.suppress(RolledBack), transaction.atomic() if block.atomic else contextlib.nullcontext():
        for part in block.parts:
            if isinstance(part, Block):
                run(part, signals)
            else:
                send(part, signals)
        if block.fails:
            raise RolledBack


def send(part: Send, signals: Mapping[str, Signal]) -> None:
    Intent.objects.create(pk=part.intent, kind=part.kind)
    if part.kind in signals:
        signals[part.kind].send(sender=None, intent=part.intent)


def keeping(seen: list[str]) -> Callable[..., None]:
    def keep(delivery: Delivery, **kwargs: Any) -> None:
        seen.append(delivery.id)

    return keep


def main(number: int, seed: int, deliveries: int, wait: Path) -> None:
    confirmed: list[str] = []
    refused: list[str] = []
    delivery_published.connect(keeping(confirmed), weak=False)
    delivery_unpublished.connect(keeping(refused), weak=False)
    for block in Programs(number, seed):
        # In the journal and not in the database: what is rolled back must be known, too.
        kept = {part.intent for part in block.kept()}
        for part in block.sends():
            note("planned", intent=part.intent, kind=part.kind, kept=part.intent in kept)
        before = len(refused)
        run(block)
        if len(confirmed) >= deliveries:
            break
        if len(refused) > before:
            time.sleep(0.2)  # who is told that the broker is away does not send on as fast as before
        while wait.exists():
            time.sleep(0.01)
    note("sender ends", sender=f"i{number}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
