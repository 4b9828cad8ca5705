"""A sender of durable deliveries: ``... <number> <seed> <file that says: wait> <file that says: enough>``."""

import dataclasses
import sys
import time
from collections import Counter
from pathlib import Path

import django

django.setup()

from django.db import Error, transaction  # noqa: E402

from deferred_signals.outbox import together  # noqa: E402
from tests.chaos.journal import note  # noqa: E402
from tests.chaos.programs import Block, Programs  # noqa: E402
from tests.chaos.project.kept import MODES, RECEIVERS, SIGNALS  # noqa: E402
from tests.chaos.project.sender import run  # noqa: E402

#: Half as many in order as of each other kind.
KINDS = [kind for kind in RECEIVERS if kind != "ordered"] * 2 + ["ordered"]

#: In autocommit a row cannot be atomic with what it tells of, so here every transaction is one. Each third one writes
#: its rows in bulk.
BULK = 3


def transact(block: Block, count: int) -> None:
    if count % BULK:
        run(dataclasses.replace(block, atomic=True), SIGNALS)
    else:
        with together():
            run(block, SIGNALS)


def main(number: int, seed: int, wait: Path, enough: Path) -> None:
    for count, block in enumerate(Programs(number, seed, KINDS)):
        kept = [part.intent for part in block.kept()]
        name = f"{number}-{count}"
        for part in block.sends():
            note("planned", intent=part.intent, kind=part.kind, kept=part.intent in kept, block=name)
        try:
            transact(block, count)
        except Error as error:
            # Whether it has committed, nobody knows.
            note("interrupted", block=name, error=f"{type(error).__name__}: {error}")
            transaction.get_connection().close()
            time.sleep(0.1)
        else:
            kinds = Counter(part.kind for part in block.kept())
            sent = {mode: sum(kinds[kind] * len(names) for kind, names in of.items()) for mode, of in MODES.items()}
            note("sent", block=name, deliveries=sent)
        if enough.exists():
            break
        while wait.exists():
            time.sleep(0.01)
    note("sender ends", sender=f"i{number}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
