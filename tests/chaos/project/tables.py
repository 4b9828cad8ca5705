"""The database of a run: ``python -m tests.chaos.project.tables create`` and ``... read``, which writes JSON."""

import json
import os
import re
import sys

import django

django.setup()

from django.core.management import call_command  # noqa: E402

from tests.chaos.project.models import Effect, Intent  # noqa: E402
from tests.chaos.project.receivers import RECEIVERS  # noqa: E402


def rows():
    """The rows of the outbox; what each is about stands in its payload."""
    from deferred_signals.outbox.models import OutboxDelivery

    columns = ("delivery_id", "receiver", "state", "origin", "attempt", "crashes", "lease", "error")
    for row in OutboxDelivery.objects.order_by("number").values(*columns, "payload"):
        [intent] = set(re.findall(r'"(i\d+-\d{7})"', row.pop("payload")))
        delivery, receiver = str(row.pop("delivery_id")), row["receiver"].rpartition(".")[2]
        yield {**row, "delivery": delivery, "receiver": receiver, "intent": intent}


if sys.argv[1] == "create":
    call_command("migrate", run_syncdb=True, verbosity=0)
else:
    columns = ("id", "intent", "receiver", "delivery", "attempt", "pid")
    found = {
        "receivers": RECEIVERS,
        "committed": dict(Intent.objects.values_list("pk", "kind")),
        "effects": list(Effect.objects.order_by("pk").values(*columns)),
    }
    if os.environ.get("CHAOS_OUTBOX"):
        from tests.chaos.project.kept import ATOMIC_RECEIVERS, MODES

        found |= {"modes": MODES, "atomic": ATOMIC_RECEIVERS, "rows": list(rows())}
    json.dump(found, sys.stdout)
