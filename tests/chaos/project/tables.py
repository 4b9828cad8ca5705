"""The database of a run: ``python -m tests.chaos.project.tables create`` and ``... read``, which writes JSON."""

import json
import sys

import django

django.setup()

from django.core.management import call_command  # noqa: E402

from tests.chaos.project.models import Effect, Intent  # noqa: E402
from tests.chaos.project.receivers import RECEIVERS  # noqa: E402

if sys.argv[1] == "create":
    call_command("migrate", run_syncdb=True, verbosity=0)
else:
    columns = ("id", "intent", "receiver", "delivery", "attempt", "pid")
    found = {
        "receivers": RECEIVERS,
        "committed": dict(Intent.objects.values_list("pk", "kind")),
        "effects": list(Effect.objects.order_by("pk").values(*columns)),
    }
    json.dump(found, sys.stdout)
